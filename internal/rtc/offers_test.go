package rtc

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pion/sdp/v3"

	"gateway/internal/media"
)

// Offers as clients make them: Chromium 156, Firefox ESR 153, GStreamer 1.22's webrtcbin and
// aiortc 1.4 as they were captured; OBS 32 as plugins/obs-webrtc/whip-output.cpp and its
// libdatachannel write one.
//
//go:embed testdata/offers/*.sdp
var offerFiles embed.FS

// offers are those, by file.
func offers(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := fs.ReadDir(offerFiles, "testdata/offers")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := fs.ReadFile(offerFiles, "testdata/offers/"+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(e.Name(), ".sdp")] = string(text)
	}
	return all
}

func TestOffersOfOtherClientsAreTaken(t *testing.T) {
	e := newEngine(t, Options{})
	three := []string{"high", "mid", "low"}
	for name, want := range map[string]struct {
		codec  media.Codec
		layers []string
		sound  bool
	}{
		"chromium-publish":   {media.VP8, []string{""}, true},
		"chromium-simulcast": {media.VP8, three, true},
		"firefox-publish":    {media.VP8, []string{""}, true},
		"firefox-simulcast":  {media.VP8, three, true},
		"webrtcbin-h264":     {media.H264, []string{""}, false},
		"webrtcbin-vp8":      {media.VP8, []string{""}, false},
		"aiortc-h264":        {media.H264, []string{""}, false},
		"aiortc-vp8":         {media.VP8, []string{""}, false},
		"obs":                {media.H264, []string{""}, true},
		"obs-simulcast":      {media.H264, []string{"0", "1", "2"}, true},
	} {
		offer := offers(t)[name]
		p := newPublisher(t, e, PublisherOptions{})
		answer, incoming, err := p.Answer(context.Background(), offer)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkPublished(t, offer, answer, incoming)
		sound := false
		for _, in := range incoming {
			if in.Kind == media.Audio {
				sound = in.Codec == media.Opus
			} else if in.Codec != want.codec || !slices.Equal(in.Layers, want.layers) {
				t.Errorf("%s: the picture is %+v", name, in)
			}
		}
		if sound != want.sound {
			t.Errorf("%s: incoming %+v", name, incoming)
		}
	}
	for _, name := range []string{"chromium-watch", "firefox-watch"} {
		v := newWHEP(t, e, vp8Track, newSource(), audioTrack, newSource())
		answer, err := v.Answer(context.Background(), offers(t)[name])
		if err != nil || strings.Count(answer, "a=sendonly") != 2 {
			t.Errorf("%s: %v\n%s", name, err, answer)
		}
	}
}

// What names its m-line twice was answered by the second name, while ICE went by the first.
func TestFirstMidOfAnMLineCounts(t *testing.T) {
	offer := strings.Replace(offers(t)["aiortc-vp8"], "a=mid:0\r\n", "a=mid:0\r\na=mid:1\r\n", 1)
	p := newPublisher(t, newEngine(t, Options{}), PublisherOptions{})
	answer, incoming, err := p.Answer(context.Background(), offer)
	if err != nil {
		t.Fatal(err)
	}
	checkPublished(t, offer, answer, incoming)
	if _, _, err := parseOffer(strings.Replace(offer, "a=mid:0\r\n", "a=mid:\r\n", 1)); !errors.Is(err, ErrBadSDP) {
		t.Errorf("the first is empty: %v", err)
	}
}

// checkPublished: an answer has the offer's m-lines (RFC 3264 §6), with one of its
// formats on each that comes.
func checkPublished(t *testing.T, offer, answer string, incoming []Incoming) {
	t.Helper()
	var o, a sdp.SessionDescription
	if err := errors.Join(o.UnmarshalString(offer), a.UnmarshalString(answer)); err != nil {
		t.Fatalf("%v in\n%s", err, answer)
	}
	if len(o.MediaDescriptions) != len(a.MediaDescriptions) {
		t.Fatalf("%d m-lines are answered by %d:\n%s", len(o.MediaDescriptions), len(a.MediaDescriptions), answer)
	}
	for i, m := range a.MediaDescriptions {
		was := o.MediaDescriptions[i]
		mid, _ := m.Attribute("mid")
		if want, _ := was.Attribute("mid"); mid != want || !strings.EqualFold(m.MediaName.Media, was.MediaName.Media) {
			t.Fatalf("m-line %d is %s %q, want %s %q", i, m.MediaName.Media, mid, was.MediaName.Media, want)
		}
		_, receives := m.Attribute("recvonly")
		if receives != slices.ContainsFunc(incoming, func(in Incoming) bool { return in.Mid == mid }) {
			t.Fatalf("m-line %d receives: %v, incoming %+v", i, receives, incoming)
		}
		for _, f := range m.MediaName.Formats {
			if receives && !slices.Contains(was.MediaName.Formats, f) {
				t.Fatalf("m-line %d: format %s wasn't offered", i, f)
			}
		}
	}
}

// changed is one of the offers with lines in the place of one of its own, or the lines alone:
// what a fuzzer makes of six kilobytes is hardly ever SDP still.
func changed(all []string, which uint8, at uint16, lines string) string {
	if int(which) >= len(all) {
		return lines
	}
	offer := strings.SplitAfter(all[which], "\n")
	offer[int(at)%len(offer)] = lines + "\r\n"
	return strings.Join(offer, "")
}

// addOffers adds what is to be changed.
func addOffers(f *testing.F) []string {
	all := slices.Collect(maps.Values(offers(f)))
	slices.Sort(all) // the same each time
	for which, offer := range all {
		for at, line := range strings.Split(offer, "\r\n") {
			f.Add(uint8(which), uint16(at), line)
		}
	}
	f.Add(uint8(255), uint16(0), "v=0")
	return all
}

// Whatever a publisher offers: what is made of it is sound. pion's part of the answer is
// what pion is shown, which has the sections that it would answer with.
func FuzzOffer(f *testing.F) {
	all := addOffers(f)
	f.Fuzz(func(t *testing.T, which uint8, at uint16, lines string) {
		text := changed(all, which, at, lines)
		r, sends, err := parseOffer(text)
		if err != nil {
			if !errors.Is(err, ErrBadSDP) && !errors.Is(err, ErrNoCodec) {
				t.Fatalf("refused by %v", err)
			}
			return
		}
		var incoming []Incoming
		var shown []*section
		for _, s := range sends {
			if n := len(s.layers); n == 0 || n > maxLayers || len(s.ssrcs) > 2*maxLayers || len(s.repairs) > maxLayers {
				t.Fatalf("%d layers, %d SSRCs, %d repairs", n, len(s.ssrcs), len(s.repairs))
			}
			s.receives, s.own = false, true
			shown, incoming = append(shown, s.section), append(incoming, s.incoming())
		}
		checkForPion(t, r, shown)
		answer, err := dressAnswer(r.forPion(shown, "active"), r, sends)
		if err != nil {
			t.Fatal(err)
		}
		checkPublished(t, text, answer, incoming)
	})
}

// The same with pion: what it is shown of any offer it takes.
func FuzzPublisherAnswer(f *testing.F) {
	e := newEngine(f, Options{})
	all := addOffers(f)
	f.Fuzz(func(t *testing.T, which uint8, at uint16, lines string) {
		text := changed(all, which, at, lines)
		if _, sends, err := parseOffer(text); err != nil || len(sends) == 0 {
			return
		}
		p := newPublisher(t, e, PublisherOptions{OnCandidate: func(*Candidate) {}})
		defer p.Close()
		answer, incoming, err := p.Answer(context.Background(), text)
		if err != nil {
			t.Fatalf("%v to\n%s", err, text)
		}
		checkPublished(t, text, answer, incoming)
	})
}
