package signal

import (
	"sync"

	"golang.org/x/time/rate"
)

// users bounds what one user does, whatever sockets and addresses that comes from.
// A user is the subject of a token: who shares a token shares its limits. Where
// nobody is asked who they are (auth.mode none) each session is one.
type users struct {
	most int // sessions of each; 0: no limit

	mu     sync.Mutex // guards below; held for a moment
	byName map[string]*user
}

// user is one user's sessions.
type user struct {
	sessions int
	shares
}

// shares are limits on what others are sent, of all sessions of a user together.
type shares struct {
	relayed   *rate.Limiter // bytes over WebSockets
	data      *rate.Limiter // messages over data channels
	dataBytes *rate.Limiter
}

func newShares() shares {
	return shares{
		relayed:   rate.NewLimiter(relayRate, relayBurst),
		data:      rate.NewLimiter(dataRate, dataBurst),
		dataBytes: rate.NewLimiter(dataBytes, 2*dataBytes),
	}
}

func newUsers(most int) *users { return &users{most: most, byName: make(map[string]*user)} }

// enter counts a session of a user and returns what limits it shares with the
// user's others.
func (u *users) enter(name string) (*shares, error) {
	if name == "" {
		own := newShares()
		return &own, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	one := u.byName[name]
	if one == nil {
		one = &user{shares: newShares()}
		u.byName[name] = one
	}
	if u.most > 0 && one.sessions >= u.most {
		return nil, refuse(tooManyViewers, "%d sessions are open by this user's tokens, which is the limit", one.sessions)
	}
	one.sessions++
	return &one.shares, nil
}

// leave uncounts a session; the user's last one takes all with it.
func (u *users) leave(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if one := u.byName[name]; one != nil {
		if one.sessions--; one.sessions == 0 {
			delete(u.byName, name)
		}
	}
}
