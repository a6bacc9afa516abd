// Package bridge lets programs of this machine take part in a room: a robot or a
// kiosk talks to those who watch it. A program connects to the room's Unix socket
// and exchanges lines of JSON, as docs/programs.md has them; to the room it is a
// participant who only exchanges messages.
//
// Goroutines: one listens; each connection has a reader and a writer.
// [Bridge.Close] ends and waits for all.
package bridge

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"gateway/internal/auth"
	"gateway/internal/contain"
	"gateway/internal/room"
)

const (
	maxLine  = 128 << 10 // bytes of a line
	outgoing = 256       // lines that wait for a program that doesn't read
	programs = 64        // connections of a room at a time

	lineRate = 200     // lines a second of one program, with bursts of twice that
	byteRate = 1 << 20 // bytes a second, likewise
	mode     = 0o660   // of the socket: its owner, and the group
)

// Options are what a bridge is made of.
type Options struct {
	Rooms  *room.Rooms
	Room   string       // that the programs are in
	Path   string       // of the socket
	Logger *slog.Logger // nil: slog.Default
}

// Bridge is a listening socket with its connections.
type Bridge struct {
	o        Options
	log      *slog.Logger
	listener *net.UnixListener
	wait     sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	open   map[*program]struct{}
}

// Listen opens the socket. A file that is there is replaced if it is a socket on which
// nobody listens any more.
func Listen(o Options) (*Bridge, error) {
	if err := vacate(o.Path); err != nil {
		return nil, err
	}
	// under another name until its rights are set
	draft := filepath.Join(filepath.Dir(o.Path), "."+filepath.Base(o.Path)+"."+strconv.Itoa(os.Getpid()))
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: draft, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket of room %q: %w", o.Room, err)
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(draft, mode), os.Rename(draft, o.Path)); err != nil {
		listener.Close()
		os.Remove(draft)
		return nil, fmt.Errorf("socket of room %q: %w", o.Room, err)
	}
	b := &Bridge{o: o, log: cmp.Or(o.Logger, slog.Default()).With("room", o.Room), listener: listener, open: map[*program]struct{}{}}
	b.wait.Go(b.accept)
	return b, nil
}

// vacate removes a socket that was left behind.
func vacate(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is there and no socket: name another path", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("%s: another program listens there", path)
	}
	return os.Remove(path)
}

// Close ends all connections, removes the socket and waits. Idempotent.
func (b *Bridge) Close() error {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	for p := range b.open {
		p.conn.Close()
	}
	b.mu.Unlock()
	var err error
	if first {
		err = errors.Join(b.listener.Close(), os.Remove(b.o.Path))
	}
	b.wait.Wait()
	return err
}

func (b *Bridge) accept() {
	for {
		conn, err := b.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, most likely
			b.log.Warn("program can't connect", "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		b.mu.Lock()
		if b.closed || len(b.open) >= programs {
			b.mu.Unlock()
			conn.Close()
			continue
		}
		p := &program{bridge: b, conn: conn, out: make(chan *line, outgoing), gone: make(chan struct{})}
		b.open[p] = struct{}{}
		b.wait.Go(p.serve)
		b.mu.Unlock()
	}
}

// program is one connection.
type program struct {
	bridge *Bridge
	conn   *net.UnixConn
	out    chan *line    // written as text by write alone
	gone   chan struct{} // closed when the reader has ended
	cut    sync.Once
}

// line is a message in either direction.
type line struct {
	Type         string          `json:"type"`
	RoomID       string          `json:"roomId,omitempty"`
	UserID       string          `json:"userId,omitempty"`       // joined: the program's own; message: the sender's
	Target       string          `json:"target,omitempty"`       // message to the gateway: for one participant; none: all
	Data         json.RawMessage `json:"data,omitempty"`         // message: any JSON value
	Binary       []byte          `json:"binary,omitempty"`       // or bytes, in base64
	Lossy        bool            `json:"lossy,omitempty"`        // message: better lost than late
	Participant  *room.Profile   `json:"participant,omitempty"`  // participant-joined, -left, -changed
	Participants []room.Profile  `json:"participants,omitempty"` // joined
	Here         []room.Profile  `json:"here,omitempty"`         // presence
	Gone         []string        `json:"gone,omitempty"`         // presence
	Code         string          `json:"code,omitempty"`         // error
	Message      string          `json:"message,omitempty"`      // error
	Reason       room.Reason     `json:"reason,omitempty"`       // left

	of *room.Data // message to a program: Data or Binary, and Lossy
}

// text is the line as it is sent. That of a message is made once for all programs.
func (m *line) text() []byte {
	if m.of == nil {
		return m.encode()
	}
	return m.of.Line.By(func() []byte {
		full := *m
		full.Lossy = m.of.Lossy
		if m.of.JSON {
			full.Data = m.of.Payload
		} else {
			full.Binary = m.of.Payload
		}
		return full.encode()
	})
}

func (m *line) encode() []byte {
	var text bytes.Buffer
	to := json.NewEncoder(&text)
	to.SetEscapeHTML(false) // <, > and & would be six times as long
	// what came as JSON was checked then: no error
	_ = to.Encode(m)
	return text.Bytes()
}

// serve is the connection's life.
func (p *program) serve() {
	b := p.bridge
	defer func() {
		b.mu.Lock()
		delete(b.open, p)
		b.mu.Unlock()
	}()
	name := caller(p.conn)
	id := "program-" + strings.ToLower(rand.Text()[:8])
	grant := &auth.Grant{Subject: id, Name: name, Role: auth.Publisher, Can: []auth.Action{auth.Relay}, Rooms: []string{b.o.Room}}
	log := b.log.With("program", id, "name", name)

	var writing sync.WaitGroup
	writing.Go(p.write)
	who, err := b.o.Rooms.Join(b.o.Room, room.Joining{ID: id, Grant: grant, Sink: p.hear})
	if err != nil {
		p.refuse(err)
	} else {
		log.Info("program joined")
		p.read(who)
		who.Leave()
		log.Info("program left")
	}
	p.conn.SetWriteDeadline(time.Now().Add(time.Second)) // also for what is being written
	close(p.gone)
	writing.Wait()
	p.conn.Close()
}

// read takes lines until the program has gone, or the room has sent it away.
func (p *program) read(who *room.Participant) {
	defer contain.Panic(p.bridge.log, "program", nil)
	lines := bufio.NewScanner(p.conn)
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	rates := []*rate.Limiter{rate.NewLimiter(lineRate, 2*lineRate), rate.NewLimiter(byteRate, 2*byteRate)}
	for lines.Scan() {
		for i, n := range []int{1, len(lines.Bytes())} {
			_ = rates[i].WaitN(context.Background(), n) // a moment: what is too fast fills the socket's buffer
		}
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if err := p.take(who, lines.Bytes()); errors.Is(err, room.ErrLeft) {
			return
		} else if err != nil {
			p.refuse(err)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		p.refuse(fmt.Errorf("%w: a line has at most %d bytes", room.ErrTooLarge, maxLine))
	}
}

// take relays one message.
func (p *program) take(who *room.Participant, text []byte) error {
	var m line
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return fmt.Errorf("not a message: %w", err)
	}
	switch {
	case m.Type != "message":
		return fmt.Errorf("type is %.32q, and must be \"message\"", m.Type)
	case (m.Data == nil) == (m.Binary == nil):
		return errors.New("a message has either data, any JSON, or binary, in base64")
	}
	data := &room.Data{JSON: m.Data != nil, Lossy: m.Lossy, Payload: m.Binary}
	if data.JSON {
		data.Payload = m.Data
	}
	return who.Relay(m.Target, data)
}

// hear is the participant's sink: the writer turns it into text, not who is heard.
func (p *program) hear(e room.Event) {
	var m *line
	switch e := e.(type) {
	case room.Entered:
		m = &line{Type: "joined", RoomID: e.Room.ID, UserID: e.Self.ID, Participants: e.Participants}
	case room.Joined:
		m = &line{Type: "participant-joined", Participant: &e.Profile}
	case room.Departed:
		m = &line{Type: "participant-left", Participant: &e.Profile}
	case room.Changed:
		m = &line{Type: "participant-changed", Participant: &e.Profile}
	case *room.Presence:
		m = &line{Type: "presence", Here: e.Here, Gone: e.Gone}
	case room.Moved: // a program belongs to its room
		p.end(&line{Type: "left", Reason: room.Removed})
		return
	case room.Left:
		p.end(&line{Type: "left", Reason: e.Reason})
		return
	case room.Relayed:
		data, ok := e.Message.(*room.Data)
		if !ok {
			return // signaling between others
		}
		m = &line{Type: "message", UserID: e.From, of: data}
	default:
		return
	}
	p.send(m)
}

func (p *program) refuse(err error) {
	code := "bad-message"
	switch {
	case errors.Is(err, room.ErrUnknownTarget):
		code = "unknown-target"
	case errors.Is(err, room.ErrTooLarge):
		code = "message-too-large"
	case errors.Is(err, room.ErrForbidden):
		code = "forbidden"
	case errors.Is(err, room.ErrClosed):
		code = "room-closed"
	case errors.Is(err, room.ErrFull):
		code = "room-full"
	case errors.Is(err, room.ErrLocked):
		code = "room-locked"
	}
	p.send(&line{Type: "error", Code: code, Message: err.Error()})
}

// send hands a line to the writer and never blocks: a program that doesn't read is cut
// off, unless it is better lost than late.
func (p *program) send(m *line) {
	select {
	case p.out <- m:
	default:
		if m.of == nil || !m.of.Lossy {
			p.cut.Do(func() {
				p.bridge.log.Warn("program cut off", "reason", "it doesn't read")
				p.conn.Close()
			})
		}
	}
}

// end sends a last line; the reader then meets the end of what the program sends.
func (p *program) end(m *line) {
	p.send(m)
	p.conn.CloseRead()
}

// write writes lines until the reader has ended, and what waits then.
func (p *program) write() {
	for {
		select {
		case m := <-p.out:
			if _, err := p.conn.Write(m.text()); err != nil {
				return
			}
		case <-p.gone:
			for {
				select {
				case m := <-p.out:
					if _, err := p.conn.Write(m.text()); err != nil {
						return
					}
				default:
					return
				}
			}
		}
	}
}

// caller is the name of the program at the other end.
func caller(c *net.UnixConn) string {
	name := "program"
	raw, err := c.SyscallConn()
	if err != nil {
		return name
	}
	_ = raw.Control(func(fd uintptr) {
		cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err != nil {
			return
		}
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid)); err == nil {
			name = strings.ToValidUTF8(strings.TrimSpace(string(comm)), "")
		}
	})
	return name
}
