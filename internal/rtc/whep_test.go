package rtc

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

// whepOffer makes a peer's offer with all its candidates.
func whepOffer(t testing.TB, p *peer) string {
	t.Helper()
	o, err := p.pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	receive(t, gathered, "the peer's candidates")
	return p.pc.LocalDescription().SDP
}

func receiveOnly(t testing.TB, p *peer, kinds ...webrtc.RTPCodecType) {
	t.Helper()
	for _, k := range kinds {
		if _, err := p.pc.AddTransceiverFromKind(k, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
}

func newWHEP(t testing.TB, e *Engine, tracks ...any) *Viewer {
	t.Helper()
	v, err := e.NewViewer(ViewerOptions{ID: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	for i := 0; i < len(tracks); i += 2 {
		if err := v.AddTrack(tracks[i].(media.Track).Name, tracks[i].(media.Track), "desk", tracks[i+1].(Source)); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func TestOfferOfAPeerIsAnsweredWithItsOwnPayloadTypes(t *testing.T) {
	video, audio := newSource(), newSource()
	video.push(true, 2)
	audio.push(true, 1)
	v := newWHEP(t, newEngine(t, Options{}), videoTrack, video, audioTrack, audio)
	p := newPeer(t, peerOptions{})
	receiveOnly(t, p, webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo)
	answer, err := v.Answer(context.Background(), whepOffer(t, p))
	if err != nil {
		t.Fatal(err)
	}
	// pion offers constrained baseline, packetization mode 1, as 106 with RTX 107
	for _, want := range []string{
		"m=video 9 UDP/TLS/RTP/SAVPF 106 107", "a=rtpmap:106 H264/90000", "a=fmtp:106 " + h264Fmtp, "a=fmtp:107 apt=106",
		"a=rtcp-fb:106 nack", "a=rtcp-fb:106 nack pli", "a=rtcp-fb:106 ccm fir", "a=setup:passive", "a=sendonly", "a=end-of-candidates",
	} {
		if !strings.Contains(answer, want+"\r\n") {
			t.Errorf("no line %q in\n%s", want, answer)
		}
	}
	if strings.Contains(answer, "VP8") {
		t.Errorf("pion's nominal codec got out:\n%s", answer)
	}
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	if got := p.next(t).PayloadType; got != 106 {
		t.Errorf("video comes as payload type %d", got)
	}
	if got := receive(t, p.audio, "audio").PayloadType; got != 111 {
		t.Errorf("audio comes as payload type %d", got)
	}
}

func TestSectionsThatNothingIsSentOnAreRefused(t *testing.T) {
	src := newSource()
	src.push(true, 2)
	v := newWHEP(t, newEngine(t, Options{}), videoTrack, src)
	p := newPeer(t, peerOptions{})
	// audio first: the section that the BUNDLE group begins with is refused
	receiveOnly(t, p, webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeVideo)
	if _, err := p.pc.CreateDataChannel("data", nil); err != nil {
		t.Fatal(err)
	}
	answer, err := v.Answer(context.Background(), whepOffer(t, p))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range strings.Split(answer, "\r\n") {
		if strings.HasPrefix(l, "m=") {
			lines = append(lines, strings.Join(strings.Fields(l)[:2], " "))
		}
	}
	if got, want := strings.Join(lines, ", "), "m=audio 0, m=video 9, m=video 0, m=application 0"; got != want {
		t.Errorf("m-lines %q, want %q", got, want)
	}
	if got := attribute(t, answer, "a=group:BUNDLE "); got != "1" {
		t.Errorf("BUNDLE group %q", got)
	}
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	p.next(t)
}

func TestOffersThatCannotBeAnsweredAreTold(t *testing.T) {
	ctx := context.Background()
	e := newEngine(t, Options{})
	audioOnly, sendOnly := newPeer(t, peerOptions{}), newPeer(t, peerOptions{})
	receiveOnly(t, audioOnly, webrtc.RTPCodecTypeAudio)
	receiveOnly(t, sendOnly, webrtc.RTPCodecTypeVideo)
	good := whepOffer(t, sendOnly)
	src := newSource()
	v := newWHEP(t, e, videoTrack, src)
	for name, c := range map[string]struct {
		offer string
		want  error
	}{
		"garbage":      {"nonsense", ErrBadSDP},
		"audio only":   {whepOffer(t, audioOnly), ErrNotReceiving},
		"sends":        {strings.ReplaceAll(good, "a=recvonly", "a=sendonly"), ErrNotReceiving},
		"other codec":  {strings.ReplaceAll(good, "H264/90000", "H266/90000"), ErrNoCodec},
		"no mid":       {strings.ReplaceAll(good, "a=mid:", "a=nothing:"), ErrBadSDP},
		"no transport": {strings.ReplaceAll(good, "a=ice-pwd:", "a=nothing:"), ErrBadSDP},
	} {
		if _, err := v.Answer(ctx, c.offer); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if v.Err() != nil || src.isClosed() {
		t.Errorf("a bad offer ended the viewer: %v", v.Err())
	}
	if _, err := v.Answer(ctx, good); err != nil {
		t.Errorf("the good offer after the bad ones: %v", err)
	}
}

func TestPeerRestartsICEWithANewOffer(t *testing.T) {
	ctx := context.Background()
	src := newSource()
	v := newWHEP(t, newEngine(t, Options{}), videoTrack, src)
	p := newPeer(t, peerOptions{})
	receiveOnly(t, p, webrtc.RTPCodecTypeVideo)
	exchange := func() {
		t.Helper()
		answer, err := v.Answer(ctx, whepOffer(t, p))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
			t.Fatal(err)
		}
	}
	exchange()
	src.run(t, 60, 2)
	first := p.next(t)
	o, err := p.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	receive(t, gathered, "the peer's candidates")
	v.stateMu.Lock() // pion's word of the restart may come late
	answer, err := v.Answer(ctx, p.pc.LocalDescription().SDP)
	if err != nil {
		t.Fatal(err)
	}
	if v.open.Load() {
		t.Error("packets are sent while there is no way to the peer")
	}
	v.stateMu.Unlock()
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	for len(p.packets) > 0 {
		<-p.packets
	}
	for range 100 {
		if got := p.next(t); got.SSRC != first.SSRC {
			t.Fatalf("SSRC changed from %d to %d", first.SSRC, got.SSRC)
		}
	}
	if s := v.Stats(); s.Unsent != 0 { // the source keeps what is due
		t.Errorf("%d packets were wasted on a connection that restarted", s.Unsent)
	}
}

// A client's restart may come before ICE has begun to connect, which pion does on
// another goroutine, with the credentials of the first offer.
func TestRestartBeforeICEHasBegunIsRefused(t *testing.T) {
	ctx := context.Background()
	src := newSource()
	src.push(true, 1)
	v := newWHEP(t, newEngine(t, Options{}), videoTrack, src)
	p := newPeer(t, peerOptions{})
	receiveOnly(t, p, webrtc.RTPCodecTypeVideo)
	offer := whepOffer(t, p)
	v.stateMu.Lock() // so the viewer's state stays what it is
	answer, err := v.Answer(ctx, offer)
	if err != nil {
		t.Fatal(err)
	}
	restarted := strings.ReplaceAll(offer, "a=ice-ufrag:", "a=ice-ufrag:new")
	if _, err := v.Answer(ctx, restarted); !errors.Is(err, ErrBadState) {
		t.Errorf("restart before ICE has begun: %v", err)
	}
	v.stateMu.Unlock()
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	p.next(t)
}

func TestProfilesOfH264(t *testing.T) {
	stream := func(id string) string { return "packetization-mode=1;profile-level-id=" + id }
	for _, c := range []struct {
		stream, offered string
		fits            bool
		answer          string // profile-level-id
	}{
		{"42e01f", stream("42e01f"), true, "42e01f"},
		{"42e02a", stream("42e01f"), true, "42e02a"}, // the level is the stream's
		{"42c01f", stream("42e01f"), true, "42c01f"}, // both constrained baseline
		{"42e01f", stream("42001f"), true, "42001f"},
		{"42e01f", stream("4d001f"), true, "4d001f"},
		{"42e028", stream("64001f"), true, "640028"},
		{"4d001f", stream("42e01f"), false, ""},
		{"64001f", stream("4d001f"), false, ""},
		{"640c1f", stream("64001f"), true, "64001f"},
		{"42e01f", "packetization-mode=0;profile-level-id=42e01f", false, ""},
		{"42e01f", "profile-level-id=42e01f", true, "42e01f"},
		{"42e01f", "", true, "42e01f"},
		{"42e01f", "packetization-mode=1", true, "42e01f"},
		{"42e01f", stream("xyz"), false, ""},
	} {
		rank := fitsH264(stream(c.stream), c.offered)
		if (rank > 0) != c.fits {
			t.Errorf("stream %s, offered %q: rank %d, want fit %v", c.stream, c.offered, rank, c.fits)
		}
		if c.fits {
			if got := parameter(answerProfile(stream(c.stream), c.offered), "profile-level-id"); got != c.answer {
				t.Errorf("stream %s, offered %q: answer says %s, want %s", c.stream, c.offered, got, c.answer)
			}
		}
	}
	if fitsH264(stream("42e01f"), stream("42e01f")) <= fitsH264(stream("42e01f"), stream("4d001f")) {
		t.Error("a wider profile is preferred to the stream's own")
	}
}
