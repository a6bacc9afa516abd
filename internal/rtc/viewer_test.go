package rtc

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

func TestViewerGetsEachPacketInOrderFromAKeyframeOn(t *testing.T) {
	src := newSource()
	src.push(false, 3) // must not be sent: no decoder could begin there
	src.pushAt(10*time.Second, true, 3)
	src.pushAt(10*time.Second+40*time.Millisecond, false, 2)
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	s.connect(t)

	first := s.peer.next(t)
	if first.SequenceNumber >= 1<<15 {
		t.Errorf("first sequence number %d is not below 2^15", first.SequenceNumber)
	}
	got := []*rtp.Packet{first}
	for range 4 {
		got = append(got, s.peer.next(t))
	}
	for i, p := range got {
		if p.SequenceNumber != first.SequenceNumber+uint16(i) {
			t.Errorf("packet %d has sequence number %d, want %d", i, p.SequenceNumber, first.SequenceNumber+uint16(i))
		}
		wantTS := first.Timestamp
		if i >= 3 {
			wantTS += 3600 // 40 ms at 90 kHz
		}
		if p.Timestamp != wantTS {
			t.Errorf("packet %d has timestamp %d, want %d", i, p.Timestamp, wantTS)
		}
		if p.Marker != (i == 2 || i == 4) {
			t.Errorf("packet %d has marker %v", i, p.Marker)
		}
		if p.PayloadType != 102 {
			t.Errorf("packet %d has payload type %d", i, p.PayloadType)
		}
		if ext := p.GetExtension(offeredDelayID); i < 3 && string(ext) != "\x00\x00\x00" || i >= 3 && ext != nil {
			t.Errorf("packet %d of 3 of a keyframe and 2 others has playout delay %v", i, ext)
		}
		if ext := p.GetExtension(offeredTransportID); string(ext) != string([]byte{0, byte(i)}) {
			t.Errorf("packet %d has transport-wide number %v", i, ext)
		}
		if index := binary.BigEndian.Uint32(p.Payload[1:]); index != uint32(3+i) {
			t.Errorf("packet %d carries %d of the track", i, index)
		}
	}
}

func TestViewerSkipsANumberWhereAFrameIsCut(t *testing.T) {
	e := newEngine(t, Options{})
	v, err := e.NewViewer(ViewerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	w := &recorder{}
	tr := playing(v, videoTrack, newSource(), format{pt: 102}, w)
	b := media.NewBuffer(100)
	b.Append([]byte{1})
	b.Append([]byte{2})
	b.Start, b.End = true, true
	for _, p := range []media.Packet{
		{Buffer: b, I: 0, Index: 10}, // goes on with 11, which was left out
		{Buffer: b, I: 0, Index: 20},
		{Buffer: b, I: 1, Index: 21}, // ends its frame
		{Buffer: b, I: 0, Index: 30},
	} {
		if err := tr.write(p); err != nil {
			t.Fatal(err)
		}
	}
	var got []uint16
	for _, h := range w.headers {
		got = append(got, h.SequenceNumber-w.headers[0].SequenceNumber)
	}
	if want := []uint16{0, 2, 3, 4}; !equal(got, want) {
		t.Errorf("sequence numbers %v, want %v", got, want)
	}
	if _, _, ok := tr.history.find(w.headers[0].SequenceNumber + 1); ok {
		t.Error("the number that was left out is found")
	}
	if _, i, ok := tr.history.find(w.headers[3].SequenceNumber); !ok || i != 30 {
		t.Errorf("last packet is %d, %v in the history", i, ok)
	}
}

func equal(a, b []uint16) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

type recorder struct {
	headers  []rtp.Header
	payloads []string
}

func (r *recorder) WriteRTP(h *rtp.Header, p []byte) (int, error) {
	r.headers = append(r.headers, h.Clone())
	r.payloads = append(r.payloads, string(p))
	return len(p), nil
}
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }

func TestNothingIsReadBeforeTheConnection(t *testing.T) {
	src := newSource()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	src.push(true, 3)
	if _, err := s.Offer(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	s.wake()
	src.push(true, 3)
	s.send(newIdleShard(t))
	if src.taken != 0 {
		t.Errorf("%d packets were taken before the connection", src.taken)
	}
}

// newIdleShard is a shard whose scratch a test may use.
func newIdleShard(t testing.TB) *shard {
	s := newShard(0)
	t.Cleanup(s.close)
	return s
}

// lossy is a way to the peer that loses some packets: below SRTP, so that the
// peer's replay protection has not seen them.
type lossy struct {
	webrtc.TrackLocalWriter
	dice *rand.Rand
	lost atomic.Uint64
}

func (l *lossy) WriteRTP(h *rtp.Header, p []byte) (int, error) {
	if l.dice.IntN(100) < 5 {
		l.lost.Add(1)
		return len(p), nil
	}
	return l.TrackLocalWriter.WriteRTP(h, p)
}

func TestLostPacketsAreSentAgain(t *testing.T) {
	for name, rtx := range map[string]bool{"RTX": true, "same packet": false} {
		t.Run(name, func(t *testing.T) {
			src := newSource()
			src.ragged = true
			var o peerOptions
			if !rtx {
				o.media = func(m *webrtc.MediaEngine) error {
					return m.RegisterCodec(webrtc.RTPCodecParameters{PayloadType: 102, RTPCodecCapability: webrtc.RTPCodecCapability{
						MimeType: webrtc.MimeTypeH264, ClockRate: 90000, SDPFmtpLine: h264Fmtp,
						RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}},
					}}, webrtc.RTPCodecTypeVideo)
				}
			}
			s := newSession(t, newEngine(t, Options{}), o, videoTrack, src)
			s.connect(t)
			loss := &lossy{dice: rand.New(rand.NewPCG(1, 2))}
			s.sendMu.Lock()
			loss.TrackLocalWriter, s.tracks[0].out = s.tracks[0].out, loss
			// the sequence numbers roll over on the way (RFC 3711 §3.3.1)
			s.tracks[0].history.next, s.tracks[0].rtxSeq = 1<<16-250, 1<<16-10
			s.sendMu.Unlock()
			src.run(t, 60, 5)

			seen := map[uint16]bool{}
			first := s.peer.next(t).SequenceNumber
			seen[first] = true
			const want = 500
			for deadline := time.Now().Add(30 * time.Second); ; {
				p := s.peer.next(t)
				seen[p.SequenceNumber] = true
				if ahead := p.SequenceNumber - first; ahead > 2*want && ahead < 1<<15 {
					// pion asks for the last 512 packets only: on a busy machine it may miss one
					first = p.SequenceNumber
				}
				missing := 0
				for i := range uint16(want) {
					if !seen[first+i] {
						missing++
					}
				}
				if missing == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d of %d packets never came; lost %d; %+v", missing, want, loss.lost.Load(), s.Stats())
				}
			}
			st := s.Stats()
			if loss.lost.Load() == 0 || st.Retransmitted == 0 || st.NACKs == 0 {
				t.Errorf("nothing was lost or repaired: lost %d, %+v", loss.lost.Load(), st)
			}
			if st.Retransmitted*1000 > st.Bytes/rtxShare+rtxStart {
				t.Errorf("%d packets sent again, of %d: more than their share", st.Retransmitted, st.Packets)
			}
		})
	}
}

func TestPLIAndFIRReachTheSource(t *testing.T) {
	src := newSource()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	s.connect(t)
	receive(t, src.asked, "the request that comes with the answer")
	src.push(true, 1)
	ssrc := s.peer.next(t).SSRC
	send := func(p rtcp.Packet) {
		t.Helper()
		if err := s.peer.pc.WriteRTCP([]rtcp.Packet{p}); err != nil {
			t.Fatal(err)
		}
	}
	send(&rtcp.PictureLossIndication{MediaSSRC: ssrc})
	receive(t, src.asked, "the PLI")

	fir := func(n uint8) *rtcp.FullIntraRequest {
		return &rtcp.FullIntraRequest{SenderSSRC: 5, MediaSSRC: ssrc, FIR: []rtcp.FIREntry{{SSRC: ssrc, SequenceNumber: n}}}
	}
	send(fir(1))
	receive(t, src.asked, "the FIR")
	send(fir(1)) // a repeat
	send(fir(1))
	send(fir(2))
	receive(t, src.asked, "the second FIR")
	send(&rtcp.PictureLossIndication{MediaSSRC: ssrc})
	receive(t, src.asked, "the last PLI")
	if n := src.keyframes.Load(); n != 5 {
		t.Errorf("%d keyframes were asked for, want 5", n)
	}
	if st := s.Stats(); st.PLIs != 2 || st.FIRs != 4 {
		t.Errorf("stats count %d PLIs and %d FIRs, want 2 and 4", st.PLIs, st.FIRs)
	}
}

// reports catches sender reports at the peer.
type reports struct {
	interceptor.NoOp
	got chan []rtcp.Packet
}

func (r *reports) NewInterceptor(string) (interceptor.Interceptor, error) { return r, nil }
func (r *reports) BindRTCPReader(next interceptor.RTCPReader) interceptor.RTCPReader {
	return interceptor.RTCPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		n, a, err := next.Read(b, a)
		if err == nil {
			if p, perr := rtcp.Unmarshal(b[:n]); perr == nil {
				r.got <- p
			}
		}
		return n, a, err
	})
}

func TestSenderReportsMapAllTracksToOneClock(t *testing.T) {
	video, audio := newSource(), newSource()
	catch := &reports{got: make(chan []rtcp.Packet, 1000)}
	s := newSession(t, newEngine(t, Options{}), peerOptions{registry: func(r *interceptor.Registry) { r.Add(catch) }},
		videoTrack, video, audioTrack, audio)
	s.connect(t)
	video.run(t, 30, 2)
	audio.run(t, 50, 1)
	vp, ap := s.peer.next(t), receive(t, s.peer.audio, "an audio packet")

	type mapping struct {
		ntp uint64
		rtp uint32
	}
	last := map[uint32]mapping{}
	var names []string
	for deadline := time.Now().Add(10 * time.Second); len(last) < 2 || len(names) < 1; {
		if time.Now().After(deadline) {
			t.Fatalf("reports so far: %v, names %v", last, names)
		}
		for _, p := range receive(t, catch.got, "sender reports") {
			switch p := p.(type) {
			case *rtcp.SenderReport:
				last[p.SSRC] = mapping{p.NTPTime, p.RTPTime}
				if d := time.Since(ntpWall(p.NTPTime)); d < 0 || d > 5*time.Second {
					t.Errorf("the report's time is %v ago", d)
				}
			case *rtcp.SourceDescription:
				for _, c := range p.Chunks {
					names = append(names, c.Items[0].Text)
				}
			}
		}
	}
	for _, n := range names {
		if n != "desk" {
			t.Errorf("CNAME %q, want that of the stream", n)
		}
	}
	// Where do both tracks put one capture time? The frames were captured within
	// moments of each other, and must come out so.
	at := func(p *rtp.Packet, rate float64) float64 {
		m := last[p.SSRC]
		return float64(m.ntp)/(1<<32) + float64(int32(p.Timestamp-m.rtp))/rate
	}
	if d := at(vp, 90000) - at(ap, 48000); d < -0.1 || d > 0.1 {
		t.Errorf("first frames of audio and video are %.3f s apart by the reports", d)
	}
}

func ntpWall(ntp uint64) time.Time {
	return time.Unix(int64(ntp>>32)-2208988800, int64(ntp&0xffffffff*1e9>>32))
}

func TestReceiverReportsBecomeStats(t *testing.T) {
	src := newSource()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	s.connect(t)
	src.run(t, 30, 3)
	for deadline := time.Now().Add(15 * time.Second); ; {
		if st := s.Stats(); st.RTT > 0 {
			if st.RTT > time.Second || st.Loss > 0.5 || st.Packets == 0 || st.Bytes != st.Packets*1000 || st.Connected.IsZero() ||
				st.LocalCandidate == "" || st.RemoteCandidate == "" {
				t.Errorf("stats %+v", st)
			}
			return
		} else if time.Now().After(deadline) {
			t.Fatalf("no round trip is known: %+v", st)
		}
		s.peer.next(t)
	}
}

func TestNewLevelGoesOutWithTheNextOffer(t *testing.T) {
	src := newSource()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	offer := s.connect(t)
	if got := attribute(t, offer, "a=fmtp:102 "); got != h264Fmtp {
		t.Errorf("first offer says %q", got)
	}
	src.run(t, 30, 2)
	before := s.peer.next(t)
	raised := strings.Replace(h264Fmtp, "42e01f", "42e029", 1)
	s.SetFmtp("video", raised)
	s.SetFmtp("nonsense", "x=1")
	if got := attribute(t, s.negotiate(t, false), "a=fmtp:102 "); got != raised {
		t.Errorf("second offer says %q, want %q", got, raised)
	}
	after := s.peer.next(t)
	if after.SSRC != before.SSRC || after.PayloadType != before.PayloadType {
		t.Error("the track changed with the level")
	}
}

func TestICERestartKeepsMediaFlowing(t *testing.T) {
	src := newSource()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	first := s.connect(t)
	src.run(t, 60, 2)
	for range 20 {
		s.peer.next(t)
	}
	second := s.negotiate(t, true)
	if attribute(t, first, "a=ice-ufrag:") == attribute(t, second, "a=ice-ufrag:") {
		t.Fatal("the restart offer has the old ice-ufrag")
	}
	s.await(t, StateConnected)
	base := s.peer.next(t)
	seen := map[uint16]bool{base.SequenceNumber: true}
	for len(seen) < 200 {
		seen[s.peer.next(t).SequenceNumber] = true
	}
	for i := range uint16(150) {
		if !seen[base.SequenceNumber+i] {
			t.Errorf("packet %d after the restart never came", i)
		}
	}
	if err := s.Err(); err != nil {
		t.Errorf("viewer ended: %v", err)
	}
}

func TestSecondOfferNeedsAnAnswerToTheFirst(t *testing.T) {
	ctx := context.Background()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, newSource())
	if err := s.SetAnswer(ctx, "v=0"); !errors.Is(err, ErrBadState) {
		t.Errorf("answer without an offer: %v", err)
	}
	offer, err := s.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Offer(ctx, false); !errors.Is(err, ErrBadState) {
		t.Errorf("second offer: %v", err)
	}
	if _, err := s.Answer(ctx, offer); !errors.Is(err, ErrBadState) {
		t.Errorf("offer from the peer: %v", err)
	}
	if err := s.SetAnswer(ctx, s.peer.answer(t, offer)); err != nil {
		t.Fatal(err)
	}
	s.await(t, StateConnected)
}

func TestBadAnswersLeaveTheOfferOpen(t *testing.T) {
	ctx := context.Background()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, newSource())
	offer, err := s.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	good := s.peer.answer(t, offer)
	replace := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in\n%s", old, good)
		}
		return strings.Replace(good, old, with, -1)
	}
	for name, c := range map[string]struct {
		sdp  string
		want error
	}{
		"empty":          {"", ErrBadSDP},
		"garbage":        {"\x00\xff not an sdp", ErrBadSDP},
		"too large":      {good + strings.Repeat("a=x\r\n", MaxSDP/4), ErrBadSDP},
		"no m-line":      {good[:strings.Index(good, "m=")], ErrBadSDP},
		"more m-lines":   {good + good[strings.Index(good, "m="):], ErrBadSDP},
		"other mid":      {replace("a=mid:0", "a=mid:7"), ErrBadSDP},
		"audio":          {replace("m=video", "m=audio"), ErrBadSDP},
		"no fingerprint": {replace("a=fingerprint:", "a=nothing:"), ErrBadSDP},
		"bad hash":       {replace("a=fingerprint:sha-256", "a=fingerprint:md4"), ErrBadSDP},
		"no ufrag":       {replace("a=ice-ufrag:", "a=nothing:"), ErrBadSDP},
		"short password": {replace("a=ice-pwd:", "a=ice-pwd:x\r\na=nothing:"), ErrBadSDP},
		"actpass":        {replace("a=setup:active", "a=setup:actpass"), ErrBadSDP},
		"other codec":    {replace("H264/90000", "VP8/90000"), ErrNoCodec},
		"rejected":       {replace("m=video 9", "m=video 0"), ErrNoCodec},
		"inactive":       {replace("a=recvonly", "a=inactive"), ErrNotReceiving},
	} {
		if err := s.SetAnswer(ctx, c.sdp); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := s.SetAnswer(ctx, good); err != nil {
		t.Fatalf("the good answer after the bad ones: %v", err)
	}
	s.await(t, StateConnected)
}

func TestEarlyCandidatesAreKeptAndCounted(t *testing.T) {
	ctx := context.Background()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, newSource())
	offer, err := s.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	answer := s.peer.answer(t, offer)
	var bare []string
	for _, line := range strings.Split(answer, "\r\n") {
		if c, ok := strings.CutPrefix(line, "a=candidate:"); ok {
			if err := s.AddCandidate(&Candidate{Candidate: "candidate:" + c}); err != nil {
				t.Fatal(err)
			}
		} else if line != "a=end-of-candidates" {
			bare = append(bare, line)
		}
	}
	if err := s.AddCandidate(nil); err != nil {
		t.Error(err)
	}
	mdns := "candidate:1 1 udp 2122260223 4ab51c44-3b28-4dd7-9f45-b6a5b4ba4a11.local 50000 typ host"
	if err := s.AddCandidate(&Candidate{Candidate: mdns}); err != nil {
		t.Errorf("mDNS candidate: %v", err)
	}
	if err := s.AddCandidate(&Candidate{Candidate: "candidate:nonsense"}); !errors.Is(err, ErrBadCandidate) {
		t.Errorf("malformed candidate: %v", err)
	}
	if err := s.SetAnswer(ctx, strings.Join(bare, "\r\n")); err != nil {
		t.Fatal(err)
	}
	s.await(t, StateConnected)
	for i := range maxCandidates {
		if err := s.AddCandidate(&Candidate{Candidate: "candidate:1 1 udp 1 192.0.2.1 9 typ host"}); err != nil {
			t.Fatalf("candidate %d: %v", i, err)
		}
	}
	if err := s.AddCandidate(&Candidate{Candidate: "candidate:1 1 udp 1 192.0.2.1 9 typ host"}); !errors.Is(err, ErrBadCandidate) {
		t.Errorf("one candidate too many: %v", err)
	}
}

func TestNegotiationHasADeadline(t *testing.T) {
	e := newEngine(t, Options{})
	src := newSource()
	states := make(chan State, 10)
	v, err := e.NewViewer(ViewerOptions{ConnectTimeout: 50 * time.Millisecond, OnState: func(s State) { states <- s }})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.AddTrack("video", videoTrack, "desk", src); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Offer(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	receive(t, v.Done(), "the end")
	if !errors.Is(v.Err(), ErrConnectTimeout) {
		t.Errorf("ended by %v", v.Err())
	}
	if got := receive(t, states, "the last state"); got != StateClosed {
		t.Errorf("last state %v", got)
	}
	if !src.isClosed() {
		t.Error("the source is still open")
	}
	if _, err := v.Offer(context.Background(), false); !errors.Is(err, ErrClosed) {
		t.Errorf("offer afterwards: %v", err)
	}
	late := newSource()
	if err := v.AddTrack("audio", audioTrack, "desk", late); !errors.Is(err, ErrClosed) || !late.isClosed() {
		t.Errorf("track afterwards: %v, source closed %v", err, late.isClosed())
	}
}

func TestPeerThatLeavesEndsTheViewer(t *testing.T) {
	src := newSource()
	src.push(true, 1)
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	s.connect(t)
	s.peer.next(t) // so it has finished its handshake too
	if err := s.peer.pc.Close(); err != nil {
		t.Fatal(err)
	}
	receive(t, s.Done(), "the end")
	if !errors.Is(s.Err(), ErrLeft) {
		t.Errorf("ended by %v", s.Err())
	}
	if !src.isClosed() {
		t.Error("the source is still open")
	}
}

func TestPeerWithAnotherCertificateIsNotConnected(t *testing.T) {
	ctx := context.Background()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, newSource())
	offer, err := s.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	answer := s.peer.answer(t, offer)
	print := attribute(t, answer, "a=fingerprint:sha-256 ")
	forged := strings.Repeat("00:", 31) + "00"
	if err := s.SetAnswer(ctx, strings.Replace(answer, print, forged, 1)); err != nil {
		t.Fatal(err)
	}
	receive(t, s.Done(), "the end")
	if !errors.Is(s.Err(), ErrConnectionLost) {
		t.Errorf("ended by %v", s.Err())
	}
}

func TestStuckSourceDoesNotStopViewersOfOtherShards(t *testing.T) {
	e := newEngine(t, Options{})
	if len(e.shards) < 2 {
		t.Skip("one processor: one shard")
	}
	stuck, good := newSource(), newSource()
	a := newSession(t, e, peerOptions{}, videoTrack, stuck)
	b := newSession(t, e, peerOptions{}, videoTrack, good)
	a.connect(t)
	b.connect(t)
	block := make(chan struct{})
	defer close(block)
	stuck.block.Store(&block) // only now: what makes the connection waits for the shard
	stuck.push(true, 1)
	good.run(t, 60, 2)
	for range 50 {
		b.peer.next(t)
	}
}

func TestViewerThatIsGoneDoesNotStopOthers(t *testing.T) {
	e := newEngine(t, Options{})
	src := newSource()
	gone := newSession(t, e, peerOptions{}, videoTrack, src)
	gone.connect(t)
	stays := newSession(t, e, peerOptions{}, videoTrack, newSource())
	stays.connect(t)
	other := stays.tracks[0].latest().src.(*fakeSource)
	src.run(t, 60, 4)
	other.run(t, 60, 4)
	stays.peer.next(t)
	gone.Close()
	for range 100 {
		stays.peer.next(t)
	}
}

func TestIPv6AloneConnects(t *testing.T) {
	if c, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6 loopback: " + err.Error())
	} else {
		c.Close()
	}
	src := newSource()
	src.push(true, 1)
	s := newSession(t, newEngine(t, Options{}), peerOptions{settings: func(s *webrtc.SettingEngine) {
		s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP6})
	}}, videoTrack, src)
	s.connect(t)
	s.peer.next(t)
}

func TestGatewayIsDTLSServerAndTakesGCM(t *testing.T) {
	src := newSource()
	src.push(true, 1)
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, src)
	offer := s.connect(t)
	if got := attribute(t, offer, "a=setup:"); got != "actpass" {
		t.Errorf("offer has setup %q", got)
	}
	if got := attribute(t, s.peer.pc.LocalDescription().SDP, "a=setup:"); got != "active" {
		t.Errorf("answer has setup %q", got)
	}
	s.peer.next(t)
}

func TestHundredViewersComeAndGo(t *testing.T) {
	e := newEngine(t, Options{})
	before := media.LiveBuffers()
	src := newSource()
	src.push(true, 3)
	for range 10 {
		var round []*session
		var sources []*fakeSource
		for range 10 {
			own := newSource()
			own.push(true, 3)
			s := newSession(t, e, peerOptions{}, videoTrack, own)
			s.negotiate(t, false)
			round, sources = append(round, s), append(sources, own)
		}
		for i, s := range round {
			s.await(t, StateConnected)
			for n := range 3 {
				select {
				case <-s.peer.packets:
				case <-time.After(15 * time.Second):
					t.Fatalf("packet %d did not come: %+v; peer is %v", n, s.Stats(), s.peer.pc.ConnectionState())
				}
			}
			s.Close()
			if !sources[i].isClosed() {
				t.Error("a source is still open")
			}
			sources[i].packets[0].Release()
			s.peer.close(t)
		}
	}
	src.packets[0].Release()
	if after := media.LiveBuffers(); after > before {
		t.Errorf("%d buffers are held, %d before", after, before)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.viewers) != 0 {
		t.Errorf("the engine still knows %d viewers", len(e.viewers))
	}
}
