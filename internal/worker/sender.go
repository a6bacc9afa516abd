package worker

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/media"
)

const (
	maxQueued  = 4 << 20 // bytes that wait for the other end, until packets are dropped
	maxMessage = 8 << 20 // likewise, until nothing is taken any more
	sendBuffer = 1 << 20 // asked of the kernel for a socket; it gives less unless it is told to allow more (net.core.wmem_max)
)

var errFull = errors.New("the other end doesn't read")

// sender writes messages to a socket and never waits: what the socket doesn't take
// at once is queued, and packets for which there is no room are dropped. Its
// methods may be called from any goroutine.
type sender struct {
	conn *net.UnixConn
	raw  syscall.RawConn
	wake chan struct{} // something is queued
	done chan struct{} // its goroutine has ended

	mu     sync.Mutex // guards below; never held while waiting
	head   []byte     // of the message that is being sent
	queue  []queued
	size   int // of the queue, bytes
	lost   map[string]bool
	closed bool
	err    error // the socket is broken
}

// queued is the rest of a message.
type queued struct {
	head []byte
	body []byte
	buf  *media.Buffer // that body belongs to; may be nil
}

func newSender(conn *net.UnixConn) (*sender, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	conn.SetWriteBuffer(sendBuffer)
	s := &sender{conn: conn, raw: raw, wake: make(chan struct{}, 1), done: make(chan struct{}), lost: make(map[string]bool)}
	go s.run()
	return s, nil
}

// packets sends a buffer and releases it. Where there is no room it is dropped, and
// the branch's next one follows a gap.
func (s *sender) packets(id string, b *media.Buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size > maxQueued || s.closed || s.err != nil || len(id) > maxID || b.Len() > maxPackets {
		s.lost[id] = true
		b.Release()
		return
	}
	if s.lost[id] {
		b.Gap = true
		delete(s.lost, id)
	}
	s.head = appendPackets(s.head[:0], id, b)
	s.send(queued{s.head, b.Bytes(), b})
}

// message sends a message. The error says that it can't be sent.
func (s *sender) message(m *message) error {
	text, err := m.encode()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case s.closed:
		return net.ErrClosed
	case s.size > maxMessage, m.Do == doLog && s.size > maxQueued:
		return errFull
	}
	s.send(queued{head: text})
	return nil
}

// send writes or queues. The caller holds mu.
func (s *sender) send(q queued) {
	if len(s.queue) == 0 {
		// not by raw.Write: its lock is held by who waits
		if err := s.raw.Control(func(fd uintptr) { s.err = q.write(int(fd)) }); err != nil {
			s.err = err
		}
		if s.err != nil || q.empty() {
			q.release()
			return
		}
	}
	q.head = append([]byte(nil), q.head...) // of packets it is s.head
	s.queue = append(s.queue, q)
	s.size += q.size()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run sends what is queued.
func (s *sender) run() {
	defer close(s.done)
	for range s.wake {
		if err := s.raw.Write(s.flush); err != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
		}
		s.mu.Lock()
		ended := s.err != nil || s.closed && len(s.queue) == 0
		if s.err != nil {
			s.drop()
		}
		s.mu.Unlock()
		if ended {
			return
		}
	}
}

// flush writes until the socket is full (false) or the queue empty.
func (s *sender) flush(fd uintptr) (done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 && s.err == nil {
		q := &s.queue[0]
		before := q.size()
		s.err = q.write(int(fd))
		s.size -= before - q.size()
		if s.err != nil {
			break
		}
		if !q.empty() {
			return false
		}
		q.release()
		s.queue[0] = queued{}
		s.queue = s.queue[1:]
	}
	if len(s.queue) == 0 {
		s.queue = nil
	}
	return true
}

// drop gives up what is queued. The caller holds mu.
func (s *sender) drop() {
	for i := range s.queue {
		s.queue[i].release()
	}
	s.queue, s.size = nil, 0
}

// close sends what is queued for as long as that, then closes the socket. Nothing
// can be sent any more from its beginning on. Idempotent.
func (s *sender) close(within time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.conn.SetWriteDeadline(time.Now().Add(within))
	select {
	case s.wake <- struct{}{}:
	default: // it will look
	}
	<-s.done
	s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

// write sends what the socket takes.
func (q *queued) write(fd int) error {
	for !q.empty() {
		var err error
		var n int
		if len(q.head) > 0 && len(q.body) > 0 {
			n, err = unix.SendmsgBuffers(fd, [][]byte{q.head, q.body}, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		} else if len(q.head) > 0 {
			n, err = unix.SendmsgN(fd, q.head, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		} else {
			n, err = unix.SendmsgN(fd, q.body, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return nil
		case err != nil:
			return err
		}
		k := min(n, len(q.head))
		q.head, q.body = q.head[k:], q.body[n-k:]
	}
	return nil
}

func (q *queued) empty() bool { return len(q.head)+len(q.body) == 0 }
func (q *queued) size() int   { return len(q.head) + len(q.body) }

func (q *queued) release() {
	if q.buf != nil {
		q.buf.Release()
	}
}
