package signal

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"gateway/internal/rtc"
)

const unreachedFor = time.Hour // that a client is remembered

// unreached remembers whom ICE-lite has not connected lately: their next sessions get
// full ICE at once. Those need it to whom the gateway can't make a second offer (WHEP),
// or who begin no second handshake on a PeerConnection (Firefox), and join anew.
type unreached struct {
	mu   sync.Mutex // guards below; held for a moment
	last [256]reach // a ring
	next int        // of last, to be overwritten
}

// reach is who was not reached: the subject of a token, and where from. Who shares
// both with another gets full ICE, too, which costs a little.
type reach struct {
	subject string
	from    netip.Prefix
	until   time.Time
}

func (u *unreached) note(subject string, from netip.Prefix) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last[u.next] = reach{subject, from, time.Now().Add(unreachedFor)}
	u.next = (u.next + 1) % len(u.last)
}

func (u *unreached) has(subject string, from netip.Prefix) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	for _, r := range u.last {
		if r.subject == subject && r.from == from && now.Before(r.until) {
			return true
		}
	}
	return false
}

// noteUnreached remembers a client whose lite connection didn't come about: in its
// time, or before the client gave it up.
func (x *session) noteUnreached() {
	if x.viewer == nil || x.connected || !x.viewer.Lite() {
		return
	}
	if errors.Is(x.viewer.Err(), rtc.ErrNeedsFullICE) || time.Since(x.viewing) > x.server.timing.vain {
		x.server.unreached.note(x.granted.Load().Subject, x.from)
	}
}
