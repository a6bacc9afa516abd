package signal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
	"gateway/internal/media"
)

// join says that a client joins a room, with what it can decode.
func (g *gateway) join(t *testing.T, room, rendition string, video ...string) (*conversation, *peer) {
	t.Helper()
	c := g.dial(t)
	m := map[string]any{"type": "join", "roomId": room, "version": 1, "codecs": map[string]any{"video": video}}
	if rendition != "" {
		m["rendition"] = rendition
	}
	c.say(m)
	return c, newPeer(t)
}

// plays waits until a rendition plays, and no offer was needed for it.
func (c *conversation) plays(rendition, selected string) {
	c.t.Helper()
	passed := c.passed
	if c.passed = nil; passed["rendition"] == rendition && passed["selected"] == selected {
		return
	}
	deadline := time.After(patience)
	for {
		select {
		case m, ok := <-c.got:
			switch {
			case !ok:
				c.t.Fatalf("ended before %q plays: %v", rendition, c.end)
			case m["type"] == "rendition" && m["rendition"] == rendition && m["selected"] == selected:
				return
			case m["type"] == "offer" || m["type"] == "error" || m["type"] == "left":
				c.t.Fatalf("before %q plays: %v", rendition, m)
			}
		case <-deadline:
			c.t.Fatalf("%q doesn't play", rendition)
		}
	}
}

// follow answers the next offer.
func (p *peer) follow(c *conversation) (offer string) {
	p.t.Helper()
	offer = c.hear("offer")["sdp"].(string)
	c.say(map[string]any{"type": "answer", "sdp": p.answer(offer)})
	return offer
}

// receives waits for a video packet of a codec.
func (p *peer) receives(codec string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		p.sees(webrtc.RTPCodecTypeVideo)
		if r := p.pc.GetReceivers()[0].Track(); r != nil && strings.EqualFold(r.Codec().MimeType, "video/"+codec) {
			return
		} else if time.Now().After(deadline) {
			p.t.Fatalf("no %s comes, but %v", codec, r.Codec().MimeType)
		}
	}
}

func TestClientGetsTheBestRenditionThatItDecodes(t *testing.T) {
	g := newGateway(t)
	for _, x := range []struct {
		selected string
		video    []string
		want     string
		told     string
	}{
		{"", []string{"video/H264", "video/VP8", "video/AV1"}, "best", "auto"},
		{"", []string{"video/VP8", "video/VP9"}, "high", "auto"},
		{"auto", []string{"video/VP8"}, "high", "auto"},
		{"low", []string{"video/VP8"}, "low", "low"},
		{"best", []string{"video/VP8"}, "high", "auto"}, // can't be had
		{"nowhere", []string{"video/VP8"}, "high", "auto"},
	} {
		c, p := g.join(t, "ladder", x.selected, x.video...)
		p.negotiate(c, c.hear("offer"))
		c.plays(x.want, x.told)
	}
}

func TestSelectSwitchesWithoutAnOfferInTheSameCodec(t *testing.T) {
	g := newGateway(t)
	c, p := g.join(t, "ladder", "", "video/VP8")
	p.negotiate(c, c.hear("offer"))
	p.sees(video)
	c.say(map[string]any{"type": "select", "rendition": "low", "requestId": "s"})
	for m := range c.got {
		if m["type"] == "rendition" && m["requestId"] == "s" {
			if m["rendition"] != "high" || m["selected"] != "low" || m["roomId"] != "ladder" {
				t.Errorf("answered by %v", m)
			}
			break
		}
	}
	c.plays("low", "low")
	p.sees(video)
	c.say(map[string]any{"type": "select", "rendition": "auto"})
	c.plays("high", "auto")
	p.sees(video)
}

func TestSelectOfAnotherCodecRenegotiates(t *testing.T) {
	g := newGateway(t)
	c, p := g.join(t, "ladder", "low", "video/VP8", "video/AV1")
	p.negotiate(c, c.hear("offer"))
	c.plays("low", "low")
	c.say(map[string]any{"type": "select", "rendition": "best"})
	p.follow(c)
	c.plays("best", "best")
	p.receives("AV1")
	c.say(map[string]any{"type": "select", "rendition": "high"}) // which the peer still has
	c.plays("high", "high")
	p.receives("VP8")
}

func TestRefusedSelectLeavesAllAsItWas(t *testing.T) {
	g := newGateway(t)
	c, p := g.join(t, "ladder", "low", "video/VP8")
	p.negotiate(c, c.hear("offer"))
	c.plays("low", "low")
	for rendition, want := range map[string]struct {
		code  string
		words []string
	}{
		"nowhere": {"not-found", []string{"nowhere", "best, high, low"}},
		"best":    {"codec-unsupported", []string{"best", "video/AV1", "video/VP8"}},
	} {
		c.say(map[string]any{"type": "select", "rendition": rendition, "requestId": rendition})
		e := c.hear("error")
		if e["code"] != want.code || e["fatal"] != false || e["requestId"] != rendition {
			t.Errorf("%s: %v", rendition, e)
		}
		for _, w := range want.words {
			if !strings.Contains(e["message"].(string), w) {
				t.Errorf("%s: %q doesn't say %q", rendition, e["message"], w)
			}
		}
	}
	c.say(map[string]any{"type": "select", "rendition": "low", "requestId": "still"})
	for m := c.hear("rendition"); m["requestId"] != "still"; m = c.hear("rendition") {
	}
	p.sees(video)
}

func TestSelectIsKeptUntilTheStreamComes(t *testing.T) {
	g := newGateway(t)
	g.sources["away"].tracks = []media.Track{{Name: "high", Kind: media.Video, Codec: media.VP8}, {Name: "low", Kind: media.Video, Codec: media.VP8}}
	c, p := g.join(t, "away", "", "video/VP8")
	c.hear("joined")
	c.say(map[string]any{"type": "select", "rendition": "low"})
	if m := c.hear("rendition"); m["rendition"] != "" || m["selected"] != "low" {
		t.Errorf("answered by %v", m)
	}
	g.sources["away"].appear()
	p.negotiate(c, c.hear("offer"))
	c.plays("low", "low")
}

func TestSelectedRenditionThatVanishesIsToldAndReplaced(t *testing.T) {
	g := newGateway(t)
	c, p := g.join(t, "ladder", "low", "video/VP8")
	p.negotiate(c, c.hear("offer"))
	c.plays("low", "low")
	g.reload(t, "ladder", media.Track{Name: "high", Kind: media.Video, Codec: media.VP8}, media.Track{Name: "audio", Kind: media.Audio, Codec: media.Opus})
	c.plays("high", "auto")
	p.sees(video)
}

// A camera's own H.264 may turn out to have B-frames.
func TestSelectedRenditionThatIsRefusedIsToldAndReplaced(t *testing.T) {
	g := newGateway(t)
	c, p := g.join(t, "ladder", "low", "video/VP8")
	p.negotiate(c, c.hear("offer"))
	c.plays("low", "low")
	g.sources["ladder"].end("low", fmt.Errorf("%w: it has B-frames", media.ErrUnplayable))
	c.plays("high", "auto")
	p.sees(video)
	i := g.streams["ladder"].Info()
	for _, track := range i.Tracks {
		if (track.Refused != "") != (track.Name == "low") {
			t.Errorf("%+v", track)
		}
	}
}

func TestReloadChangesCodecsOnOneConnection(t *testing.T) {
	g := newGateway(t)
	c, p := g.watch(t, "test")
	track := func(codec media.Codec, fmtp string) []media.Track {
		return []media.Track{{Name: "video", Kind: media.Video, Codec: codec, Fmtp: fmtp}, {Name: "audio", Kind: media.Audio, Codec: media.Opus}}
	}
	g.reload(t, "test", track(media.H264, "packetization-mode=1;profile-level-id=42e01f")...)
	p.follow(c)
	p.receives("H264")
	g.reload(t, "test", track(media.VP8, "")...)
	p.receives("VP8") // which the peer still has
	// There and back before the session has looked: its subscription is to the first.
	x := g.onlySession(t)
	if _, err := call(context.Background(), x, func(context.Context) (none, error) {
		g.reload(t, "test", track(media.AV1, "")...)
		g.reload(t, "test", track(media.VP8, "")...)
		return none{}, nil
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new encoding is subscribed to", func() bool {
		ok, err := call(context.Background(), x, func(context.Context) (bool, error) {
			return g.streams["test"].Current(x.watches[0].legs[media.Video].sub), nil
		})
		return ok && err == nil
	})
	p.receives("VP8")
	p.sees(audio)
	if n := g.count(t, "gateway_joins_total"); n != 1 {
		t.Errorf("%v joins", n)
	}
}

func (g *gateway) onlySession(t *testing.T) *session {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, x := range g.sessions {
		return x
	}
	t.Fatal("there is no session")
	return nil
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestReloadAddsAndTakesAudio(t *testing.T) {
	g := newGateway(t)
	c, p := g.watch(t, "test")
	picture := media.Track{Name: "video", Kind: media.Video, Codec: media.VP8, Width: 320, Height: 180, FPS: 30}
	g.reload(t, "test", picture)
	if offer := p.follow(c); !strings.Contains(offer, "a=inactive") {
		t.Errorf("without audio:\n%s", offer)
	}
	p.sees(video)
	g.reload(t, "test", picture, media.Track{Name: "sound", Kind: media.Audio, Codec: media.Opus})
	if offer := p.follow(c); strings.Contains(offer, "a=inactive") || strings.Count(offer, "m=audio") != 1 {
		t.Errorf("with audio again:\n%s", offer)
	}
	p.sees(video)
}

func TestReloadThatTheClientCannotDecodeEndsTheSession(t *testing.T) {
	g := newGateway(t)
	c, p := g.join(t, "test", "", "video/VP8")
	p.negotiate(c, c.hear("offer"))
	p.sees(video)
	g.reload(t, "test", media.Track{Name: "video", Kind: media.Video, Codec: media.AV1})
	e := c.hear("error")
	if e["code"] != "codec-unsupported" || e["fatal"] != true || !strings.Contains(e["message"].(string), "video/AV1") || !strings.Contains(e["message"].(string), "video/VP8") {
		t.Errorf("error %v", e)
	}
}

// A client that doesn't say what it decodes says so by its answer.
func TestCodecThatIsDeclinedIsNotTriedAgain(t *testing.T) {
	g := newGateway(t)
	c := g.dial(t)
	c.say(map[string]any{"type": "join", "roomId": "ladder", "version": 1, "rendition": "low"})
	p := newPeer(t)
	p.negotiate(c, c.hear("offer"))
	c.plays("low", "low")
	c.say(map[string]any{"type": "select", "rendition": "best"})
	offer := c.hear("offer")["sdp"].(string)
	var without []string
	for _, line := range strings.Split(p.answer(offer), "\r\n") {
		if !strings.Contains(line, "AV1/90000") {
			without = append(without, line)
		}
	}
	c.say(map[string]any{"type": "answer", "sdp": strings.Join(without, "\r\n"), "requestId": "a"})
	for told := ""; told != "auto"; {
		told = c.hear("rendition")["selected"].(string)
	}
	if e := c.hear("error"); e["code"] != "codec-unsupported" || e["fatal"] != false || e["requestId"] != "a" || !strings.Contains(e["message"].(string), "video/AV1") {
		t.Errorf("error %v", e)
	}
	c.plays("high", "auto")
	p.sees(video)
	c.say(map[string]any{"type": "select", "rendition": "best"})
	if e := c.hear("error"); e["code"] != "codec-unsupported" || !strings.Contains(e["message"].(string), "not video/AV1") {
		t.Errorf("a second time: %v", e)
	}
}

func TestSyncDecidesAboutStreamIDs(t *testing.T) {
	g := newGateway(t)
	streams := func(offer string) (ids []string) {
		for line := range lines(offer) {
			if id, ok := strings.CutPrefix(line, "a=msid:"); ok {
				ids = append(ids, strings.Fields(id)[0])
			}
		}
		return ids
	}
	c, p := g.dial(t), newPeer(t)
	c.join("test")
	offer := c.hear("offer")
	if got := streams(offer["sdp"].(string)); !slices.Equal(got, []string{"test", "test"}) {
		t.Errorf("sync av: msid streams %v", got)
	}
	p.negotiate(c, offer)
	p.sees(audio)
	conf := *g.streams["test"].Config()
	conf.Sync = "video-first"
	if err := g.streams["test"].Apply(context.Background(), &conf); err != nil {
		t.Fatal(err)
	}
	if got := streams(p.follow(c)); !slices.Equal(got, []string{"test", "test-audio"}) {
		t.Errorf("sync video-first: msid streams %v", got)
	}
	p.sees(video)
	p.sees(audio)
}

func TestClientHearsOfRefusedEdits(t *testing.T) {
	g := newGateway(t)
	c := g.dial(t)
	c.join("test")
	g.streams["test"].Refuse(config.Errors{{File: "test.yaml", Line: 3, Column: 5, Message: "codec h999 is unknown"}})
	for {
		r, _ := c.hear("stream")["stream"].(map[string]any)["reload"].(map[string]any)
		if r == nil {
			continue
		}
		findings, _ := r["findings"].([]any)
		if r["ok"] != false || r["message"] == "" || r["at"].(float64) < 1e12 || len(findings) != 1 {
			t.Errorf("reload %v", r)
		}
		return
	}
}

func TestStreamDoesNotTellHowItIsMade(t *testing.T) {
	g := newGateway(t)
	c, _ := g.watch(t, "test")
	g.streams["test"].Refuse(errors.New("any change"))
	track := c.hear("stream")["stream"].(map[string]any)["tracks"].([]any)[0].(map[string]any)
	for _, key := range []string{"launch", "encoder", "viewers", "running"} {
		if _, ok := track[key]; ok {
			t.Errorf("a track has %s: %v", key, track)
		}
	}
}

func TestWHEPChoosesARendition(t *testing.T) {
	g := newGateway(t)
	for query, want := range map[string]string{"": "best", "?rendition=auto": "best", "?rendition=low": "low"} {
		p := newPeer(t)
		resp := g.do(t, "POST", "/whep/ladder"+query, sdpBody(), p.offer(video, audio))
		if resp.status != http.StatusCreated {
			t.Fatalf("%q: %d %s", query, resp.status, resp.body)
		}
		p.accept(resp.body)
		p.sees(video)
		x := g.session(resp.header.Get("Location")[len("/whep/ladder/"):])
		got, err := call(context.Background(), x, func(context.Context) (string, error) { return x.watches[0].legs[media.Video].track.Name, nil })
		if err != nil || got != want {
			t.Errorf("%q: %q, %v", query, got, err)
		}
	}
	p := newPeer(t)
	offer := p.offer(video)
	if resp := g.do(t, "POST", "/whep/ladder?rendition=nowhere", sdpBody(), offer); resp.status != http.StatusNotFound || resp.problem(t).Code != notFound {
		t.Errorf("unknown rendition: %d %s", resp.status, resp.body)
	}
	without := strings.ReplaceAll(offer, "AV1/90000", "AVX/90000")
	if resp := g.do(t, "POST", "/whep/ladder?rendition=best", sdpBody(), without); resp.status != http.StatusNotAcceptable || resp.problem(t).Code != codecUnsupported {
		t.Errorf("rendition that can't be decoded: %d %s", resp.status, resp.body)
	}
}

func TestWHEPViewerStaysWhileItsCodecDoes(t *testing.T) {
	g := newGateway(t)
	p := newPeer(t)
	resp := g.do(t, "POST", "/whep/ladder?rendition=low", sdpBody(), p.offer(video, audio))
	if resp.status != http.StatusCreated {
		t.Fatalf("%d %s", resp.status, resp.body)
	}
	p.accept(resp.body)
	p.sees(video)
	x := g.session(resp.header.Get("Location")[len("/whep/ladder/"):])
	best := media.Track{Name: "best", Kind: media.Video, Codec: media.AV1}
	g.reload(t, "ladder", best, media.Track{Name: "middle", Kind: media.Video, Codec: media.VP8})
	eventually(t, "the other rendition of that codec is sent, and no audio", func() bool {
		ok, err := call(context.Background(), x, func(context.Context) (bool, error) {
			l := x.watches[0].legs[media.Video]
			return l != nil && l.track.Name == "middle" && x.watches[0].legs[media.Audio] == nil && x.watches[0].playing == "middle", nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return ok
	})
	p.sees(video)
	g.reload(t, "ladder", best)
	select {
	case <-x.done:
	case <-time.After(patience):
		t.Fatal("the session stays without anything that it could send")
	}
	if n := g.count(t, "gateway_session_ends_total", "stream-changed"); n != 1 {
		t.Errorf("%v sessions ended by it", n)
	}
}
