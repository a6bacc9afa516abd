package rtc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

var (
	lowTrack = media.Track{Name: "low", Kind: media.Video, Codec: media.H264, Fmtp: h264Fmtp, Width: 320, Height: 180, FPS: 30}
	vp8Track = media.Track{Name: "soft", Kind: media.Video, Codec: media.VP8}
	av1Track = media.Track{Name: "best", Kind: media.Video, Codec: media.AV1}
)

func newMarked(mark byte) *fakeSource {
	s := newSource()
	s.mark = mark
	return s
}

// replace has a session's video go on with another encoding.
func (s *session) replace(t testing.TB, spec media.Track, src Source) (offer bool) {
	t.Helper()
	offer, err := s.Replace("video", spec, src)
	if err != nil {
		t.Fatal(err)
	}
	return offer
}

// until reads video packets until one is of a source.
func (s *session) until(t testing.TB, mark byte) *rtp.Packet {
	t.Helper()
	for {
		if p := s.peer.next(t); p.Payload[5] == mark {
			return p
		}
	}
}

func TestReplaceGoesOnWithoutAHole(t *testing.T) {
	a, b := newMarked('a'), newMarked('b')
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, a)
	s.connect(t)
	at := media.Now()
	frame := func() time.Duration { at += 40 * time.Millisecond; return at }
	a.pushAt(frame(), true, 3)
	a.pushAt(frame(), false, 2)
	if got := receive(t, s.played, "the first switch"); got != "video video" {
		t.Errorf("began with %q", got)
	}
	if s.replace(t, lowTrack, b) || s.OfferDue() {
		t.Error("the same codec wants an offer")
	}
	b.pushAt(frame(), false, 4) // not a keyframe: nothing to begin with
	a.pushAt(frame(), false, 2)
	var got []*rtp.Packet
	for range 7 {
		got = append(got, s.peer.next(t))
	}
	if a.isClosed() {
		t.Error("the old source was closed before the new one had a keyframe")
	}
	b.pushAt(frame(), true, 3)
	b.pushAt(frame(), false, 1)
	for range 4 {
		got = append(got, s.peer.next(t))
	}
	if p := receive(t, s.played, "the switch"); p != "video low" {
		t.Errorf("switched to %q", p)
	}
	if !a.isClosed() || b.isClosed() {
		t.Errorf("old source closed: %v, new one: %v", a.isClosed(), b.isClosed())
	}
	for i, p := range got {
		mark := byte('a')
		if i >= 7 {
			mark = 'b'
		}
		if p.SequenceNumber != got[0].SequenceNumber+uint16(i) || p.SSRC != got[0].SSRC || p.PayloadType != 102 || p.Payload[5] != mark {
			t.Errorf("packet %d is %+v of %c", i, p.Header, p.Payload[5])
		}
	}
	// frames 1, 2, 4 (of a), 5, 6 (of b), by the one clock
	for i, want := range map[int]uint32{3: 3600, 5: 3 * 3600, 7: 4 * 3600, 10: 5 * 3600} {
		if d := int32(got[i].Timestamp - got[0].Timestamp - want); d < -1 || d > 1 {
			t.Errorf("packet %d is stamped %d after the first, want %d", i, got[i].Timestamp-got[0].Timestamp, want)
		}
	}
}

// A switch comes while the old encoding is in the middle of a frame.
func TestFrameIsEndedOrLeftOutAtASwitch(t *testing.T) {
	for name, ends := range map[string]bool{"its end is due": true, "its end is not due": false} {
		t.Run(name, func(t *testing.T) {
			a, b, w := newMarked('a'), newMarked('b'), &recorder{}
			tr := playing(newWHEP(t, newEngine(t, Options{})), videoTrack, a, format{pt: 102}, w)
			shard := newIdleShard(t)
			turn := func() {
				tr.take(shard, batchPackets, func(batch []media.Packet) {
					for _, p := range batch {
						if err := tr.write(p); err != nil {
							t.Fatal(err)
						}
					}
				})
			}
			a.pushPart(time.Second, true, true, false, 2)
			turn()
			if ends {
				a.pushPart(time.Second, true, false, true, 2)
				a.pushAt(1040*time.Millisecond, false, 3)
			} else {
				a.pushPart(time.Second, true, false, false, 2)
			}
			tr.next = (&encoding{spec: lowTrack, src: b}).in(tr.cur.format, tr.ssrc, 0)
			b.pushAt(1040*time.Millisecond, true, 2)
			turn()
			var got []string
			for i, h := range w.headers {
				got = append(got, fmt.Sprintf("%c%d", w.payloads[i][5], h.SequenceNumber-w.headers[0].SequenceNumber))
			}
			want := "[a0 a1 a2 a3 b4 b5]"
			if !ends {
				want = "[a0 a1 b3 b4]"
			}
			if fmt.Sprint(got) != want {
				t.Errorf("sent %v, want %s", got, want)
			}
			if shard.rest[:1][0].Buffer.Len() == 0 {
				t.Error("a buffer was released too often")
			}
		})
	}
}

// A new encoder may be slower than the one before: its first frames were captured
// before the last one that was sent.
func TestTimestampsNeverGoBack(t *testing.T) {
	a, b, w := newMarked('a'), newMarked('b'), &recorder{}
	tr := playing(newWHEP(t, newEngine(t, Options{})), videoTrack, a, format{pt: 102, delayID: 1}, w)
	ms := func(n int) time.Duration { return time.Hour + time.Duration(n)*time.Millisecond }
	shard := newIdleShard(t)
	turn := func() {
		tr.take(shard, batchPackets, func(batch []media.Packet) {
			for _, p := range batch {
				if err := tr.write(p); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	a.pushAt(ms(0), true, 2)
	a.pushAt(ms(100), false, 2)
	turn()
	tr.next = (&encoding{spec: lowTrack, src: b}).in(tr.cur.format, tr.ssrc, 0)
	for i, at := range []int{20, 60, 100, 102, 140, 180} {
		b.pushAt(ms(at), i == 0, 2)
	}
	turn()
	// a at 0 and 100; three of b that are behind, each 1 ms after the last; one that
	// would be less than that after it; then b by the clock
	want := []int{0, 100, 101, 102, 103, 104, 140, 180}
	for i, h := range w.headers {
		at := uint32(90 * want[i/2])
		if d := int32(h.Timestamp - w.headers[0].Timestamp - at); d < -1 || d > 1 {
			t.Errorf("packet %d is stamped %d after the first, want %d", i, h.Timestamp-w.headers[0].Timestamp, at)
		}
	}
	n := len(w.headers)
	if n != 16 {
		t.Fatalf("%d packets were sent", n)
	}
	tr.rtxSSRC = 0
	var scratch []byte
	for i := range n {
		tr.tokens = rtxBurst
		if ok, err := tr.resend(w.headers[i].SequenceNumber, media.Now(), &scratch); !ok || err != nil {
			t.Fatalf("packet %d was not sent again: %v", i, err)
		}
		was, errA := w.headers[i].Marshal()
		is, errB := w.headers[n+i].Marshal()
		if errA != nil || errB != nil || string(was) != string(is) || w.payloads[i] != w.payloads[n+i] {
			t.Errorf("packet %d again is %x, was %x", i, is, was)
		}
	}
}

func TestLostPacketsAreSentAgainAcrossSwitches(t *testing.T) {
	a, b := newMarked('a'), newMarked('b')
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, a)
	s.connect(t)
	loss := &lossy{dice: rand.New(rand.NewPCG(1, 2))}
	s.sendMu.Lock()
	loss.TrackLocalWriter, s.tracks[0].out = s.tracks[0].out, loss
	s.sendMu.Unlock()
	a.run(t, 60, 5)
	b.run(t, 60, 5)
	first := s.peer.next(t).SequenceNumber
	seen := map[uint16]byte{first: 'a'}
	missing := func(n int) (missing int) {
		for i := range uint16(n) {
			if seen[first+i] == 0 {
				missing++
			}
		}
		return missing
	}
	// Each time the packets lost last are asked for when their source is closed.
	const want = 1000
	at, current := 0, byte('a')
	for deadline := time.Now().Add(30 * time.Second); missing(want) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d packets never came; lost %d; %+v", missing(want), want, loss.lost.Load(), s.Stats())
		}
		p := s.peer.next(t)
		seen[p.SequenceNumber] = p.Payload[5]
		if len(seen)/100 > at && at < 9 {
			at++
			next := newMarked(current ^ 'a' ^ 'b')
			next.run(t, 60, 5)
			current = next.mark
			s.replace(t, lowTrack, next)
		}
	}
	if s.Stats().Retransmitted == 0 || loss.lost.Load() == 0 {
		t.Errorf("nothing was lost or repaired: %+v", s.Stats())
	}
	switches := 0
	for i := range uint16(want - 1) {
		if seen[first+i] != seen[first+i+1] {
			switches++
		}
	}
	if switches < 5 {
		t.Errorf("%d switches among %d packets", switches, want)
	}
}

// payloadTypes lists what an m-line offers.
func payloadTypesOf(t testing.TB, sdp string) string {
	return attribute(t, sdp, "m=video 9 UDP/TLS/RTP/SAVPF ")
}

func TestCodecChangesOnOneConnection(t *testing.T) {
	a, b, c, d := newMarked('a'), newMarked('b'), newMarked('c'), newMarked('d')
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, a)
	first := s.connect(t)
	a.run(t, 60, 2)
	before := s.until(t, 'a')
	b.run(t, 60, 2)
	if !s.replace(t, vp8Track, b) || !s.OfferDue() {
		t.Fatal("another codec wants no offer")
	}
	if p := s.peer.next(t); p.Payload[5] != 'a' || a.isClosed() {
		t.Error("the old codec didn't go on")
	}
	second := s.negotiate(t, false)
	for _, line := range []string{"a=mid:", "a=msid:", "a=ssrc-group:", "a=ice-ufrag:"} {
		if x, y := attribute(t, first, line), attribute(t, second, line); x != y {
			t.Errorf("%s was %q, is %q", line, x, y)
		}
	}
	if got := payloadTypesOf(t, second); got != "96 97 102 103" {
		t.Errorf("second offer has %q", got)
	}
	if s.OfferDue() {
		t.Error("an offer is due after the answer")
	}
	p := s.until(t, 'b')
	if p.PayloadType != 96 || p.SSRC != before.SSRC || p.Payload[0]&0x0f != 5 {
		t.Errorf("after the change: %+v", p.Header)
	}
	// back: the peer still has it
	c.run(t, 60, 2)
	if s.replace(t, lowTrack, c) {
		t.Error("the way back wants an offer")
	}
	if p := s.until(t, 'c'); p.PayloadType != 102 || p.SSRC != before.SSRC {
		t.Errorf("back: %+v", p.Header)
	}
	// a third: its payload types are its own, and all three stay
	d.run(t, 60, 2)
	if !s.replace(t, av1Track, d) {
		t.Error("a third codec wants no offer")
	}
	if got := payloadTypesOf(t, s.negotiate(t, true)); got != "45 46 102 103 96 97" {
		t.Errorf("third offer has %q", got)
	}
	if p := s.until(t, 'd'); p.PayloadType != 45 {
		t.Errorf("third: %+v", p.Header)
	}
	var played []string
	for range 4 {
		played = append(played, receive(t, s.played, "a switch"))
	}
	if got := strings.Join(played, ", "); got != "video video, video soft, video low, video best" {
		t.Errorf("switches: %s", got)
	}
	for _, src := range []*fakeSource{a, b, c} {
		if !src.isClosed() {
			t.Errorf("source %c is open", src.mark)
		}
	}
}

func TestNumbersAndTimesGoOnThroughCodecs(t *testing.T) {
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, newMarked(0))
	s.connect(t)
	last := newMarked(1)
	last.run(t, 100, 3)
	s.replace(t, videoTrack, last)
	prev := s.until(t, 1)
	check := func(until byte) {
		t.Helper()
		for {
			p := s.peer.next(t)
			if p.SequenceNumber != prev.SequenceNumber+1 {
				t.Fatalf("%d after %d", p.SequenceNumber, prev.SequenceNumber)
			}
			if d := int32(p.Timestamp - prev.Timestamp); d < 0 || d == 0 != (!prev.Marker) {
				t.Fatalf("stamped %d after the one before, whose marker is %v", d, prev.Marker)
			}
			prev = p
			if p.Payload[5] == until {
				return
			}
		}
	}
	specs := []media.Track{lowTrack, vp8Track, av1Track, videoTrack}
	for i := range 60 {
		src := newMarked(byte(2 + i))
		src.run(t, 100, 1+i%4)
		if s.replace(t, specs[i%len(specs)], src) {
			s.negotiate(t, false)
		}
		check(src.mark)
	}
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	if n := len(s.tracks[0].history.segments); n > historySegments {
		t.Errorf("%d segments", n)
	}
}

func TestPeerWithoutTheNewCodecKeepsTheOld(t *testing.T) {
	ctx := context.Background()
	a, b, c := newMarked('a'), newMarked('b'), newMarked('c')
	s := newSession(t, newEngine(t, Options{}), peerOptions{media: func(m *webrtc.MediaEngine) error {
		return m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: 102, RTPCodecCapability: webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeH264, ClockRate: 90000, SDPFmtpLine: h264Fmtp,
		}}, webrtc.RTPCodecTypeVideo)
	}}, videoTrack, a)
	s.connect(t)
	a.run(t, 60, 2)
	s.until(t, 'a')
	if !s.replace(t, vp8Track, b) {
		t.Fatal("another codec wants no offer")
	}
	offer, err := s.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	err = s.SetAnswer(ctx, s.peer.answer(t, offer))
	var declined *DeclinedError
	if !errors.Is(err, ErrDeclined) || !errors.As(err, &declined) || fmt.Sprint(declined.Slots) != "[video]" || !strings.Contains(err.Error(), "video/VP8") || !strings.Contains(err.Error(), "video/H264 stays") {
		t.Errorf("answer without the new codec: %v", err)
	}
	if !b.isClosed() || a.isClosed() || s.OfferDue() {
		t.Errorf("new source closed: %v, old one: %v, offer due: %v", b.isClosed(), a.isClosed(), s.OfferDue())
	}
	for len(s.peer.packets) > 0 {
		<-s.peer.packets
	}
	if p := s.peer.next(t); p.PayloadType != 102 || p.Payload[5] != 'a' {
		t.Errorf("goes on as %+v", p.Header)
	}
	c.run(t, 60, 2)
	if s.replace(t, lowTrack, c) {
		t.Error("the codec that it has wants an offer")
	}
	s.until(t, 'c')
}

// A new codec is declined before anything was sent: there is nothing that could go
// on, but the peer still has what it took first.
func TestNewCodecIsDeclinedBeforeTheFirstPacket(t *testing.T) {
	ctx := context.Background()
	a, b, c := newMarked('a'), newMarked('b'), newMarked('c')
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, a)
	s.connect(t)
	s.replace(t, vp8Track, b)
	offer, err := s.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetAnswer(ctx, keep(t, s.peer.answer(t, offer), "102", "103")); !errors.Is(err, ErrDeclined) || !b.isClosed() || s.OfferDue() {
		t.Errorf("answer: %v, source closed: %v, offer due: %v", err, b.isClosed(), s.OfferDue())
	}
	if s.replace(t, lowTrack, c) {
		t.Error("the codec that it took wants an offer")
	}
	c.run(t, 60, 2)
	s.until(t, 'c')
}

// keep leaves one codec in an answer, as a peer may (RFC 3264 §6.1).
func keep(t testing.TB, answer string, pts ...string) string {
	t.Helper()
	var lines []string
	for _, line := range strings.Split(answer, "\r\n") {
		if strings.HasPrefix(line, "m=video") {
			line = "m=video 9 UDP/TLS/RTP/SAVPF " + strings.Join(pts, " ")
		}
		key, rest, _ := strings.Cut(line, ":")
		pt, _, _ := strings.Cut(rest, " ")
		if (key == "a=rtpmap" || key == "a=fmtp" || key == "a=rtcp-fb") && !slices.Contains(pts, pt) {
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\r\n")
}

func TestLastReplaceWinsWhileAnOfferIsOut(t *testing.T) {
	ctx := context.Background()
	for _, one := range []bool{false, true} {
		t.Run(map[bool]string{false: "answer with both", true: "answer with one"}[one], func(t *testing.T) {
			a, b, c := newMarked('a'), newMarked('b'), newMarked('c')
			s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, a)
			s.connect(t)
			a.run(t, 60, 2)
			s.until(t, 'a')
			s.replace(t, vp8Track, b)
			offer, err := s.Offer(ctx, false)
			if err != nil {
				t.Fatal(err)
			}
			if s.replace(t, lowTrack, c) {
				t.Error("the codec that plays wants an offer")
			}
			if !b.isClosed() || a.isClosed() {
				t.Errorf("given up: %v, playing closed: %v", b.isClosed(), a.isClosed())
			}
			answer := s.peer.answer(t, offer)
			if one {
				answer = keep(t, answer, "96", "97")
			}
			if err := s.SetAnswer(ctx, answer); err != nil {
				t.Fatal(err)
			}
			if s.OfferDue() != one {
				t.Errorf("offer due: %v", s.OfferDue())
			}
			if one {
				s.negotiate(t, false)
			}
			c.run(t, 60, 2)
			if p := s.until(t, 'c'); p.PayloadType != 102 {
				t.Errorf("goes on as %+v", p.Header)
			}
		})
	}
}

func TestReplaceBeforeAndBetweenOffers(t *testing.T) {
	ctx := context.Background()
	a, b, c, d := newMarked('a'), newMarked('b'), newMarked('c'), newMarked('d')
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, a)
	if !s.replace(t, vp8Track, b) || !a.isClosed() {
		t.Error("before the first offer: no offer wanted, or the first source still open")
	}
	offer, err := s.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := payloadTypesOf(t, offer); got != "96 97" {
		t.Errorf("first offer has %q", got)
	}
	s.replace(t, av1Track, c) // which the offer doesn't have
	if err := s.SetAnswer(ctx, s.peer.answer(t, offer)); err != nil {
		t.Fatal(err)
	}
	if !s.OfferDue() {
		t.Fatal("no offer is due")
	}
	s.negotiate(t, false)
	s.await(t, StateConnected)
	c.run(t, 60, 2)
	if p := s.until(t, 'c'); p.PayloadType != 45 {
		t.Errorf("plays %+v", p.Header)
	}
	for name, f := range map[string]func() (bool, error){
		"another slot": func() (bool, error) { return s.Replace("nonsense", lowTrack, d) },
		"another kind": func() (bool, error) { return s.Replace("video", audioTrack, d) },
		"again":        func() (bool, error) { return false, s.AddTrack("video", lowTrack, "desk", d) },
	} {
		d.closed = false
		if _, err := f(); !errors.Is(err, ErrBadState) || !d.isClosed() {
			t.Errorf("%s: %v, source closed: %v", name, err, d.isClosed())
		}
	}
	s.Close()
	d.closed = false
	if _, err := s.Replace("video", lowTrack, d); !errors.Is(err, ErrClosed) || !d.isClosed() {
		t.Errorf("closed viewer: %v, source closed: %v", err, d.isClosed())
	}
}

func TestReplaceForAPeerThatOffers(t *testing.T) {
	a, b, c := newMarked('a'), newMarked('b'), newMarked('c')
	v := newWHEP(t, newEngine(t, Options{}), videoTrack, a)
	p := newPeer(t, peerOptions{})
	receiveOnly(t, p, webrtc.RTPCodecTypeVideo)
	answer, err := v.Answer(context.Background(), whepOffer(t, p))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	a.run(t, 60, 2)
	before := p.next(t)
	if _, err := v.Replace("video", vp8Track, b); !errors.Is(err, ErrNoCodec) || !b.isClosed() {
		t.Errorf("another codec: %v, source closed: %v", err, b.isClosed())
	}
	if err := v.AddTrack("more", audioTrack, "desk", newSource()); !errors.Is(err, ErrBadState) {
		t.Errorf("another track: %v", err)
	}
	if offer, err := v.Replace("video", lowTrack, c); err != nil || offer || v.OfferDue() {
		t.Errorf("the same codec: offer %v, %v", offer, err)
	}
	c.run(t, 60, 2)
	s := &session{Viewer: v, peer: p}
	if got := s.until(t, 'c'); got.PayloadType != before.PayloadType || got.SSRC != before.SSRC {
		t.Errorf("goes on as %+v, was %+v", got.Header, before.Header)
	}
	// the peer restarts ICE: all goes on
	o, err := p.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	receive(t, gathered, "the peer's candidates")
	if answer, err = v.Answer(context.Background(), p.pc.LocalDescription().SDP); err != nil {
		t.Fatal(err)
	}
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	for len(p.packets) > 0 {
		<-p.packets
	}
	s.until(t, 'c')
}

func TestTracksComeAndGo(t *testing.T) {
	video, audio, again, other := newMarked('v'), newMarked('1'), newMarked('2'), newMarked('3')
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, video)
	s.connect(t)
	video.run(t, 60, 2)
	s.until(t, 'v')
	lines := func(offer string) string {
		var all []string
		for _, l := range strings.Split(offer, "\r\n") {
			if strings.HasPrefix(l, "m=") {
				all = append(all, strings.Fields(l)[0][2:])
			} else if l == "a=sendonly" || l == "a=inactive" {
				all[len(all)-1] += " " + l[2:]
			}
		}
		return strings.Join(all, ", ")
	}
	if err := s.AddTrack("audio", audioTrack, "desk-audio", audio); err != nil {
		t.Fatal(err)
	}
	if !s.OfferDue() {
		t.Error("no offer is due for a new track")
	}
	if got := lines(s.negotiate(t, false)); got != "video sendonly, audio sendonly" {
		t.Errorf("with audio: %s", got)
	}
	audio.run(t, 50, 1)
	first := receive(t, s.peer.audio, "audio")

	if err := s.Remove("audio"); err != nil || !audio.isClosed() || !s.OfferDue() {
		t.Errorf("removed: %v, source closed: %v, offer due: %v", err, audio.isClosed(), s.OfferDue())
	}
	if got := lines(s.negotiate(t, false)); got != "video sendonly, audio inactive" || s.OfferDue() {
		t.Errorf("without audio: %s, offer due: %v", got, s.OfferDue())
	}
	if _, err := s.Replace("audio", audioTrack, newSource()); !errors.Is(err, ErrNotReceiving) {
		t.Errorf("a removed track is replaced: %v", err)
	}
	for len(s.peer.packets) > 0 {
		<-s.peer.packets
	}
	s.until(t, 'v')

	if err := s.AddTrack("audio", audioTrack, "desk", again); err != nil {
		t.Fatal(err)
	}
	offer := s.negotiate(t, false)
	if got := lines(offer); got != "video sendonly, audio sendonly" {
		t.Errorf("with audio again: %s", got)
	}
	for len(s.peer.audio) > 0 {
		<-s.peer.audio
	}
	again.run(t, 50, 1)
	s.sendMu.Lock()
	ssrc, packets := s.tracks[1].ssrc, s.tracks[1].packets
	s.sendMu.Unlock()
	if ssrc != first.SSRC || packets == 0 {
		t.Errorf("SSRC was %d, is %d, %d packets", first.SSRC, ssrc, packets)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		s.sendMu.Lock()
		n := s.tracks[1].packets
		s.sendMu.Unlock()
		if n > packets+5 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the audio that came back isn't sent")
		}
		s.until(t, 'v')
	}

	// Removed and added between two offers: the m-line stays what it was.
	if err := s.Remove("audio"); err != nil {
		t.Fatal(err)
	}
	if err := s.AddTrack("audio", audioTrack, "desk-audio", other); err != nil {
		t.Fatal(err)
	}
	if !s.OfferDue() {
		t.Error("no offer is due for another stream id")
	}
	if got := lines(s.negotiate(t, false)); got != "video sendonly, audio sendonly" {
		t.Errorf("exchanged: %s", got)
	}
	if err := s.Remove("nonsense"); !errors.Is(err, ErrBadState) {
		t.Errorf("unknown track removed: %v", err)
	}
}

func TestTrackThatNoOfferHadIsForgotten(t *testing.T) {
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, newSource(), audioTrack, newSource())
	if err := s.Remove("audio"); err != nil {
		t.Fatal(err)
	}
	if offer := s.connect(t); strings.Contains(offer, "m=audio") {
		t.Errorf("the offer has the removed track:\n%s", offer)
	}
}

func TestClockRateChangesWithoutAJump(t *testing.T) {
	opus, pcmu, w := newMarked('o'), newMarked('p'), &recorder{}
	tr := playing(newWHEP(t, newEngine(t, Options{})), audioTrack, opus, format{pt: 111}, w)
	shard := newIdleShard(t)
	turn := func() {
		tr.take(shard, batchPackets, func(batch []media.Packet) {
			for _, p := range batch {
				_ = tr.write(p)
			}
		})
	}
	opus.pushAt(time.Hour, true, 1)
	opus.pushAt(time.Hour+20*time.Millisecond, true, 1)
	turn()
	spec := media.Track{Name: "audio", Kind: media.Audio, Codec: media.PCMU}
	tr.next = (&encoding{spec: spec, src: pcmu}).in(format{codec: media.PCMU, pt: 0}, tr.ssrc, 0)
	pcmu.pushAt(time.Hour+40*time.Millisecond, true, 1)
	pcmu.pushAt(time.Hour+60*time.Millisecond, true, 1)
	turn()
	for i, want := range []uint32{0, 960, 1920, 1920 + 160} {
		if got := w.headers[i].Timestamp - w.headers[0].Timestamp; got != want {
			t.Errorf("packet %d is stamped %d after the first, want %d", i, got, want)
		}
	}
}

func TestPayloadTypesKeepTheirMeaning(t *testing.T) {
	meaning := map[uint8]string{}
	v := newWHEP(t, newEngine(t, Options{}), videoTrack, newSource(), audioTrack, newSource())
	for range 3 {
		for _, codec := range []media.Codec{media.H264, media.VP8, media.VP9, media.AV1, media.H265} {
			for _, fmtp := range []string{h264Fmtp, "packetization-mode=1;profile-level-id=4d001f", "packetization-mode=1;profile-level-id=640c1f"} {
				if codec != media.H264 {
					fmtp = ""
				}
				if _, err := v.Replace("video", media.Track{Name: "x", Kind: media.Video, Codec: codec, Fmtp: fmtp}, newSource()); err != nil {
					t.Fatal(err)
				}
				if err := v.propose(); err != nil {
					t.Fatal(err)
				}
				f := v.tracks[0].offer[0]
				for pt, what := range map[uint8]string{f.pt: string(codec) + fmtp, f.rtx: "rtx of " + string(codec) + fmtp} {
					if was := meaning[pt]; was != "" && was != what || pt >= 64 && pt <= 95 || pt > 127 {
						t.Errorf("payload type %d is %s, was %q", pt, what, was)
					}
					meaning[pt] = what
				}
			}
		}
	}
	if len(meaning) != 14 { // 7 formats with RTX
		t.Errorf("%d payload types: %v", len(meaning), meaning)
	}
}

func TestSendingAllocatesNothing(t *testing.T) {
	src, w := newSource(), nothing{}
	tr := playing(newWHEP(t, newEngine(t, Options{})), videoTrack, src, format{pt: 102, rtx: 103, delayID: 1, transportID: 2, captureID: 3}, w)
	tr.observe(true)
	src.push(true, 20)
	src.wake = nil
	shard := newIdleShard(t)
	n := testing.AllocsPerRun(100, func() {
		src.cursor = 0
		packets := 0
		tr.take(shard, batchPackets, func(batch []media.Packet) {
			for _, p := range batch {
				p.Index = tr.last + 1
				_ = tr.write(p)
				packets++
			}
		})
		if packets != 20 {
			t.Fatal(packets)
		}
		tr.frames.flush(media.Now())
	})
	if n > 0 {
		t.Errorf("%v allocations a turn", n)
	}
}

type nothing struct{}

func (nothing) WriteRTP(_ *rtp.Header, p []byte) (int, error) { return len(p), nil }
func (nothing) Write(b []byte) (int, error)                   { return len(b), nil }
