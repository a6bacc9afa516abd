package signal

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"sync"
)

// A session outlives its socket: who comes back with its secret, while the room keeps
// the participant's place, takes up the same PeerConnection and hears what it missed.

const (
	keptMessages = 512       // that a client may have missed
	keptBytes    = 512 << 10 // of them
	resumesRate  = 0.5       // a second of one session
	resumesBurst = 10
)

// errNotResumed answers who comes back to nothing. It doesn't tell why: a wrong secret,
// too late, or too much missed.
var errNotResumed = refuse(resumeFailed, "there is no such session any more: join anew")

// outbox is the client of a session that talks over WebSockets, one after the other. It
// numbers what is sent, and keeps what the client isn't known to have. Its methods may
// be called from any goroutine.
type outbox struct {
	log *slog.Logger

	mu     sync.Mutex // guards below; held to enqueue
	socket *socket    // nil: it is lost
	heard  int        // messages of the client that were acted on or refused
	seq    uint64     // of the last message
	kept   []keptMessage
	bytes  int    // of kept
	missed uint64 // messages up to this one can't be sent again
}

type keptMessage struct {
	seq  uint64
	data []byte
	m    message // in the place of data where others share its bytes
}

// send is the client's: it numbers, keeps and hands on. It doesn't block.
func (o *outbox) send(m message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.put(m)
}

// answer sends an answer to what came by a socket, unless another has taken its place.
func (o *outbox) answer(c *socket, m message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.socket == c {
		o.put(m)
	}
}

func (o *outbox) put(m message) {
	h := m.envelope()
	if h.Type != "joined" {
		o.seq++
		h.Seq = o.seq
	}
	data, err := encode(m)
	if err != nil {
		o.log.Error("message dropped", "err", err)
		return
	}
	if _, passing := m.(*qualityMessage); h.Seq > 0 && !passing { // of the past nobody wants to know it
		k := keptMessage{seq: h.Seq, data: data}
		if _, shared := m.(*presenceMessage); shared {
			k.data, k.m = nil, m
		}
		o.keep(k)
	}
	if o.socket != nil {
		o.socket.push(frame{messages: [][]byte{data}, close: closing(m), seq: h.Seq}, h.Type)
	}
}

// again is the message as it was.
func (k keptMessage) again() []byte {
	if k.m == nil {
		return k.data
	}
	data, _ := encode(k.m) // it was before
	return data
}

func (o *outbox) keep(k keptMessage) {
	o.kept = append(o.kept, k)
	o.bytes += len(k.data)
	for len(o.kept) > keptMessages || o.bytes > keptBytes {
		o.forget()
	}
}

// forget drops the oldest message.
func (o *outbox) forget() {
	o.missed = o.kept[0].seq
	o.bytes -= len(o.kept[0].data)
	o.kept[0] = keptMessage{}
	o.kept = o.kept[1:]
}

// confirm takes note that the client has all messages up to one.
func (o *outbox) confirm(c *socket, seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.socket == c && len(o.kept) > 0 && o.kept[0].seq <= seq {
		o.forget()
	}
}

// count counts a message that came by a socket, and tells whether that is the client's still.
func (o *outbox) count(c *socket) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.socket != c {
		return false
	}
	o.heard++
	return true
}

// has tells whether all that followed message seq can be sent again.
func (o *outbox) has(seq uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return seq >= o.missed && seq <= o.seq
}

// attach has the client go on with a socket, by a welcome and what followed message seq,
// and cuts the one before. False: too much was missed.
func (o *outbox) attach(c *socket, seq uint64, welcome *joinedMessage) bool {
	o.mu.Lock()
	if seq < o.missed || seq > o.seq {
		o.mu.Unlock()
		return false
	}
	old := o.socket
	o.socket = c
	welcome.Resumed, welcome.Received = true, &o.heard
	o.put(welcome)
	again := frame{seq: o.seq}
	for _, k := range o.kept {
		if k.seq > seq {
			again.messages = append(again.messages, k.again())
		}
	}
	if len(again.messages) > 0 {
		c.push(again, "again")
	}
	o.mu.Unlock()
	if old != nil {
		old.hangUpNow()
	}
	return true
}

// detach takes note that a socket is lost, and tells whether it was the client's.
func (o *outbox) detach(c *socket) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.socket != c {
		return false
	}
	o.socket = nil
	return true
}

// resume gives a session to who knows its secret.
func (s *Server) resume(ctx context.Context, m request, c *socket) (*session, error) {
	x := s.session(m.Resume)
	if x == nil || x.out == nil {
		s.metrics.resumes.WithLabelValues("refused").Inc()
		return nil, errNotResumed
	}
	if !x.resumes.Allow() {
		return nil, refuse(rateLimited, "the session was taken up %d times in a row: wait %d s", resumesBurst, int(1/resumesRate))
	}
	taken, err := call(ctx, x, func(ctx context.Context) (bool, error) { return x.resume(ctx, m, c), nil })
	if err != nil || !taken {
		s.metrics.resumes.WithLabelValues("refused").Inc()
		return nil, errNotResumed
	}
	s.metrics.resumes.WithLabelValues("taken").Inc()
	return x, nil
}

// resume is Server.resume on the session's goroutine.
func (x *session) resume(ctx context.Context, m request, c *socket) bool {
	seq := uint64(m.Seq)
	if !x.out.has(seq) { // too much was missed
		return false
	}
	if x.place.Back() != nil { // too late: the session is about to end
		return false
	}
	x.unpark()
	if !x.out.attach(c, seq, x.welcome("joined", m.RequestID, x.place.Snapshot())) {
		return false
	}
	x.log.InfoContext(ctx, "session is taken up again", "socket", c.trace)
	return true
}

// lost has a session wait for its client after a socket of its has ended: as long as the
// room keeps the participant's place. It returns when the session knows.
func (x *session) lost(ctx context.Context, c *socket) {
	_, _ = call(ctx, x, func(ctx context.Context) (none, error) { // or it has ended
		if !x.out.detach(c) {
			return none{}, nil
		}
		waits := x.place.DepartureTimeout()
		if waits == 0 {
			x.end(errGone)
			return none{}, nil
		}
		x.log.InfoContext(ctx, "session has lost its socket", "waits", waits)
		x.parked, x.address = true, c.address
		x.server.addresses.enter(x.address, 0) // counts as a socket still: sessions aren't to be heaped up
		x.place.Away()
		return none{}, nil
	})
}

// unpark ends the wait for the client.
func (x *session) unpark() {
	if x.parked {
		x.parked = false
		x.server.addresses.leave(x.address)
	}
}

// secretKey is what a session is found by: its secret's hash, so that the time which a
// search takes tells nothing of the secrets there are.
func secretKey(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

// session is the session of a secret; nil if there is none.
func (s *Server) session(secret string) *session {
	s.mu.Lock()
	x := s.sessions[secretKey(secret)]
	s.mu.Unlock()
	if x == nil || subtle.ConstantTimeCompare([]byte(x.id), []byte(secret)) != 1 {
		return nil
	}
	return x
}
