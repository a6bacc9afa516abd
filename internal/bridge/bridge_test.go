package bridge

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gateway/internal/auth"
	"gateway/internal/config"
	"gateway/internal/room"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noPipelines are those of a gateway without any.
type noPipelines struct{}

func (noPipelines) Stream(string) (room.Stream, bool) { return nil, false }
func (noPipelines) Names() []string                   { return nil }

// lab is a room with a bridge, and a page in it.
type lab struct {
	rooms  *room.Rooms
	bridge *Bridge
	path   string
	page   *room.Participant
	heard  chan room.Event
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{path: filepath.Join(t.TempDir(), "lab.sock"), heard: make(chan room.Event, 1000)}
	l.rooms = room.New(room.Options{Rooms: []config.Room{{Name: "lab"}}, Pipelines: noPipelines{}})
	t.Cleanup(l.rooms.Close)
	var err error
	if l.bridge, err = Listen(Options{Rooms: l.rooms, Room: "lab", Path: l.path, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.bridge.Close(); err != nil {
			t.Error(err)
		}
	})
	l.page, err = l.rooms.Join("lab", room.Joining{ID: "page", Name: "Page", Grant: auth.Open(), Sink: func(e room.Event) { l.heard <- e }})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// hears waits for an event of a type.
func hears[T room.Event](t *testing.T, l *lab) T {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e := <-l.heard:
			if e, ok := e.(T); ok {
				return e
			}
		case <-deadline:
			var want T
			t.Fatalf("the page didn't hear of a %T", want)
		}
	}
}

// robot is a program at the socket.
type robot struct {
	net.Conn
	lines *bufio.Scanner
}

func newRobot(t *testing.T, l *lab) *robot {
	t.Helper()
	c, err := net.Dial("unix", l.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := &robot{c, bufio.NewScanner(c)}
	r.lines.Buffer(nil, 1<<20)
	return r
}

func (r *robot) say(t *testing.T, text string) {
	t.Helper()
	if _, err := fmt.Fprintln(r, text); err != nil {
		t.Fatal(err)
	}
}

func (r *robot) next(t *testing.T) line {
	t.Helper()
	if !r.lines.Scan() {
		t.Fatalf("no line: %v", r.lines.Err())
	}
	var m line
	if err := json.Unmarshal(r.lines.Bytes(), &m); err != nil {
		t.Fatalf("%s: %v", r.lines.Bytes(), err)
	}
	return m
}

func TestProgramTalksToAPage(t *testing.T) {
	l := newLab(t)
	r := newRobot(t, l)
	joined := r.next(t)
	if joined.Type != "joined" || joined.RoomID != "lab" || len(joined.Participants) != 2 {
		t.Fatalf("%+v", joined)
	}
	if p := hears[room.Joined](t, l); p.ID != joined.UserID || p.Name == "" || p.Role != auth.Publisher {
		t.Errorf("the page sees %+v", p)
	}

	r.say(t, `{"type":"message","data":{"speed":3}}`)
	if e := hears[room.Relayed](t, l); e.From != joined.UserID || string(e.Message.(*room.Data).Payload) != `{"speed":3}` || !e.Message.(*room.Data).JSON {
		t.Errorf("%+v", e)
	}
	r.say(t, `{"type":"message","target":"page","binary":"AP8=","lossy":true}`)
	if d := hears[room.Relayed](t, l).Message.(*room.Data); d.JSON || !d.Lossy || string(d.Payload) != "\x00\xff" {
		t.Errorf("%+v", d)
	}
	if err := l.page.Relay(joined.UserID, &room.Data{JSON: true, Payload: []byte(`"stop"`)}); err != nil {
		t.Fatal(err)
	}
	if m := r.next(t); m.Type != "message" || m.UserID != "page" || string(m.Data) != `"stop"` {
		t.Errorf("%+v", m)
	}
	if err := l.page.Relay("", &room.Data{Payload: []byte{1, 2}}); err != nil {
		t.Fatal(err)
	}
	if m := r.next(t); string(m.Binary) != "\x01\x02" || m.Data != nil {
		t.Errorf("%+v", m)
	}
	r.Close()
	if p := hears[room.Departed](t, l); p.ID != joined.UserID {
		t.Errorf("%+v left", p)
	}
}

func TestBadLinesAreAnswered(t *testing.T) {
	l := newLab(t)
	r := newRobot(t, l)
	r.next(t)
	for _, c := range []struct{ text, code string }{
		{`{`, "bad-message"},
		{`{"type":"message"}`, "bad-message"},
		{`{"type":"message","data":1,"binary":"AA=="}`, "bad-message"},
		{`{"type":"message","data":1,"from":"x"}`, "bad-message"},
		{`{"type":"remove","target":"page"}`, "bad-message"},
		{`{"type":"message","data":1,"target":"nobody"}`, "unknown-target"},
	} {
		r.say(t, c.text)
		if m := r.next(t); m.Type != "error" || m.Code != c.code || m.Message == "" {
			t.Errorf("%s: %+v", c.text, m)
		}
	}
	r.say(t, "") // passed over
	r.say(t, `{"type":"message","data":null}`)
	hears[room.Relayed](t, l)
	r.say(t, `{"type":"message","data":"`+strings.Repeat("x", maxLine)+`"}`)
	if m := r.next(t); m.Code != "message-too-large" {
		t.Errorf("%+v", m)
	}
	if r.lines.Scan() {
		t.Errorf("the connection goes on: %s", r.lines.Bytes())
	}
	hears[room.Departed](t, l)
}

// What is longer than a data channel's messages was taken, and reached no page: the program
// is told, and the connection goes on.
func TestLinesLongerThanPagesTakeAreRefused(t *testing.T) {
	l := newLab(t)
	r := newRobot(t, l)
	r.next(t)
	full := strings.Repeat("<", room.MaxPayload-2)
	r.say(t, `{"type":"message","data":"`+full+`x"}`)
	if m := r.next(t); m.Type != "error" || m.Code != "message-too-large" {
		t.Errorf("%+v", m)
	}
	r.say(t, `{"type":"message","binary":"`+base64.StdEncoding.EncodeToString(make([]byte, room.MaxPayload+1))+`"}`)
	if m := r.next(t); m.Type != "error" || m.Code != "message-too-large" {
		t.Errorf("%+v", m)
	}
	r.say(t, `{"type":"message","data":"`+full+`"}`)
	if d := hears[room.Relayed](t, l).Message.(*room.Data); string(d.Payload) != `"`+full+`"` {
		t.Errorf("%d bytes arrived", len(d.Payload))
	}
	for _, d := range []*room.Data{{JSON: true, Payload: []byte(`"` + full + `"`)}, {Payload: make([]byte, room.MaxPayload)}} {
		if err := l.page.Relay("", d); err != nil {
			t.Fatal(err)
		}
		if m := r.next(t); string(m.Data) != string(d.Payload) && string(m.Binary) != string(d.Payload) || len(r.lines.Bytes()) > maxLine {
			t.Errorf("a line of %d bytes arrived", len(r.lines.Bytes()))
		}
	}
}

// Who tells something holds all rooms locked: the text is made later, and once for all.
func TestTextIsMadeByTheWriter(t *testing.T) {
	programs := []*program{{out: make(chan *line, 1)}, {out: make(chan *line, 1)}}
	data := &room.Data{JSON: true, Payload: []byte("\"" + strings.Repeat("x", 1000) + "\"")}
	var texts [][]byte
	for _, p := range programs {
		var m *line
		if n := testing.AllocsPerRun(100, func() {
			p.hear(room.Relayed{From: "page", Message: data})
			m = <-p.out
		}); n > 2 {
			t.Errorf("to hear of a message takes %v allocations", n)
		}
		texts = append(texts, m.text())
	}
	if &texts[0][0] != &texts[1][0] {
		t.Error("each program has a text of its own")
	}
}

func TestProgramIsSentAway(t *testing.T) {
	l := newLab(t)
	r := newRobot(t, l)
	id := r.next(t).UserID
	if err := l.page.Remove(id); err != nil {
		t.Fatal(err)
	}
	if m := r.next(t); m.Type != "left" || m.Reason != room.Removed {
		t.Errorf("%+v", m)
	}
	if r.lines.Scan() {
		t.Errorf("the connection goes on: %s", r.lines.Bytes())
	}
}

// Who doesn't read holds up nobody.
func TestSlowProgramIsCutOff(t *testing.T) {
	l := newLab(t)
	r := newRobot(t, l)
	r.next(t)
	hears[room.Joined](t, l)
	payload := make([]byte, 32<<10)
	for i := range outgoing * 8 {
		if err := l.page.Relay("", &room.Data{Payload: payload}); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	hears[room.Departed](t, l)
}

func TestSocketOfAPath(t *testing.T) {
	l := newLab(t)
	info, err := os.Stat(l.path)
	if err != nil || info.Mode().Perm() != mode {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := Listen(Options{Rooms: l.rooms, Room: "lab", Path: l.path}); err == nil || !strings.Contains(err.Error(), "another program listens") {
		t.Errorf("a socket in use: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Options{Rooms: l.rooms, Room: "lab", Path: file}); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
	if text, _ := os.ReadFile(file); string(text) != "precious" {
		t.Errorf("the file holds %q", text)
	}
	if _, err := Listen(Options{Rooms: l.rooms, Room: "lab", Path: filepath.Join(t.TempDir(), "none", "x.sock")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}

	stale := filepath.Join(t.TempDir(), "stale.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	b, err := Listen(Options{Rooms: l.rooms, Room: "lab", Path: stale})
	if err != nil {
		t.Fatalf("a socket that was left behind: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays: %v", err)
	}
}

// A program that is sent away and doesn't read ends all the same.
func TestProgramThatDoesNotReadIsLetGo(t *testing.T) {
	l := newLab(t)
	r := newRobot(t, l)
	id := r.next(t).UserID
	for range outgoing - 1 { // more than a socket takes, and less than is borne
		if err := l.page.Relay(id, &room.Data{JSON: true, Payload: []byte(`"` + strings.Repeat("x", 10_000) + `"`)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.page.Remove(id); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l.bridge.mu.Lock()
		n := len(l.bridge.open)
		l.bridge.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("its connection is open still")
		}
	}
}

// A program that floods the room is held back by its socket; what it says arrives all the same.
func TestProgramThatFloodsIsHeldBack(t *testing.T) {
	l := newLab(t)
	r := newRobot(t, l)
	r.next(t)
	const n = 3 * lineRate
	begun := time.Now()
	for i := range n {
		r.say(t, fmt.Sprintf(`{"type":"message","data":%d}`, i))
	}
	for i := range n {
		if m := hears[room.Relayed](t, l).Message.(*room.Data); string(m.Payload) != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, m.Payload)
		}
	}
	if took := time.Since(begun); took < 900*time.Millisecond {
		t.Errorf("%d lines were taken in %v", n, took)
	}
}
