package rtc

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/config"
	"gateway/internal/media"
)

// camera is a publisher's own side: pion as it comes, over a network that loses and
// reorders what it sends.
type camera struct {
	pc      *webrtc.PeerConnection
	lost    atomic.Uint64 // per mille of packets
	swapped atomic.Uint64 // per mille, sent after the next one
	drops   atomic.Uint64
	plis    chan uint32 // SSRCs
	reports chan *rtcp.ReceiverReport
	twcc    atomic.Uint64
}

type sendRTP struct {
	interceptor.NoOp
	s *camera
}

func (f sendRTP) NewInterceptor(string) (interceptor.Interceptor, error) { return &f, nil }

func (f *sendRTP) BindLocalStream(_ *interceptor.StreamInfo, w interceptor.RTPWriter) interceptor.RTPWriter {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 1))
	var kept *rtp.Packet
	return interceptor.RTPWriterFunc(func(h *rtp.Header, payload []byte, a interceptor.Attributes) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if r.Uint64N(1000) < f.s.lost.Load() {
			f.s.drops.Add(1)
			return len(payload), nil
		}
		if kept == nil && r.Uint64N(1000) < f.s.swapped.Load() {
			kept = &rtp.Packet{Header: h.Clone(), Payload: bytes.Clone(payload)}
			return len(payload), nil
		}
		n, err := w.Write(h, payload, a)
		if kept != nil {
			_, _ = w.Write(&kept.Header, kept.Payload, a)
			kept = nil
		}
		return n, err
	})
}

func (f *sendRTP) BindRTCPReader(next interceptor.RTCPReader) interceptor.RTCPReader {
	return interceptor.RTCPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		n, a, err := next.Read(b, a)
		if err != nil {
			return n, a, err
		}
		packets, _ := rtcp.Unmarshal(b[:n])
		for _, p := range packets {
			switch p := p.(type) {
			case *rtcp.PictureLossIndication:
				select {
				case f.s.plis <- p.MediaSSRC:
				default:
				}
			case *rtcp.ReceiverReport:
				select {
				case f.s.reports <- p:
				default:
				}
			case *rtcp.TransportLayerCC:
				f.s.twcc.Add(1)
			}
		}
		return n, a, nil
	})
}

func newCamera(t testing.TB) *camera { return newCameraOn(t, nil) }

func newCameraOn(t testing.TB, setup func(*webrtc.MediaEngine)) *camera {
	t.Helper()
	s := &camera{plis: make(chan uint32, 100), reports: make(chan *rtcp.ReceiverReport, 100)}
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	if setup != nil {
		setup(m)
	}
	registry := &interceptor.Registry{}
	registry.Add(sendRTP{s: s})
	if err := webrtc.RegisterDefaultInterceptors(m, registry); err != nil {
		t.Fatal(err)
	}
	if err := webrtc.ConfigureTWCCHeaderExtensionSender(m, registry); err != nil {
		t.Fatal(err)
	}
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	api := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(settings))
	pc, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	s.pc = pc
	t.Cleanup(func() { pc.GracefulClose() })
	return s
}

// add adds a track; its RTP sender's RTCP is read so that interceptors see it.
func (s *camera) add(t testing.TB, codec webrtc.RTPCodecCapability, id string, rids ...string) []*webrtc.TrackLocalStaticRTP {
	t.Helper()
	if len(rids) == 0 {
		rids = []string{""}
	}
	var tracks []*webrtc.TrackLocalStaticRTP
	var rtpSender *webrtc.RTPSender
	for i, rid := range rids {
		var options []func(*webrtc.TrackLocalStaticRTP)
		if rid != "" {
			options = append(options, webrtc.WithRTPStreamID(rid))
		}
		track, err := webrtc.NewTrackLocalStaticRTP(codec, id, "camera", options...)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 { // pion's offer has all codecs, those of a publisher begin with what it sends
			tr, err := s.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
			if err != nil {
				t.Fatal(err)
			}
			rtpSender = tr.Sender()
			var prefer []webrtc.RTPCodecParameters
			for _, c := range rtpSender.GetParameters().Codecs {
				if c.MimeType == codec.MimeType && (codec.SDPFmtpLine == "" || c.SDPFmtpLine == codec.SDPFmtpLine) {
					prefer = append(prefer, c)
				}
			}
			for _, c := range rtpSender.GetParameters().Codecs {
				if len(prefer) > 0 && c.SDPFmtpLine == fmt.Sprintf("apt=%d", prefer[0].PayloadType) {
					prefer = append(prefer, c)
				}
			}
			if err := tr.SetCodecPreferences(prefer); err != nil {
				t.Fatal(err)
			}
		} else if err := rtpSender.AddEncoding(track); err != nil {
			t.Fatal(err)
		}
		tracks = append(tracks, track)
		go func() {
			b := make([]byte, 1500)
			for {
				var err error
				if rid == "" {
					_, _, err = rtpSender.Read(b)
				} else {
					_, _, err = rtpSender.ReadSimulcast(b, rid)
				}
				if err != nil {
					return
				}
			}
		}()
	}
	return tracks
}

// offer makes an offer with all candidates.
func (s *camera) offer(t testing.TB, o *webrtc.OfferOptions) string {
	t.Helper()
	d, err := s.pc.CreateOffer(o)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(s.pc)
	if err := s.pc.SetLocalDescription(d); err != nil {
		t.Fatal(err)
	}
	receive(t, gathered, "candidates")
	return s.pc.LocalDescription().SDP
}

// publish negotiates with a publisher of the engine's.
func (s *camera) publish(t testing.TB, p *Publisher, o *webrtc.OfferOptions) (answer string, incoming []Incoming) {
	t.Helper()
	answer, incoming, err := p.Answer(context.Background(), s.offer(t, o))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatalf("%v in answer\n%s", err, answer)
	}
	return answer, incoming
}

// sink takes what comes, as a stream would.
type sink struct {
	mu       sync.Mutex
	received []media.Received
	gaps     int
	more     chan struct{}
}

func newSink() *sink { return &sink{more: make(chan struct{}, 1)} }

func (s *sink) Receive(packets []media.Received) {
	s.mu.Lock()
	for _, p := range packets {
		p.Payload = bytes.Clone(p.Payload)
		s.received = append(s.received, p)
		if p.Gap {
			s.gaps++
		}
	}
	s.mu.Unlock()
	poke(s.more)
}

func (s *sink) all() []media.Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.received)
}

// await waits until n packets have come.
func (s *sink) await(t testing.TB, n int) []media.Received {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		if all := s.all(); len(all) >= n {
			return all
		}
		select {
		case <-s.more:
		case <-timeout:
			t.Fatalf("%d of %d packets have come", len(s.all()), n)
		}
	}
}

// until waits for a packet and returns all that have come.
func (s *sink) until(t testing.TB, payload []byte) []media.Received {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		all := s.all()
		if n := len(all); n > 0 && bytes.Equal(all[n-1].Payload, payload) {
			return all
		}
		select {
		case <-s.more:
		case <-timeout:
			t.Fatalf("the last packet hasn't come; %d have", len(all))
		}
	}
}

var (
	sentH264 = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264, ClockRate: 90000, SDPFmtpLine: h264Fmtp}
	sentVP8  = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
	sentOpus = webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
)

// flow writes frames of four packets, 100 a second, whose payloads tell their index
// and are of any size; each returns what it wrote. It ends with the test or stop.
func flow(t testing.TB, track *webrtc.TrackLocalStaticRTP, seq uint16, rate uint32, frames int) [][]byte {
	t.Helper()
	var sent [][]byte
	r := rand.New(rand.NewPCG(7, uint64(seq)))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for f := range frames {
		<-tick.C
		for i := range 4 {
			payload := make([]byte, 10+r.IntN(1100))
			for j := range payload {
				payload[j] = byte(r.Uint32())
			}
			binary.BigEndian.PutUint32(payload, uint32(4*f+i))
			sent = append(sent, payload)
			err := track.WriteRTP(&rtp.Packet{
				Header:  rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: uint32(f) * rate / 100, Marker: i == 3},
				Payload: payload,
			})
			if err != nil {
				t.Error(err)
				return sent
			}
			seq++
		}
	}
	return sent
}

func newPublisher(t testing.TB, e *Engine, o PublisherOptions) *Publisher {
	t.Helper()
	o.ID = "test"
	p, err := e.NewPublisher(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func awaitConnected(t testing.TB, s *camera) {
	t.Helper()
	connected := make(chan struct{})
	var once sync.Once
	s.pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			once.Do(func() { close(connected) })
		}
	})
	if s.pc.ConnectionState() == webrtc.PeerConnectionStateConnected {
		return
	}
	receive(t, connected, "connection")
}

// What is published comes out bit by bit, in order, with nothing lost, though the
// network loses one packet in twenty (but not pion's repairs) and reorders one in fifty.
func TestPublishedPacketsComeWholeOverALossyNetwork(t *testing.T) {
	for _, c := range []struct {
		name  string
		codec webrtc.RTPCodecCapability
		want  media.Codec
	}{{"h264", sentH264, media.H264}, {"vp8", sentVP8, media.VP8}} {
		t.Run(c.name, func(t *testing.T) {
			e := newEngine(t, Options{})
			s := newCamera(t)
			video := s.add(t, c.codec, "video")[0]
			audio := s.add(t, sentOpus, "audio")[0]
			p := newPublisher(t, e, PublisherOptions{})
			_, incoming := s.publish(t, p, nil)
			if len(incoming) != 2 || incoming[0].Codec != c.want || incoming[1].Codec != media.Opus {
				t.Fatalf("incoming: %+v", incoming)
			}
			sinks := []*sink{newSink(), newSink()}
			for i, in := range incoming {
				if err := p.Deliver(in.Mid, in.Layers[0], sinks[i]); err != nil {
					t.Fatal(err)
				}
			}
			awaitConnected(t, s)
			flow(t, audio, 1, 48000, 3)
			flow(t, video, 65500, 90000, 1) // the first packet must come
			sinks[0].await(t, 4)
			s.lost.Store(50)
			s.swapped.Store(20)
			sent := flow(t, video, 65504, 90000, 500)
			s.lost.Store(0)
			s.swapped.Store(0)
			flow(t, audio, 13, 48000, 1)
			end := flow(t, video, 1968, 90000, 1) // tells that the last ones are missing
			got := sinks[0].until(t, end[3])
			got = got[:len(got)-4]
			next := uint32(0)
			for _, packet := range got[4:] {
				index := binary.BigEndian.Uint32(packet.Payload)
				if index < next || index >= uint32(len(sent)) || !bytes.Equal(packet.Payload, sent[index]) {
					t.Fatalf("packet %d differs, or comes after %d", index, next)
				}
				if packet.Gap != (index > next) {
					t.Fatalf("packet %d follows %d, gap %v", index, next-1, packet.Gap)
				}
				next = index + 1
			}
			stats := p.Stats()
			if lost := len(sent) - (len(got) - 4); lost > 5 || int(stats.Layers[0].Lost) != lost { // none but on a machine that stalls
				t.Errorf("%d packets are lost: %+v", lost, stats.Layers[0])
			}
			if s.drops.Load() < 50 || stats.Layers[0].Repaired < 50 || stats.Layers[0].Reordered == 0 {
				t.Errorf("the network dropped %d packets, %+v", s.drops.Load(), stats.Layers[0])
			}
			if s.twcc.Load() == 0 {
				t.Error("no transport-wide feedback has come")
			}
			r := receive(t, s.reports, "receiver report")
			if len(r.Reports) == 0 {
				t.Error("the receiver report is empty")
			}
			t.Logf("dropped %d of 2000: %+v", s.drops.Load(), stats.Layers[0])
			if n := len(sinks[1].await(t, 16)); n != 16 {
				t.Errorf("%d packets of sound", n)
			}
		})
	}
}

func TestKeyframeRequestReachesThePublisher(t *testing.T) {
	e := newEngine(t, Options{})
	s := newCamera(t)
	video := s.add(t, sentVP8, "video")[0]
	p := newPublisher(t, e, PublisherOptions{})
	_, incoming := s.publish(t, p, nil)
	got := newSink()
	if err := p.Deliver(incoming[0].Mid, "", got); err != nil {
		t.Fatal(err)
	}
	awaitConnected(t, s)
	flow(t, video, 1, 90000, 1)
	got.await(t, 4)
	p.RequestKeyframe(incoming[0].Mid, "")
	ssrc := receive(t, s.plis, "PLI")
	if want := uint32(s.pc.GetSenders()[0].GetParameters().Encodings[0].SSRC); ssrc != want {
		t.Errorf("the PLI is about %d, the video is %d", ssrc, want)
	}
}

// Simulcast layers come apart by their RIDs.
func TestSimulcastLayersComeApart(t *testing.T) {
	e := newEngine(t, Options{})
	s := newCameraOn(t, func(m *webrtc.MediaEngine) {
		if err := webrtc.ConfigureSimulcastExtensionHeaders(m); err != nil {
			t.Fatal(err)
		}
	})
	rids := []string{"q", "h", "f"}
	tracks := s.add(t, sentVP8, "video", rids...)
	s.add(t, sentOpus, "audio")
	p := newPublisher(t, e, PublisherOptions{})
	answer, incoming := s.publish(t, p, nil)
	if !slices.Equal(incoming[0].Layers, rids) || !strings.Contains(answer, "a=simulcast:recv q;h;f") {
		t.Fatalf("layers %q in answer\n%s", incoming[0].Layers, answer)
	}
	sinks := map[string]*sink{}
	for _, rid := range rids {
		sinks[rid] = newSink()
		if err := p.Deliver(incoming[0].Mid, rid, sinks[rid]); err != nil {
			t.Fatal(err)
		}
	}
	awaitConnected(t, s)
	ids := map[string]uint8{}
	for _, x := range s.pc.GetSenders()[0].GetParameters().HeaderExtensions {
		ids[x.URI] = uint8(x.ID)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i, rid := range rids {
		for n := range uint16(50) {
			<-tick.C
			packet := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: n, Timestamp: uint32(n) * 3000, Marker: true}, Payload: []byte{byte(i), byte(n), 1, 2}}
			if err := packet.SetExtension(ids[midURI], []byte(incoming[0].Mid)); err != nil {
				t.Fatal(err)
			}
			if err := packet.SetExtension(ids[layerURI], []byte(rid)); err != nil {
				t.Fatal(err)
			}
			if err := tracks[i].WriteRTP(packet); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, rid := range rids {
		for n, p := range sinks[rid].await(t, 50) {
			if p.Payload[0] != byte(i) || p.Payload[1] != byte(n) || p.Gap {
				t.Fatalf("layer %s, packet %d: %v", rid, n, p)
			}
		}
	}
}

// A publisher adds an m-line, and drops one, while the other goes on; then its
// network changes (ICE restart).
func TestPublisherRenegotiates(t *testing.T) {
	e := newEngine(t, Options{})
	s := newCamera(t)
	webcam := s.add(t, sentVP8, "camera")[0]
	p := newPublisher(t, e, PublisherOptions{})
	_, incoming := s.publish(t, p, nil)
	first := newSink()
	if err := p.Deliver(incoming[0].Mid, "", first); err != nil {
		t.Fatal(err)
	}
	awaitConnected(t, s)
	flow(t, webcam, 1, 90000, 2)
	first.await(t, 8)

	screen := s.add(t, sentVP8, "screen")[0]
	_, incoming = s.publish(t, p, nil)
	if len(incoming) != 2 {
		t.Fatalf("incoming: %+v", incoming)
	}
	second := newSink()
	if err := p.Deliver(incoming[1].Mid, "", second); err != nil {
		t.Fatal(err)
	}
	flow(t, screen, 1, 90000, 2)
	flow(t, webcam, 9, 90000, 2)
	second.await(t, 8)
	first.await(t, 16)

	_, incoming = s.publish(t, p, &webrtc.OfferOptions{ICERestart: true})
	if len(incoming) != 2 {
		t.Fatalf("incoming after the restart: %+v", incoming)
	}
	deadline := time.Now().Add(20 * time.Second)
	for n := uint16(17); len(first.all()) < 24; n += 4 { // what is sent before ICE is back is lost
		flow(t, webcam, n, 90000, 1)
		if time.Now().After(deadline) {
			t.Fatal("nothing comes after the ICE restart")
		}
	}

	if err := s.pc.RemoveTrack(s.pc.GetSenders()[1]); err != nil {
		t.Fatal(err)
	}
	_, incoming = s.publish(t, p, nil)
	if len(incoming) != 1 {
		t.Fatalf("incoming after the screen has ended: %+v", incoming)
	}
}

// The publisher ends when its peer closes the connection.
func TestPublisherThatLeavesEnds(t *testing.T) {
	e := newEngine(t, Options{})
	s := newCamera(t)
	s.add(t, sentOpus, "audio")
	p := newPublisher(t, e, PublisherOptions{})
	s.publish(t, p, nil)
	awaitConnected(t, s)
	s.pc.Close()
	receive(t, p.Done(), "the publisher's end")
}

// A peer that uses many SSRCs is ended.
func TestPublisherWithManyStreamsIsEnded(t *testing.T) {
	e := newEngine(t, Options{})
	p := newPublisher(t, e, PublisherOptions{})
	for ssrc := range uint32(2*maxSSRCs + 1) {
		p.buffer(1, ssrc)
	}
	receive(t, p.Done(), "the publisher's end")
	if reason(p.Err()) != "hostile" {
		t.Errorf("it ended with %v", p.Err())
	}
}

func TestOffersThatNothingCanBeTakenOf(t *testing.T) {
	e := newEngine(t, Options{ICE: config.ICE{}})
	s := newCamera(t)
	s.add(t, sentVP8, "video")
	offer := s.offer(t, nil)
	for name, text := range map[string]string{
		"empty":       "",
		"receives":    strings.ReplaceAll(offer, "a=sendonly", "a=recvonly"),
		"H.263 alone": strings.NewReplacer("VP8/", "H263/", "VP9/", "H263/", "AV1/", "H263/", "H264/", "H263/", "H265/", "H263/").Replace(offer),
		"no ICE":      strings.ReplaceAll(offer, "a=ice-ufrag", "a=x"),
	} {
		p := newPublisher(t, e, PublisherOptions{})
		if _, _, err := p.Answer(context.Background(), text); err == nil {
			t.Errorf("%s: answered", name)
		} else if p.Err() != nil {
			t.Errorf("%s: ended the publisher: %v", name, p.Err())
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// Whatever comes as RTP or RTCP, nothing breaks.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{0x90, 0xe0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 0xbe, 0xde, 0, 1, 0x10, 0x30, 0, 0, 1, 2, 3}, false)
	f.Add([]byte{0x80, 200, 0, 6, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4}, true)
	f.Fuzz(func(t *testing.T, b []byte, rtcp bool) {
		r := &receiving{}
		r.begin(&Publisher{}, 1)
		s := &sending{section: &section{media: "video", mid: "0"}, layers: []string{"", "h"}, layerID: 2, midID: 1,
			format: format{codec: media.VP8, pt: 96, rtx: 97, feedback: videoFeedback, transportID: 3}, fromPT: true}
		r.expect([]*sending{s})
		now := time.Hour
		for len(b) > 0 {
			n := min(int(b[0])+1, len(b))
			if rtcp {
				r.reported(9, b[:n], now)
			} else {
				r.receive(9, bytes.Clone(b[:n]), now)
			}
			b = b[n:]
			now += time.Millisecond
		}
	})
}

// What nobody took is a gap to who takes the rest.
func TestSinkIsToldOfWhatCameBefore(t *testing.T) {
	got := newSink()
	r := &receiving{}
	s := &sending{section: &section{}, format: format{codec: media.VP8}}
	y := &layer{line: &line{sending: s}}
	y.renew(&r.time, 1)
	hand := func(seq uint16) {
		y.buffer.push(arrival{seq: seq, timestamp: uint32(seq) * 3000, marker: true, payload: []byte{0x10}}, 0)
		r.hand(y, 0)
	}
	hand(1)
	y.sink = got
	hand(2)
	hand(3)
	if all := got.all(); len(all) != 2 || !all[0].Gap || all[1].Gap {
		t.Errorf("%+v", all)
	}
}

// What comes late of an m-line that has ended isn't taken for another's in the same
// format, which would then be lost.
func TestLatePacketsOfAnEndedLineAreDropped(t *testing.T) {
	var r receiving
	r.begin(nil, 1)
	picture := func(mid string, alone bool) *sending {
		return &sending{
			section: &section{mid: mid, media: "video"}, format: format{codec: media.VP8, pt: 96},
			layers: []string{""}, midID: 1, fromPT: alone,
		}
	}
	seqs := map[uint32]uint16{}
	packet := func(ssrc uint32, mid string) {
		seqs[ssrc]++
		p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SSRC: ssrc, SequenceNumber: seqs[ssrc], Marker: true}, Payload: []byte{0x10, byte(ssrc)}}
		if mid != "" {
			if err := p.SetExtension(1, []byte(mid)); err != nil {
				t.Fatal(err)
			}
		}
		b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		r.receive(ssrc, b, media.Now())
	}
	r.expect([]*sending{picture("0", false), picture("1", false)})
	got := newSink()
	r.layer("0", "").sink = got
	packet(10, "0")
	packet(11, "1")
	r.expect([]*sending{picture("0", true)})
	packet(11, "")
	packet(12, "1") // its RTX, say
	packet(10, "")
	for i, p := range got.all() {
		if p.Payload[1] != 10 {
			t.Errorf("packet %d is of SSRC %d", i, p.Payload[1])
		}
	}
	if n := len(got.all()); n != 2 || r.layer("0", "").ssrc != 10 {
		t.Errorf("%d packets came, the layer's SSRC is %d", n, r.layer("0", "").ssrc)
	}
	r.expect([]*sending{picture("1", true)}) // used again
	r.layer("1", "").sink = got
	packet(11, "")
	if n := len(got.all()); n != 3 {
		t.Errorf("%d packets with one of the m-line that is back", n)
	}
}
