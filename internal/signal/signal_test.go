package signal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"gateway/internal/config"
	"gateway/internal/media"
	"gateway/internal/rtc"
	"gateway/internal/stream"
)

// slow is the frame rate of a track of which many are watched; others yield 50 a second.
const slow = 5

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gateway is a server with real streams and a real rtc engine, fed by pipelines
// that make up their packets.
type gateway struct {
	*Server
	http    *httptest.Server
	streams map[string]*stream.Stream
	sources map[string]*source
	metrics *prometheus.Registry
}

// newGateway starts one with the streams test (VP8 and Opus), h264, ladder and
// away (absent until its source comes).
func newGateway(t *testing.T, change ...func(*config.Gateway, *timing)) *gateway {
	t.Helper()
	before := goleak.IgnoreCurrent()                   // what one test leaves is no fault of the next ones
	t.Cleanup(func() { goleak.VerifyNone(t, before) }) // runs last
	conf := &config.Gateway{Limits: config.Limits{Viewers: 1000}, Room: config.Room{DepartureTimeout: 30 * time.Second}}
	g := &gateway{streams: map[string]*stream.Stream{}, sources: map[string]*source{}, metrics: prometheus.NewRegistry()}
	log := testLogger(t)
	for name, tracks := range map[string][]media.Track{
		"test": {{Name: "video", Kind: media.Video, Codec: media.VP8, Width: 320, Height: 180, FPS: 30}, {Name: "audio", Kind: media.Audio, Codec: media.Opus}},
		"h264": {{Name: "video", Kind: media.Video, Codec: media.H264, Fmtp: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}},
		"ladder": {
			{Name: "best", Kind: media.Video, Codec: media.AV1}, {Name: "high", Kind: media.Video, Codec: media.VP8, Width: 1280, Height: 720},
			{Name: "low", Kind: media.Video, Codec: media.VP8, Width: 320, Height: 180}, {Name: "audio", Kind: media.Audio, Codec: media.Opus},
		},
		"away": {{Name: "video", Kind: media.Video, Codec: media.VP8}},
	} {
		g.add(t, name, tracks...)
	}
	for _, f := range change {
		f(conf, new(timing))
	}
	engine, err := rtc.New(rtc.Options{Logger: log, ICE: conf.ICE})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })

	g.Server = New(Options{Streams: g, Authority: everybody{}, RTC: engine, Config: conf, Logger: log, Registerer: g.metrics})
	for _, f := range change {
		f(conf, &g.timing)
	}
	mux := http.NewServeMux()
	mux.Handle("/ws", g.WebSocket())
	mux.Handle("/whep/", g.WHEP())
	mux.Handle("/whip/", g.WHIP())
	g.http = httptest.NewServer(Trace(mux, log))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := g.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		g.http.Close()
	})
	return g
}

func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// add makes a stream.
func (g *gateway) add(t *testing.T, name string, tracks ...media.Track) {
	src := &source{tracks: tracks, absent: name == "away"}
	s := stream.New(&config.Stream{Name: name, Title: "The " + name, OnDemand: true, Sync: "av"}, src, testLogger(t))
	g.sources[name], g.streams[name] = src, s
	t.Cleanup(func() { s.Close() })
}

// reload gives a stream other tracks under its viewers.
func (g *gateway) reload(t *testing.T, name string, tracks ...media.Track) {
	t.Helper()
	g.sources[name].mu.Lock()
	g.sources[name].tracks = tracks
	g.sources[name].mu.Unlock()
	conf := *g.streams[name].Config()
	if err := g.streams[name].Apply(context.Background(), &conf); err != nil {
		t.Fatal(err)
	}
}

// panics is the stream that a gateway's streams have a fault with.
const panics = "panics"

func (g *gateway) Stream(name string) (*stream.Stream, bool) {
	if name == panics {
		panic("injected")
	}
	s, ok := g.streams[name]
	return s, ok
}

// count reads a counter or gauge, summed over all series that have the labels.
func (g *gateway) count(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			var has []string
			for _, l := range m.Label {
				has = append(has, l.GetValue())
			}
			if !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(has, l) }) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// source launches pipelines that yield a frame of each branch every 20 ms, each a
// keyframe: of its bitrate, or a small one.
type source struct {
	mu     sync.Mutex
	tracks []media.Track
	absent bool
	mute   string                       // track of which nothing is encoded
	said   map[string]func(fmtp string) // by track: what the running branches' sinks are told
	ends   map[string]func(error)       // likewise
}

func (s *source) Compile(context.Context, *config.Stream) (*config.Plan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	feed := config.Feed{Name: "video", Capture: "fake"}
	if s.absent {
		feed.Absent = fmt.Errorf("the cable isn't plugged in: %w", media.ErrAbsent)
		return &config.Plan{Feeds: []config.Feed{feed}}, nil
	}
	plan := new(config.Plan)
	for _, kind := range []media.Kind{media.Video, media.Audio} {
		feed := config.Feed{Name: kind.String(), Capture: "fake"}
		for _, t := range s.tracks {
			if t.Kind == kind {
				feed.Branches = append(feed.Branches, config.Branch{
					Track: t, Launch: string(t.Codec) + "enc name=encoder", Element: "encoder",
					Bitrate: config.BitrateProperty{Property: "bitrate", Unit: 1, Live: true},
				})
			}
		}
		if len(feed.Branches) > 0 {
			plan.Feeds = append(plan.Feeds, feed)
		}
	}
	return plan, nil
}

func (s *source) appear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.absent = false
}

// describe says that the running video has other format parameters.
func (s *source) describe(fmtp string) {
	s.mu.Lock()
	say := s.said["video"]
	s.mu.Unlock()
	say(fmtp)
}

// end says that a running branch ended by itself.
func (s *source) end(track string, err error) {
	s.mu.Lock()
	end := s.ends[track]
	s.mu.Unlock()
	end(err)
}

func (s *source) Blame(*config.Branch, error) {}

func (s *source) Placeholder(context.Context, *config.Placeholder) ([][][]byte, error) {
	return nil, errors.New("nothing is encoded here")
}

func (s *source) Launch(_ context.Context, _ string, _ *config.Feed, sink stream.Sink) (stream.Pipeline, error) {
	return &pipeline{source: s, sink: sink, stops: map[string]func(){}}, nil
}

// pipeline is a running capture. The stream calls it from one goroutine.
type pipeline struct {
	source *source
	sink   stream.Sink
	mu     sync.Mutex
	stops  map[string]func() // by branch id
}

func (p *pipeline) Start(_ context.Context, id string, b *config.Branch) error {
	track := b.Track
	p.source.mu.Lock()
	mute := p.source.mute
	if p.source.said == nil {
		p.source.said, p.source.ends = map[string]func(string){}, map[string]func(error){}
	}
	p.source.ends[track.Name] = func(err error) { p.sink.Ended(id, err) }
	p.source.said[track.Name] = func(fmtp string) { track.Fmtp = fmtp; p.sink.Describe(id, track) }
	p.source.mu.Unlock()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		every := 20 * time.Millisecond
		if track.FPS == slow {
			every = time.Second / slow
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			size := max(track.Bps/8/50, 92)
			b := media.NewBuffer(size)
			b.Capture, b.Arrived = media.Now(), media.Now()
			b.Start, b.End, b.Keyframe = true, true, true
			for left := size; left > 0; left -= 1100 {
				head := []byte{0x00, 0x00}
				if left == size {
					head[0] = 0x10 // the frame's first packet (RFC 7741 §4.2)
				}
				b.Append(append(head, make([]byte, max(min(left, 1100)-2, 1))...))
			}
			if track.Name == mute {
				b.Release()
			} else {
				p.sink.Deliver(id, b)
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stops[id] = func() { close(stop); <-stopped }
	return nil
}

func (p *pipeline) Stop(id string) {
	p.mu.Lock()
	stop := p.stops[id]
	delete(p.stops, id)
	p.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (p *pipeline) RequestKeyframe(string)             {}
func (p *pipeline) SetBitrate(string, int, bool) error { return nil }

func (p *pipeline) Close() error {
	p.mu.Lock()
	stops := p.stops
	p.stops = map[string]func(){}
	p.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	return nil
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	if testing.Verbose() {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// conversation is a WebSocket client.
type conversation struct {
	t    *testing.T
	conn *websocket.Conn
	got  chan map[string]any // closed when the socket is
	end  error               // what closed it; read after got is closed

	writing sync.Mutex
	passed  map[string]any // the last rendition message that hear passed over
	early   map[string]any // an offer that came among candidates
}

func (g *gateway) dial(t *testing.T) *conversation {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(g.http.URL, "http")+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &conversation{t: t, conn: conn, got: make(chan map[string]any, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(c.got)
		for {
			var m map[string]any
			if c.end = conn.ReadJSON(&m); c.end != nil {
				return
			}
			c.got <- m
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return c
}

func (c *conversation) say(m map[string]any) {
	c.t.Helper()
	if err := c.try(m); err != nil {
		c.t.Fatalf("say %v: %v", m["type"], err)
	}
}

func (c *conversation) try(m map[string]any) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.conn.WriteJSON(m)
}

// hear waits for a message of a type and passes over the others.
func (c *conversation) hear(kind string) map[string]any {
	c.t.Helper()
	if m := c.early; m != nil && kind == "offer" {
		c.early = nil
		return m
	}
	deadline := time.After(patience)
	var before []string
	for {
		select {
		case m, ok := <-c.got:
			if !ok {
				c.t.Fatalf("no %q before the end (%v), only %v", kind, c.end, before)
			}
			if m["type"] == kind {
				return m
			}
			switch {
			case m["type"] == "rendition":
				c.passed = m
			case m["type"] == "offer" && kind == "ice-candidate":
				c.early = m
			}
			before = append(before, fmt.Sprint(m["type"], " ", cmp.Or(m["code"], m["reason"])))
		case <-deadline:
			c.t.Fatalf("no %q, only %v", kind, before)
		}
	}
}

// closed waits for the close frame and returns its code and reason.
func (c *conversation) closed() (int, string) {
	c.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case _, ok := <-c.got:
			if ok {
				continue
			}
			var e *websocket.CloseError
			if !errors.As(c.end, &e) {
				c.t.Fatalf("socket ended without a close frame: %v", c.end)
			}
			return e.Code, e.Text
		case <-deadline:
			c.t.Fatal("socket stays open")
		}
	}
}

// join joins and returns joined.
func (c *conversation) join(room string) map[string]any {
	c.t.Helper()
	c.say(map[string]any{"type": "join", "roomId": room, "version": 1})
	return c.hear("joined")
}
