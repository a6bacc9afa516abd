package signal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
	"gateway/internal/media"
	"gateway/internal/room"
)

// openPlan puts all streams into every room, and into the room house.
func (g *gateway) openPlan() {
	var rooms []config.Room
	for _, name := range append(slices.Collect(maps.Keys(g.streams)), "house") {
		r := config.Room{Name: name, DepartureTimeout: 30 * time.Second}
		for stream := range g.streams {
			r.Streams = append(r.Streams, stream)
		}
		rooms = append(rooms, r)
	}
	g.rooms = room.New(room.Options{Rooms: rooms, Pipelines: Pipelines{g, nil}})
}

// places are the m-lines of an offer, by stream and kind: "test video" → "0".
func places(offer map[string]any) map[string]string {
	found := map[string]string{}
	list, _ := offer["tracks"].([]any)
	for _, t := range list {
		t := t.(map[string]any)
		found[fmt.Sprint(t["stream"], " ", t["kind"])] = t["mid"].(string)
	}
	return found
}

// tiles counts what a peer receives, by m-line.
type tiles struct {
	*peer
	packets chan tilePacket
	at      map[string]string // places of the last offer
	playing map[string]string // renditions by stream, as a test has noted them
}

type tilePacket struct {
	mid   string
	codec string
	size  int
}

func newTiles(t *testing.T, options ...any) *tiles {
	p := &tiles{peer: newPeer(t, options...), playing: map[string]string{}, packets: make(chan tilePacket, 10_000)}
	p.from = func(mid string, track *webrtc.TrackRemote, packet *rtp.Packet) {
		select {
		case p.packets <- tilePacket{mid, track.Codec().MimeType, len(packet.Payload)}:
		default:
		}
	}
	return p
}

// shows waits until packets of a codec have come on all of these m-lines, from now on.
func (p *tiles) shows(codec string, mids ...string) {
	p.t.Helper()
	for len(p.packets) > 0 {
		<-p.packets
	}
	deadline := time.After(patience)
	missing := slices.Clone(mids)
	for len(missing) > 0 {
		select {
		case got := <-p.packets:
			if strings.EqualFold(got.codec, codec) {
				missing = slices.DeleteFunc(missing, func(mid string) bool { return mid == got.mid })
			}
		case <-deadline:
			p.t.Fatalf("no %s on the m-lines %v", codec, missing)
		}
	}
}

// until answers offers until a message fits, and returns it.
func (p *tiles) until(c *conversation, what string, fits func(m map[string]any) bool) map[string]any {
	p.t.Helper()
	return p.within(patience, c, what, fits)
}

// within is until with another patience.
func (p *tiles) within(patience time.Duration, c *conversation, what string, fits func(m map[string]any) bool) map[string]any {
	p.t.Helper()
	deadline := time.After(patience)
	var before []string
	for {
		select {
		case m, ok := <-c.got:
			if !ok {
				p.t.Fatalf("no %s before the end (%v), only %v", what, c.end, before)
			}
			if m["type"] == "offer" {
				p.at = places(m)
				c.say(map[string]any{"type": "answer", "sdp": p.answer(m["sdp"].(string))})
			}
			if fits(m) {
				return m
			}
			before = append(before, fmt.Sprint(m["type"], " ", m["stream"]))
		case <-deadline:
			p.t.Fatalf("no %s, only %v", what, before)
		}
	}
}

// hear is until a message of a type.
func (p *tiles) hear(c *conversation, kind string) map[string]any {
	p.t.Helper()
	return p.until(c, kind, func(m map[string]any) bool { return m["type"] == kind })
}

// settle answers offers until one has m-lines of exactly these streams' pictures.
func (p *tiles) settle(c *conversation, streams ...string) (at map[string]string) {
	p.t.Helper()
	p.until(c, fmt.Sprint("offer of ", streams), func(m map[string]any) bool {
		pictures := 0
		for place := range places(m) {
			if name, ok := strings.CutSuffix(place, " video"); ok {
				if !slices.Contains(streams, name) {
					return false
				}
				pictures++
			}
		}
		return m["type"] == "offer" && pictures == len(streams)
	})
	return p.at
}

func TestOneSessionWatchesSeveralStreams(t *testing.T) {
	g := newGateway(t)
	g.openPlan()
	c, p := g.dial(t), newTiles(t)
	c.join("test")
	first := c.hear("offer")
	p.negotiate(c, first)
	home := places(first)
	p.shows("video/VP8", home["test video"])
	for _, name := range []string{"h264", "ladder"} {
		c.say(map[string]any{"type": "watch", "stream": name, "requestId": name})
		if m := p.hear(c, "watching"); m["stream"] != name || m["requestId"] != name {
			t.Errorf("answered by %v", m)
		}
	}
	at := p.settle(c, "test", "h264", "ladder")
	if at["test video"] != home["test video"] || at["test audio"] != home["test audio"] || len(at) != 5 {
		t.Errorf("m-lines %v, first %v", at, home)
	}
	p.shows("video/VP8", at["test video"])
	p.shows("video/H264", at["h264 video"])
	p.shows("video/AV1", at["ladder video"])
	p.shows("audio/opus", at["test audio"], at["ladder audio"])

	// each has its own rendition
	c.say(map[string]any{"type": "select", "stream": "ladder", "rendition": "low"})
	p.until(c, "low rendition", func(m map[string]any) bool { return m["type"] == "rendition" && m["rendition"] == "low" })
	p.shows("video/VP8", at["ladder video"], at["test video"])
	c.say(map[string]any{"type": "select", "rendition": "low", "requestId": "whose"})
	if e := p.hear(c, "error"); e["code"] != "not-found" || e["fatal"] != false || e["requestId"] != "whose" {
		t.Errorf("select of no stream: %v", e)
	}

	// who watches is known of each
	for _, name := range []string{"test", "h264", "ladder"} {
		if list := g.Viewers(context.Background(), name); len(list) != 1 {
			t.Errorf("viewers of %s: %+v", name, list)
		}
	}

	// one goes, and its m-line is taken by the next
	c.say(map[string]any{"type": "unwatch", "stream": "h264", "requestId": "u"})
	if m := p.hear(c, "unwatched"); m["stream"] != "h264" || m["requestId"] != "u" || m["reason"] != nil {
		t.Errorf("answered by %v", m)
	}
	if left := p.settle(c, "test", "ladder"); len(left) != 4 {
		t.Errorf("without h264: %v", left)
	}
	if n := len(g.Viewers(context.Background(), "h264")); n != 0 {
		t.Errorf("%d viewers of what nobody watches", n)
	}
	g.sources["away"].appear()
	c.say(map[string]any{"type": "watch", "stream": "away"})
	if now := p.settle(c, "test", "ladder", "away"); now["away video"] != at["h264 video"] {
		t.Errorf("away is on m-line %s, free was %s", now["away video"], at["h264 video"])
	}
	p.shows("video/VP8", at["h264 video"], at["test video"], at["ladder video"])
	if n := g.count(t, "gateway_joins_total"); n != 1 {
		t.Errorf("%v joins", n)
	}
}

// watchesTwo has somebody in the open plan watch "test" and "h264"; at tells the m-line of
// each track.
func (g *gateway) watchesTwo(t *testing.T) (c *conversation, p *tiles, at map[string]string) {
	t.Helper()
	g.openPlan()
	c, p = g.dial(t), newTiles(t)
	c.join("test")
	p.negotiate(c, c.hear("offer"))
	c.say(map[string]any{"type": "watch", "stream": "h264"})
	at = p.settle(c, "test", "h264")
	p.shows("video/H264", at["h264 video"])
	return c, p, at
}

// What it watches may go, all of it: a participant stays in the room.
func TestSessionOutlivesTheStreamsThatItWatches(t *testing.T) {
	g := newGateway(t)
	c, p, at := g.watchesTwo(t)
	g.streams["h264"].Close()
	if m := p.hear(c, "unwatched"); m["stream"] != "h264" || m["reason"] != "stream-closed" {
		t.Errorf("told %v", m)
	}
	p.shows("video/VP8", at["test video"])
	g.streams["test"].Close()
	if m := p.hear(c, "unwatched"); m["stream"] != "test" || m["reason"] != "stream-closed" {
		t.Errorf("told %v", m)
	}
	c.say(map[string]any{"type": "watch", "stream": "ladder"})
	at = p.settle(c, "ladder")
	p.shows("video/AV1", at["ladder video"])
}

// A stream that the client can't decode costs it nothing else.
func TestWatchThatCannotBeDecodedIsRefusedAlone(t *testing.T) {
	g := newGateway(t)
	g.openPlan()
	c, p := g.dial(t), newTiles(t)
	c.say(map[string]any{"type": "join", "roomId": "test", "version": 1, "codecs": map[string]any{"video": []string{"video/VP8"}}})
	first := c.hear("offer")
	p.negotiate(c, first)
	c.say(map[string]any{"type": "watch", "stream": "h264"})
	m := p.hear(c, "unwatched")
	if m["stream"] != "h264" || m["reason"] != "codec-unsupported" || !strings.Contains(m["message"].(string), "video/H264") {
		t.Errorf("told %v", m)
	}
	p.shows("video/VP8", places(first)["test video"])

	// nor one that turns out so by the answer
	c, p = g.dial(t), newTiles(t)
	c.join("test")
	first = c.hear("offer")
	p.negotiate(c, first)
	c.say(map[string]any{"type": "watch", "stream": "h264"})
	answer := p.answer(c.hear("offer")["sdp"].(string))
	head, last, _ := strings.Cut(answer, "a=mid:2")
	i := strings.LastIndex(head, "m=video")
	c.say(map[string]any{"type": "answer", "sdp": head[:i] + strings.Replace(head[i:], "m=video 9", "m=video 0", 1) + "a=mid:2" + last})
	if m := p.hear(c, "unwatched"); m["stream"] != "h264" || m["reason"] != "codec-unsupported" {
		t.Errorf("told %v", m)
	}
	p.shows("video/VP8", places(first)["test video"])
}

func TestWatchIsBounded(t *testing.T) {
	g := newGateway(t)
	g.add(t, "slow", media.Track{Name: "video", Kind: media.Video, Codec: media.VP8, Width: 320, Height: 180, FPS: slow}) // what a busy machine takes of all
	st := g.streams["slow"]
	tiles := config.Room{Name: "tiles", DepartureTimeout: 30 * time.Second}
	for i := range maxWatched {
		tiles.Streams = append(tiles.Streams, fmt.Sprintf("tile-%d", i))
	}
	tiles.Streams = append(tiles.Streams, "tile-x")
	g.rooms = room.New(room.Options{Rooms: []config.Room{tiles}, Pipelines: tilesOf{st}})
	c, p := g.dial(t), newTiles(t)
	c.say(map[string]any{"type": "join", "roomId": "tiles", "stream": "tile-0", "version": 1})
	p.negotiate(c, c.hear("offer"))
	var names []string
	for i := range maxWatched {
		names = append(names, fmt.Sprintf("tile-%d", i))
		if i > 0 {
			c.say(map[string]any{"type": "watch", "stream": names[i], "view": map[string]any{"width": 160, "height": 90, "visible": true}})
		}
	}
	at := p.settle(c, names...)
	var mids []string
	for _, name := range names {
		mids = append(mids, at[name+" video"])
	}
	p.shows("video/VP8", mids...)
	c.say(map[string]any{"type": "watch", "stream": "tile-x", "requestId": "more"})
	if e := p.hear(c, "error"); e["code"] != "too-many-streams" || e["fatal"] != false || e["requestId"] != "more" {
		t.Errorf("answered by %v", e)
	}
	c.say(map[string]any{"type": "watch", "stream": "nowhere"})
	c.say(map[string]any{"type": "unwatch", "stream": "nowhere", "requestId": "u"})
	for e := p.hear(c, "error"); e["requestId"] != "u"; e = p.hear(c, "error") {
		if e["fatal"] != false {
			t.Errorf("answered by %v", e)
		}
	}
}

// named is a stream under another name.
type named struct {
	room.Stream
	name string
}

// tilesOf are pipelines that are all one stream.
type tilesOf struct{ stream room.Stream }

func (t tilesOf) Stream(name string) (room.Stream, bool) {
	return named{t.stream, name}, strings.HasPrefix(name, "tile")
}

func (t tilesOf) Names() []string { return nil }

func (n named) Name() string { return n.name }

// A client that doesn't reach the gateway has the same m-lines with full ICE,
// whatever was watched and unwatched before.
func TestFullICEKeepsTheMLines(t *testing.T) {
	g := newGateway(t, func(c *config.Gateway, _ *timing) { c.ICE.Lite = true })
	g.openPlan()
	c, p := g.dial(t), newTiles(t)
	c.join("h264")
	hide := func(offer map[string]any) map[string]any {
		offer["sdp"] = withoutCandidates(offer["sdp"].(string))
		return offer
	}
	c.say(map[string]any{"type": "watch", "stream": "test"})
	c.say(map[string]any{"type": "unwatch", "stream": "h264"})
	for {
		offer := c.hear("offer")
		if sdp := offer["sdp"].(string); !strings.Contains(sdp, "a=ice-lite\r\n") {
			p.negotiate(c, offer)
			at := places(offer)
			if at["test video"] == "" || at["h264 video"] != "" {
				t.Errorf("m-lines %v", at)
			}
			p.shows("video/VP8", at["test video"])
			return
		}
		c.say(map[string]any{"type": "answer", "sdp": p.answer(hide(offer)["sdp"].(string))})
	}
}

func withoutCandidates(sdp string) string {
	var kept []string
	for line := range lines(sdp) {
		if !strings.HasPrefix(line, "a=candidate:") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\r\n")
}

// hold has a session do nothing until the function is called.
func (g *gateway) hold(t *testing.T) (release func()) {
	t.Helper()
	x, held, let := g.onlySession(t), make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = call(context.Background(), x, func(context.Context) (none, error) {
			close(held)
			<-let
			return none{}, nil
		})
	}()
	<-held
	return sync.OnceFunc(func() { close(let) })
}

// A stream whose source isn't there holds up nobody who watches others too.
func TestAbsentStreamHoldsUpNoOther(t *testing.T) {
	g := newGateway(t)
	g.openPlan()
	c, p := g.dial(t), newTiles(t)
	c.join("test")
	first := c.hear("offer")
	p.negotiate(c, first)
	p.shows("video/VP8", places(first)["test video"])
	c.say(map[string]any{"type": "watch", "stream": "away"})
	p.hear(c, "watching")
	c.say(map[string]any{"type": "view", "stream": "test", "width": 320, "height": 180, "visible": true})
	c.say(map[string]any{"type": "unwatch", "stream": "away", "requestId": "u"})
	if m := p.hear(c, "unwatched"); m["requestId"] != "u" {
		t.Errorf("answered by %v", m)
	}
}

// Streams that end at the same time are told of once each.
func TestStreamsThatEndTogetherAreToldOnce(t *testing.T) {
	g := newGateway(t)
	c, p, _ := g.watchesTwo(t)
	release := g.hold(t)
	defer release()
	g.streams["test"].Close()
	g.streams["h264"].Close()
	release()
	c.say(map[string]any{"type": "watch", "stream": "ladder", "requestId": "w"})
	told := map[any]int{}
	p.until(c, "ladder's offer", func(m map[string]any) bool {
		if m["type"] == "unwatched" {
			told[m["stream"]]++
		}
		return m["type"] == "offer" && places(m)["ladder video"] != ""
	})
	if told["test"] != 1 || told["h264"] != 1 {
		t.Errorf("told of the end: %v", told)
	}
}
