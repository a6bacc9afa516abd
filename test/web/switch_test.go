package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"

	"gateway/internal/auth"
	"gateway/internal/config"
	media "gateway/internal/media"
	"gateway/internal/rtc"
	"gateway/internal/signal"
	gatewaystream "gateway/internal/stream"
	"gateway/internal/web"
	"gateway/test/rig"
)

// real is the gateway's own conversation, streams and media path, fed with
// recorded frames: what the script stands in for elsewhere.
type real struct {
	*script
	stream *gatewaystream.Stream
	feed   *recordings
}

// recordings launches captures whose encodings are recorded frames, played in
// a loop.
type recordings struct {
	t      *testing.T
	mu     sync.Mutex // guards tracks
	tracks []track
}

func startReal(t *testing.T, tracks ...track) *real {
	t.Helper()
	for _, tr := range tracks {
		_, err := frames(tr)
		rig.Check(t, err)
	}
	log := slog.New(slog.DiscardHandler)
	feed := &recordings{t: t, tracks: tracks}
	s := gatewaystream.New(&config.Stream{Name: "front-door", Title: "Front door", OnDemand: true, Sync: "av"}, feed, log)
	t.Cleanup(func() { s.Close() })
	engine, err := rtc.New(rtc.Options{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	r := &real{stream: s, feed: feed}
	open, err := auth.New(auth.Options{Config: &config.Auth{Mode: config.AuthNone}})
	if err != nil {
		t.Fatal(err)
	}
	server := signal.New(signal.Options{Streams: r, Authority: open, RTC: engine, Config: &config.Gateway{Limits: config.Limits{Viewers: 10}}, Logger: log})
	mux := http.NewServeMux()
	mux.Handle("/ws", server.WebSocket())
	mux.HandleFunc("GET /api/streams", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"streams": []any{s.Info()}})
	})
	mux.HandleFunc("GET /api/streams/{name}", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(s.Info()) })
	mux.Handle("/", web.Handler())
	r.script = &script{server: httptest.NewServer(mux)}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		server.Close(ctx)
		r.server.Close()
	})
	return r
}

// Stream is signal's.
func (r *real) Stream(name string) (*gatewaystream.Stream, bool) {
	return r.stream, name == r.stream.Name()
}

// reload puts other tracks into the stream's file.
func (r *real) reload(t *testing.T, tracks ...track) {
	t.Helper()
	r.feed.mu.Lock()
	r.feed.tracks = tracks
	r.feed.mu.Unlock()
	conf := *r.stream.Config()
	if err := r.stream.Apply(t.Context(), &conf); err != nil {
		t.Fatal(err)
	}
}

func (f *recordings) Compile(context.Context, *config.Stream) (*config.Plan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	feed := config.Feed{Name: "video", Capture: "recorded"}
	for _, t := range f.tracks {
		m := media.Track{Name: t.Name, Kind: media.Video, Codec: media.Codec(t.Codec), Width: t.Width, Height: t.Height, FPS: t.FPS, Bps: t.Bitrate}
		if m.Codec == media.H264 {
			m.Fmtp = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
		}
		feed.Branches = append(feed.Branches, config.Branch{Track: m, Launch: fmt.Sprint(t.Codec, "enc of ", t.Width)})
	}
	return &config.Plan{Feeds: []config.Feed{feed}}, nil
}

func (f *recordings) Blame(*config.Branch, error) {}

func (f *recordings) Placeholder(context.Context, *config.Placeholder) ([][][]byte, error) {
	return nil, errors.New("nothing is encoded here")
}

func (f *recordings) Launch(_ context.Context, _ string, _ *config.Feed, sink gatewaystream.Sink) (gatewaystream.Pipeline, error) {
	return &playback{sink: sink, encoders: map[string]*encoder{}}, nil
}

type playback struct {
	sink     gatewaystream.Sink
	mu       sync.Mutex
	encoders map[string]*encoder
}

type encoder struct {
	keyframe chan struct{}
	stop     func()
}

func (p *playback) Start(_ context.Context, id string, b *config.Branch) error {
	list, err := frames(track{Codec: string(b.Track.Codec), Width: b.Track.Width, Height: b.Track.Height})
	if err != nil {
		return err
	}
	var payloader rtp.Payloader = &codecs.VP8Payloader{}
	keyframe := func(frame []byte) bool { return frame[0]&1 == 0 }
	switch b.Track.Codec {
	case media.H264:
		payloader = &codecs.H264Payloader{}
		keyframe = func(frame []byte) bool { return bytes.Contains(frame, []byte{0, 0, 1, 0x67}) } // an SPS
	case media.VP9:
		payloader = &codecs.VP9Payloader{}
		keyframe = func(frame []byte) bool { return frame[0]&0x04 == 0 }
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	e := &encoder{keyframe: make(chan struct{}, 1), stop: func() { close(stop); <-stopped }}
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Second / 30)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-e.keyframe:
				n = 0
			default:
			}
			frame := list[n%len(list)]
			b := media.NewBuffer(len(frame))
			b.Capture, b.Arrived = media.Now(), media.Now()
			b.Start, b.End, b.Keyframe = true, true, keyframe(frame)
			for _, payload := range payloader.Payload(1200, frame) {
				b.Append(payload)
			}
			p.sink.Deliver(id, b)
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.encoders[id] = e
	return nil
}

func (p *playback) take(id string) *encoder {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.encoders[id]
	delete(p.encoders, id)
	return e
}

func (p *playback) Stop(id string) {
	if e := p.take(id); e != nil {
		e.stop()
	}
}

func (p *playback) RequestKeyframe(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.encoders[id]; e != nil {
		select {
		case e.keyframe <- struct{}{}:
		default:
		}
	}
}

func (p *playback) SetBitrate(string, int, bool) error { return nil }

func (p *playback) Close() error {
	p.mu.Lock()
	encoders := p.encoders
	p.encoders = map[string]*encoder{}
	p.mu.Unlock()
	for _, e := range encoders {
		e.stop()
	}
	return nil
}

// gaps begins to note the longest time between two rendered frames.
const gaps = `(() => {
	window.gap = { longest: 0, last: performance.now() };
	const note = (now) => {
		gap.longest = Math.max(gap.longest, now - gap.last);
		gap.last = now;
		` + player + `.video.requestVideoFrameCallback(note);
	};
	` + player + `.video.requestVideoFrameCallback(note);
	return 0;
})()`

// longestGap is the longest one since it was asked last.
func (w *world) longestGap(t *testing.T) time.Duration {
	t.Helper()
	var ms float64
	w.eval(t, "((longest) => (gap.longest = 0, longest))(gap.longest)", &ms)
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Millisecond)
}

// playsCodec waits for a codec and a width, and reads on for a while.
func (w *world) playsCodec(t *testing.T, codec string, width int) {
	t.Helper()
	w.until(t, fmt.Sprintf("%s.video.videoWidth === %d && %s.stats?.codec === %q && %s", player, width, player, codec, kept))
	w.eval(t, "(marked.frames = 0)", nil)
	w.until(t, "marked.frames > 20")
}

func TestGatewaySwitchesUnderAPlayer(t *testing.T) {
	s := startReal(t, ladder.Tracks[0], ladder.Tracks[1], ladder.Tracks[2])
	w := browse(t, s.script, "/watch/front-door", false)
	s.switches(t, w)
}

func (s *real) switches(t *testing.T, w *world) {
	w.until(t, player+".state === 'playing'")
	w.eval(t, mark, nil)
	w.eval(t, gaps, nil)
	w.playsCodec(t, "VP8", 640)
	w.longestGap(t)
	for _, step := range []struct {
		pick, codec string
		width       int
	}{
		{"low", "VP8", 320}, {"high", "VP8", 640}, {"other", "H.264", 480}, {"low", "VP8", 320}, {"other", "H.264", 480}, {"auto", "VP8", 640},
	} {
		w.pick(t, step.pick)
		w.playsCodec(t, step.codec, step.width)
		t.Logf("select %s: no frame for %v", step.pick, w.longestGap(t))
	}
	one := func(codec string, width int) track {
		return track{Name: "video", Kind: "video", Codec: codec, Width: width, Height: width * 9 / 16, FPS: 30, Bitrate: 500_000}
	}
	for _, step := range []struct {
		to    track
		codec string
	}{
		{one("vp8", 320), "VP8"}, {one("vp8", 640), "VP8"}, {one("h264", 480), "H.264"}, {one("vp8", 640), "VP8"}, {one("h264", 480), "H.264"},
	} {
		s.reload(t, step.to)
		w.playsCodec(t, step.codec, step.to.Width)
		t.Logf("reload to %s %d: no frame for %v", step.codec, step.to.Width, w.longestGap(t))
	}
	w.neverBlack(t)
}

// Firefox has no H.264 here.
func TestGatewaySwitchesUnderFirefox(t *testing.T) {
	vp9 := track{Name: "other", Kind: "video", Codec: "vp9", Width: 480, Height: 270, FPS: 30, Bitrate: 500_000}
	s := startReal(t, ladder.Tracks[0], ladder.Tracks[1], vp9)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	browser, err := rig.StartFirefox(ctx, rig.FirefoxOptions{})
	rig.Check(t, err)
	rig.End(t, "firefox", browser.Close)
	page, err := browser.Open(ctx, s.url("/watch/front-door"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{script: s.script, ctx: ctx, page: page, log: func() string { return "" }}
	w.until(t, player+".state === 'playing'")
	w.eval(t, mark, nil)
	w.eval(t, gaps, nil)
	for _, step := range []struct {
		pick  string
		width int
	}{{"low", 320}, {"high", 640}, {"other", 480}, {"low", 320}, {"other", 480}, {"high", 640}} {
		w.pick(t, step.pick)
		w.until(t, fmt.Sprintf("%s.video.videoWidth === %d && %s", player, step.width, kept))
		w.eval(t, "(marked.frames = 0)", nil)
		w.until(t, "marked.frames > 20")
		t.Logf("select %s: no frame for %v", step.pick, w.longestGap(t))
	}
}
