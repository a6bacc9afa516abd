package rtc

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"gateway/internal/media"
)

// feedbackBytes is a feedback message as it is on the wire.
func feedbackBytes(base uint16, packets int, reference uint32, count uint8, chunks []uint16, deltas ...byte) []byte {
	b := []byte{0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7}
	b = binary.BigEndian.AppendUint16(b, base)
	b = binary.BigEndian.AppendUint16(b, uint16(packets))
	b = binary.BigEndian.AppendUint32(b, reference<<8|uint32(count))
	for _, c := range chunks {
		b = binary.BigEndian.AppendUint16(b, c)
	}
	b = append(b, deltas...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)/4-1))
	return b
}

func run(s symbol, n int) uint16 { return uint16(s)<<13 | uint16(n) }

// bits and pairs are status vectors of up to 14 and 7 symbols.
func bits(s ...symbol) uint16 {
	c := uint16(0x8000)
	for i, s := range s {
		c |= uint16(s) << (13 - i)
	}
	return c
}

func pairs(s ...symbol) uint16 {
	c := uint16(0xc000)
	for i, s := range s {
		c |= uint16(s) << (12 - 2*i)
	}
	return c
}

// numbered is a transport that has sent packets 1 ms apart, each of 100 bytes and its
// number mod 100 more.
type numbered struct {
	numbering
	clock time.Duration
}

func newNumbered(first uint64, packets int) *numbered {
	s := &numbered{numbering: numbering{next: first}, clock: time.Hour}
	s.send(packets)
	return s
}

func (s *numbered) send(packets int) {
	var number [2]byte
	for range packets {
		s.now = s.clock
		s.stamp(number[:], 100+int(s.next%100))
		s.clock += time.Millisecond
	}
}

// hears takes a message and tells what was reported: "number@ms", "number-" for a loss.
func (s *numbered) hears(t testing.TB, b []byte) string {
	t.Helper()
	f, ok := parseTransportFeedback(b)
	if !ok || !s.take(&f, s.clock+50*time.Millisecond) {
		return "refused"
	}
	var all []string
	for _, r := range s.reports {
		n := uint64(r.Sent-time.Hour) / uint64(time.Millisecond)
		if r.Size != 100+int((s.first()+n)%100) {
			t.Errorf("packet %d has %d bytes", n, r.Size)
		}
		if r.Received {
			all = append(all, fmt.Sprintf("%d@%s", n, strconv.FormatFloat(float64(r.Arrival)/float64(time.Millisecond), 'f', -1, 64)))
		} else {
			all = append(all, fmt.Sprintf("%d-", n))
		}
	}
	return strings.Join(all, " ")
}

// first is the number of the first packet.
func (s *numbered) first() uint64 { return s.next - uint64((s.clock-time.Hour)/time.Millisecond) }

func TestTransportFeedbackIsRead(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"a run":               {feedbackBytes(1, 3, 1, 0, []uint16{run(smallDelta, 3)}, 4, 8, 0), "1@65 2@67 3@67"},
		"a run of losses":     {feedbackBytes(0, 3, 0, 0, []uint16{run(notReceived, 2), run(smallDelta, 1)}, 40), "0- 1- 2@10"},
		"only losses":         {feedbackBytes(0, 2, 0, 0, []uint16{run(notReceived, 2)}), "0- 1-"},
		"a run too long":      {feedbackBytes(0, 2, 0, 0, []uint16{run(smallDelta, 9)}, 4, 4), "0@1 1@2"},
		"an empty run":        {feedbackBytes(0, 1, 0, 0, []uint16{run(largeDelta, 0), run(smallDelta, 1)}, 4), "0@1"},
		"one bit":             {feedbackBytes(2, 14, 0, 0, []uint16{bits(1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)}, 4, 4, 4, 4), "2@1 3- 4@2 5@3 6- 7- 8- 9- 10- 11- 12- 13- 14- 15@4"},
		"one bit, cut":        {feedbackBytes(2, 2, 0, 0, []uint16{bits(0, 1, 1, 1)}, 4), "2- 3@1"},
		"two bits":            {feedbackBytes(0, 7, 0, 0, []uint16{pairs(1, 2, 0, 2, 1, 0, 1)}, 4, 1, 0, 0xff, 0xfc, 4, 4), "0@1 1@65 2- 3@64 4@65 5- 6@66"},
		"two bits, cut":       {feedbackBytes(0, 1, 0, 0, []uint16{pairs(2, 3)}, 0xff, 0xfc), "0@-1"},
		"one after the other": {feedbackBytes(0, 10, 0, 0, []uint16{pairs(1, 0, 0, 0, 0, 0, 1), run(smallDelta, 2), bits(1)}, 4, 4, 4, 4, 4), "0@1 1- 2- 3- 4- 5- 6@2 7@3 8@4 9@5"},
		"padded":              {append(feedbackBytes(0, 1, 0, 0, []uint16{run(smallDelta, 1)}, 4), 9, 9, 9, 9), "0@1"},
		"all sent":            {feedbackBytes(18, 2, 0, 0, []uint16{run(smallDelta, 2)}, 4, 4), "18@1 19@2"},

		"one too many":      {feedbackBytes(18, 3, 0, 0, []uint16{run(smallDelta, 3)}, 4, 4, 4), "refused"},
		"never sent":        {feedbackBytes(20, 1, 0, 0, []uint16{run(smallDelta, 1)}, 4), "refused"},
		"before the first":  {feedbackBytes(65535, 1, 0, 0, []uint16{run(smallDelta, 1)}, 4), "refused"},
		"no packets":        {feedbackBytes(0, 0, 0, 0, nil), "refused"},
		"no chunk":          {feedbackBytes(0, 1, 0, 0, nil), "refused"},
		"a chunk is short":  {feedbackBytes(0, 15, 0, 0, []uint16{bits(0), run(0, 0)}), "refused"},
		"deltas are short":  {feedbackBytes(0, 4, 0, 0, []uint16{run(largeDelta, 4)}, 0, 1, 0, 1, 0, 1), "refused"},
		"reserved run":      {feedbackBytes(0, 1, 0, 0, []uint16{run(reserved, 1)}, 1, 1, 1), "refused"},
		"reserved symbol":   {feedbackBytes(0, 2, 0, 0, []uint16{pairs(1, 3)}, 1, 1, 1, 1), "refused"},
		"cut off":           {feedbackBytes(0, 3, 0, 0, []uint16{run(smallDelta, 3)}, 4, 4, 4)[:20], "refused"},
		"header only":       {[]byte{0x8f, 205, 0, 0}, "refused"},
		"length is nothing": {append([]byte{0x8f, 205, 0, 0}, make([]byte, 30)...), "refused"},
		"a NACK":            {append([]byte{0x81}, feedbackBytes(0, 1, 0, 0, []uint16{run(smallDelta, 1)}, 4)[1:]...), "refused"},
		"nothing":           {nil, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newNumbered(0, 20)
			if got := s.hears(t, c.b); got != c.want {
				t.Errorf("reported %q, want %q", got, c.want)
			}
			if c.want == "refused" && s.feedbacks != 0 {
				t.Error("what was refused counts")
			}
		})
	}
}

func TestTransportFeedbackOnceTold(t *testing.T) {
	s := newNumbered(0, 20)
	first := feedbackBytes(0, 6, 0, 0, []uint16{bits(1, 0, 0, 1, 1, 1)}, 4, 4, 4, 4)
	for _, c := range []struct {
		what string
		b    []byte
		want string
	}{
		{"first", first, "0@1 1- 2- 3@2 4@3 5@4"},
		{"the same again", first, ""},
		{"one came late", feedbackBytes(1, 7, 0, 1, []uint16{bits(1, 0, 1, 1, 1, 0, 1)}, 2, 2, 2, 2, 40), "1@0.5 6- 7@12"},
		{"after a lost one", feedbackBytes(12, 2, 1, 4, []uint16{run(smallDelta, 2)}, 0, 0), "12@64 13@64"},
		{"that was only late", feedbackBytes(8, 4, 1, 3, []uint16{run(smallDelta, 4)}, 0, 0, 0, 0), "8@64 9@64 10@64 11@64"},
	} {
		if got := s.hears(t, c.b); got != c.want {
			t.Errorf("%s: reported %q, want %q", c.what, got, c.want)
		}
	}
	if s.feedbacks != 5 || s.missed != 1 {
		t.Errorf("%d feedbacks, %d missed", s.feedbacks, s.missed)
	}
}

// A turn that took too long tells nothing of when its packets went out, but all else.
func TestTransportDoubtsATurnThatTookLong(t *testing.T) {
	s := newNumbered(0, 4)
	s.doubt(2)
	if got := s.hears(t, feedbackBytes(0, 4, 0, 0, []uint16{bits(1, 1, 1, 1)}, 4, 4, 4, 4)); got != "0@1 1@2 2@3 3@4" {
		t.Errorf("reported %q", got)
	}
	for i, r := range s.reports {
		if r.Unsure != (i >= 2) {
			t.Errorf("packet %d: %+v", i, r)
		}
	}
	s.doubt(0) // what nobody remembers too
	if got := s.outstanding(); got != 0 {
		t.Errorf("%d bytes are outstanding", got)
	}
}

func TestTransportNumbersAndTimesWrap(t *testing.T) {
	s := newNumbered(3<<16-3, 6)
	for i, c := range []struct {
		base, ref uint32
		count     uint8
		want      string
	}{
		{65533, 1<<24 - 1, 254, "0@1073741760 1@1073741760"}, // 12.4 days of the receiver's clock
		{65535, 0, 255, "2@1073741824 3@1073741824"},
		{1, 1, 0, "4@1073741888 5@1073741888"},
		{65533, 1<<24 - 1, 254, ""},
	} {
		b := feedbackBytes(uint16(c.base), 2, c.ref, c.count, []uint16{run(smallDelta, 2)}, 0, 0)
		if got := s.hears(t, b); got != c.want {
			t.Errorf("%d: reported %q, want %q", i, got, c.want)
		}
	}
	if s.missed != 0 {
		t.Errorf("%d feedbacks were missed", s.missed)
	}
	s.send(1<<16 - 100)
	if got := s.hears(t, feedbackBytes(2, 1, 2, 1, []uint16{run(smallDelta, 1)}, 0)); got != "" {
		t.Errorf("a packet that is forgotten is %q", got)
	}
	// an outage longer than what is remembered, told at once
	n := int(mostSent) + 1000
	chunks := []uint16{run(notReceived, n-1), run(smallDelta, 1)}
	if f, ok := parseTransportFeedback(feedbackBytes(uint16(s.next)-uint16(n), n, 3, 2, chunks, 0)); !ok || !s.take(&f, s.clock) || len(s.reports) > mostSent || len(s.reports) < leastSent {
		t.Errorf("%d reports of an outage", len(s.reports))
	} else if r := s.reports[len(s.reports)-1]; !r.Received || r.Sent != s.clock-time.Millisecond {
		t.Errorf("after the outage: %+v", r)
	}
}

func TestTransportRemembersWhatFeedbackMayComeFor(t *testing.T) {
	var number [2]byte
	var s numbering
	if s.sent != nil {
		t.Error("memory for nothing")
	}
	for range 10 * leastSent { // ten a second
		s.now += 100 * time.Millisecond
		s.stamp(number[:], 100)
	}
	if len(s.sent) != leastSent {
		t.Errorf("slow: remembers %d packets", len(s.sent))
	}
	for range 3000 { // a thousand a second
		s.now += time.Millisecond
		s.stamp(number[:], 100)
	}
	if len(s.sent) != 2048 {
		t.Errorf("1000 a second: remembers %d packets", len(s.sent))
	}
	oldest := s.sent[s.next&2047]
	if got, want := oldest.sentAt(s.now), s.now-2047*time.Millisecond; got != want {
		t.Errorf("the oldest was sent at %v, want %v", got, want)
	}
	for range 20 * mostSent { // as fast as it goes
		s.stamp(number[:], 100)
	}
	if len(s.sent) != mostSent {
		t.Errorf("remembers %d packets", len(s.sent))
	}
	// Memory of what is told in time doesn't grow.
	s = numbering{}
	for i := range 100 {
		s.now += 10 * time.Millisecond
		for range 100 {
			s.stamp(number[:], 100)
		}
		f, ok := parseTransportFeedback(feedbackBytes(uint16(100*i), 100, 1, uint8(i), []uint16{run(smallDelta, 100)}, make([]byte, 100)...))
		if !ok || !s.take(&f, s.now) || len(s.reports) != 100 {
			t.Fatal("feedback is refused, or not listed")
		}
	}
	if len(s.sent) != leastSent {
		t.Errorf("told in time: remembers %d packets", len(s.sent))
	}
}

func TestTransportRates(t *testing.T) {
	s := newNumbered(0, 0)
	var stats Stats
	at := func(now time.Duration) Stats { s.stats(&stats, now); return stats }
	// 1000 packets a second on average of 149.5 bytes, one of ten lost: 1.08 Mbit/s arrive
	for i := range 30 {
		s.send(100)
		var chunks []uint16
		for range 10 {
			chunks = append(chunks, run(notReceived, 1), run(smallDelta, 9))
		}
		deltas := make([]byte, 90)
		for j := range deltas {
			deltas[j] = 4
		}
		reference := uint32(1000 + 100*i/64)
		deltas[0] = byte((100*i%64 + 1) * 4) // what is left to the start of this 100 ms
		s.hears(t, feedbackBytes(uint16(100*i), 100, reference, uint8(i), chunks, deltas...))
	}
	got := at(s.clock + time.Millisecond)
	if got.AckedBps < 1_040_000 || got.AckedBps > 1_120_000 || got.TransportLoss < 0.09 || got.TransportLoss > 0.11 || got.Feedbacks != 30 {
		t.Errorf("%d bit/s, loss %.3f, %d feedbacks", got.AckedBps, got.TransportLoss, got.Feedbacks)
	}
	stats = Stats{}
	if got := at(s.clock + time.Minute); got.AckedBps != 0 || got.TransportLoss != 0 {
		t.Errorf("after a minute of silence: %d bit/s, loss %.3f", got.AckedBps, got.TransportLoss)
	}
	// clocks that jump, on and back and below nothing
	for i, delta := range [][]byte{{0x7f, 0xff}, {0x80, 0}, {0x80, 0}, {0x80, 0}} {
		s.send(1)
		for _, ref := range []uint32{0, 1 << 23, 5} {
			s.hears(t, feedbackBytes(uint16(s.next-1), 1, ref, uint8(i), []uint16{run(largeDelta, 1)}, delta...))
		}
	}
}

func TestTransportNumbersAreNegotiated(t *testing.T) {
	ctx := context.Background()
	e := newEngine(t, Options{})
	extmap := fmt.Sprintf("a=extmap:%d %s", offeredTransportID, transportURI)
	without := func(parts ...string) func(string) string {
		return func(sdp string) string {
			lines := strings.SplitAfter(sdp, "\r\n")
			return strings.Join(slices.DeleteFunc(lines, func(l string) bool {
				return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(l, part) })
			}), "")
		}
	}
	for name, c := range map[string]struct {
		change       func(string) string
		video, audio bool
	}{
		"as offered":         {func(s string) string { return s }, true, true},
		"without extension":  {without(transportURI), false, false},
		"without feedback":   {without(transportFeedback), false, false},
		"without RTX":        {without("apt=", "a=rtpmap:103"), false, false}, // sound alone would be taken for all that is sent
		"another identifier": {func(s string) string { return strings.ReplaceAll(s, extmap, "a=extmap:4 "+transportURI) }, false, false},
		"feedback for all": {func(s string) string {
			return strings.ReplaceAll(without(transportFeedback)(s), "a=mid", "a=rtcp-fb:* transport-cc\r\na=mid")
		}, true, true},
		"an identifier twice": {func(s string) string { return strings.ReplaceAll(s, "a=mid", "a=extmap:2 urn:x\r\na=mid") }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := newWHEP(t, e, videoTrack, newSource(), audioTrack, newSource())
			offer, err := v.Offer(ctx, false)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{extmap, "a=rtcp-fb:102 transport-cc", "a=rtcp-fb:111 transport-cc"} {
				if !strings.Contains(offer, line+"\r\n") {
					t.Errorf("no line %q in\n%s", line, offer)
				}
			}
			if err := v.SetAnswer(ctx, c.change(newPeer(t, peerOptions{}).answer(t, offer))); err != nil {
				t.Fatal(err)
			}
			v.sendMu.Lock()
			defer v.sendMu.Unlock()
			if video, audio := v.tracks[0].latest().number != nil, v.tracks[1].latest().number != nil; video != c.video || audio != c.audio {
				t.Errorf("video is numbered: %v, audio: %v", video, audio)
			}
		})
	}
}

func TestOfferOfAPeerIsAnsweredWithItsOwnExtensions(t *testing.T) {
	e := newEngine(t, Options{})
	p := newPeer(t, peerOptions{})
	receiveOnly(t, p, webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio)
	offer := whepOffer(t, p)
	for _, id := range []int{5, 14, 15, 0} {
		text := offer
		for old := range 15 {
			text = strings.ReplaceAll(text, fmt.Sprintf("a=extmap:%d %s", old, transportURI), fmt.Sprintf("a=extmap:%d %s", id, transportURI))
		}
		v := newWHEP(t, e, videoTrack, newSource(), audioTrack, newSource())
		answer, err := v.Answer(context.Background(), text)
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		if id >= 1 && id <= 14 { // one-byte headers
			want = 2
		}
		if n := strings.Count(answer, fmt.Sprintf("a=extmap:%d %s\r\n", id, transportURI)); n != want {
			t.Errorf("extension %d is answered %d times, want %d:\n%s", id, n, want, answer)
		}
		if n := strings.Count(answer, transportFeedback); n != want {
			t.Errorf("extension %d: the feedback is answered %d times, want %d", id, n, want)
		}
	}
}

// Runs of equal size are what the kernel cuts a batch into.
func TestHeadersOfAnEncodingHaveOneSize(t *testing.T) {
	src, w := newSource(), &recorder{}
	src.push(true, 3)
	for range 5 {
		src.push(false, 3)
	}
	tr := playing(newWHEP(t, newEngine(t, Options{})), videoTrack, src, format{pt: 102, rtx: 103, delayID: 1, transportID: 2, captureID: 3}, w)
	var scratch []byte
	for _, p := range src.packets {
		if err := tr.write(p); err != nil {
			t.Fatal(err)
		}
	}
	for i := range src.packets {
		if ok, err := tr.resend(w.headers[i].SequenceNumber, media.Now(), &scratch); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	for i, h := range w.headers {
		key, last := i%18 < 3, i%18 == 2
		size := 12 + 4 + 4
		if last {
			size = 12 + 4 + 16
		} else if key {
			size = 12 + 4 + 8
		}
		if h.MarshalSize() != size || (h.GetExtension(1) != nil) != key || (h.GetExtension(3) != nil) != last {
			t.Errorf("packet %d has a header of %d bytes and playout delay %v", i, h.MarshalSize(), h.GetExtension(1))
		}
		if n := binary.BigEndian.Uint16(h.GetExtension(2)); n != uint16(i) {
			t.Errorf("packet %d is number %d", i, n)
		}
		if got := tr.viewer.numbering.sent[i].size; int(got) != size+len(w.payloads[i]) {
			t.Errorf("packet %d counts %d bytes", i, got)
		}
	}
}

// Only keyframes tell of the playout delay, so one is asked for when it changes.
func TestAnotherPlayoutDelayComesWithAKeyframe(t *testing.T) {
	video := newSource()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, video)
	s.connect(t)
	video.push(true, 2)
	video.push(false, 2)
	for i := range 4 {
		if ext := s.peer.next(t).GetExtension(offeredDelayID); i < 2 && string(ext) != string(atOnce) || i >= 2 && ext != nil {
			t.Errorf("packet %d has playout delay %v", i, ext)
		}
	}
	for len(video.asked) > 0 {
		<-video.asked
	}
	s.negotiate(t, false)
	if len(video.asked) > 0 {
		t.Error("a keyframe is asked for although nothing changes")
	}
	if err := s.AddTrack("audio", audioTrack, "desk", newSource()); err != nil {
		t.Fatal(err)
	}
	s.negotiate(t, false)
	receive(t, video.asked, "the request for a keyframe")
	video.push(true, 1)
	if ext := s.peer.next(t).GetExtension(offeredDelayID); string(ext) != string(withSound) {
		t.Errorf("with sound the playout delay is %v", ext)
	}
}

// A real receiver tells of each packet: video, sound, and what is sent again.
func TestTransportFeedbackOfAPeer(t *testing.T) {
	var mu sync.Mutex
	var arrivals []time.Duration
	losses, bytes := 0, 0
	video, audio := newSource(), newSource()
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, video, audioTrack, audio)
	s.heard = func(reports []media.PacketReport) {
		mu.Lock()
		defer mu.Unlock()
		last := time.Duration(0)
		for _, r := range reports {
			if r.Sent < last || r.Sent > media.Now() {
				t.Errorf("sent at %v, the one before at %v", r.Sent, last)
			}
			last = r.Sent
			if !r.Received {
				losses++
				continue
			}
			bytes += r.Size
			arrivals = append(arrivals, r.Arrival-r.Sent)
		}
	}
	s.connect(t)
	loss := &lossy{dice: rand.New(rand.NewPCG(1, 2))}
	s.sendMu.Lock()
	loss.TrackLocalWriter, s.tracks[0].out = s.tracks[0].out, loss
	s.sendMu.Unlock()
	video.run(t, 60, 5)
	audio.run(t, 50, 1)
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		st := s.Stats()
		return losses > 20 && len(arrivals) > 1000 && st.AckedBps > 0 && st.TransportLoss > 0 && st.TransportLoss < 0.5
	}
	for deadline := time.Now().Add(30 * time.Second); !enough(); {
		if time.Now().After(deadline) {
			t.Fatalf("%d losses, %d arrivals; %+v", losses, len(arrivals), s.Stats())
		}
		s.peer.next(t)
	}
	st := s.Stats()
	s.Close()
	mu.Lock()
	defer mu.Unlock()
	// Some are told lost that only come later: the peer reads RTX by another goroutine.
	if lost := int(loss.lost.Load()); losses > 3*lost || losses < lost/2 {
		t.Errorf("%d are told lost, %d were", losses, lost)
	}
	if st.Retransmitted == 0 || st.Feedbacks < 5 {
		t.Errorf("statistics %+v", st)
	}
	if mean := bytes / len(arrivals); mean < 700 || mean > 1020 {
		t.Errorf("packets of %d bytes on average", mean)
	}
	// Both clocks run alike: what differs is the way, in this process.
	if spread := slices.Max(arrivals) - slices.Min(arrivals); spread > 5*time.Second {
		t.Errorf("ways differ by %v", spread)
	}
}

// Feedback names any SSRC of the transport, or none.
func TestTransportFeedbackForAnySSRC(t *testing.T) {
	src := newSource()
	told := make(chan int, 10)
	s := newSession(t, newEngine(t, Options{}), peerOptions{media: func(m *webrtc.MediaEngine) error {
		if err := m.RegisterDefaultCodecs(); err != nil {
			return err
		}
		m.RegisterFeedback(webrtc.RTCPFeedback{Type: transportFeedback}, webrtc.RTPCodecTypeVideo)
		return m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: transportURI}, webrtc.RTPCodecTypeVideo)
	}, silent: true}, videoTrack, src)
	s.heard = func(r []media.PacketReport) { told <- len(r) }
	s.connect(t)
	src.push(true, 6)
	for range 6 {
		s.peer.next(t)
	}
	tr := s.tracks[0]
	for i, ssrc := range []uint32{tr.ssrc, tr.rtxSSRC, 0, tr.ssrc + 1} {
		b := feedbackBytes(uint16(i), 1, 1, uint8(i), []uint16{run(smallDelta, 1)}, 1)
		binary.BigEndian.PutUint32(b[8:], ssrc)
		p := rtcp.RawPacket(b)
		var cc rtcp.TransportLayerCC
		if err := cc.Unmarshal(p); err != nil {
			t.Fatal(err)
		}
		if err := s.peer.pc.WriteRTCP([]rtcp.Packet{&cc}); err != nil {
			t.Fatal(err)
		}
		if n := receive(t, told, fmt.Sprintf("feedback on SSRC %d", ssrc)); n != 1 {
			t.Errorf("SSRC %d: %d reports", ssrc, n)
		}
	}
}

// What pion's receiver writes is read, whatever is lost and overtaken.
func TestTransportFeedbackAsPionWritesIt(t *testing.T) {
	dice := rand.New(rand.NewPCG(3, 4))
	s := newNumbered(0, 0)
	recorder := twcc.NewRecorder(1)
	state := map[uint64]bool{}
	var late []uint64
	reported := map[uint64]bool{}
	for range 500 {
		from := s.next
		s.send(1 + dice.IntN(60))
		for n := from; n < s.next; n++ {
			switch dice.IntN(10) {
			case 0:
			case 1:
				late = append(late, n)
			default:
				state[n] = true
				recorder.Record(7, uint16(n), int64(n)*1000+int64(dice.IntN(30_000)))
			}
		}
		if dice.IntN(2) == 0 && len(late) > 0 {
			n := late[0]
			late = late[1:]
			state[n] = true
			recorder.Record(7, uint16(n), int64(s.next)*1000)
		}
		for _, p := range recorder.BuildFeedbackPacket() {
			b, err := p.(*rtcp.TransportLayerCC).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if got := s.hears(t, b); got == "refused" {
				t.Fatalf("refused: %v", p)
			}
			for _, r := range s.reports {
				reported[uint64((r.Sent-time.Hour)/time.Millisecond)] = r.Received
			}
		}
	}
	wrong := 0
	for n := range s.next {
		if was, told := reported[n]; told && was && !state[n] {
			wrong++
		}
	}
	if wrong > 0 || len(reported) < int(s.next)*9/10 {
		t.Errorf("%d of %d packets reported, %d wrong", len(reported), s.next, wrong)
	}
}

func FuzzTransportFeedback(f *testing.F) {
	f.Add(feedbackBytes(1, 3, 1, 0, []uint16{run(smallDelta, 3)}, 4, 8, 0))
	f.Add(feedbackBytes(0, 10, 0, 0, []uint16{pairs(1, 0, 2, 0, 0, 0, 1), run(smallDelta, 2), bits(1)}, 4, 4, 4, 4, 4, 4))
	f.Add(feedbackBytes(65530, 8191, 1<<24-1, 255, []uint16{run(notReceived, 8190), run(largeDelta, 1)}, 0x80, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parseTransportFeedback(b)
		s := newNumbered(70_000, 300)
		if ok {
			s.take(&m, s.clock)
			s.take(&m, s.clock)
			if len(s.reports) > 0 {
				t.Errorf("%d reports of what was told", len(s.reports))
			}
			s.stats(&Stats{}, s.clock)
		}
		var p rtcp.TransportLayerCC
		if err := p.Unmarshal(b); err != nil || b[0]>>6 != 2 || p.PacketStatusCount == 0 {
			return
		}
		var symbols []symbol
		for _, c := range p.PacketChunks {
			switch c := c.(type) {
			case *rtcp.RunLengthChunk:
				for range c.RunLength {
					symbols = append(symbols, symbol(c.PacketStatusSymbol))
				}
			case *rtcp.StatusVectorChunk:
				for _, s := range c.SymbolList {
					symbols = append(symbols, symbol(s))
				}
			}
		}
		symbols = symbols[:p.PacketStatusCount]
		if slices.Contains(symbols, reserved) {
			if ok {
				t.Fatal("a reserved symbol is taken")
			}
			return
		}
		if !ok {
			t.Fatalf("pion takes %x", b)
		}
		if m.base != p.BaseSequenceNumber || m.packets != int(p.PacketStatusCount) || m.reference != p.ReferenceTime || m.count != p.FbPktCount {
			t.Fatalf("%+v, pion has %v", m, p)
		}
		s = newNumbered(uint64(m.base)+1<<16, m.packets)
		if !s.take(&m, s.clock) {
			t.Fatal("refused")
		}
		at, i, forgotten := int64(m.reference)*256, 0, max(0, len(symbols)-len(s.sent))
		for j, symbol := range symbols {
			if symbol != notReceived {
				at += p.RecvDeltas[i].Delta / 250
				i++
			}
			if j < forgotten {
				continue
			}
			r := s.reports[j-forgotten]
			if r.Received != (symbol != notReceived) || r.Received && r.Arrival != time.Duration(at)*deltaUnit {
				t.Fatalf("packet %d is %+v, pion has %v at %d", j, r, symbol, at)
			}
		}
	})
}

func BenchmarkTransportFeedback(b *testing.B) {
	const packets = 100
	for name, c := range map[string]struct {
		chunks []uint16
		deltas int
	}{
		"run":    {[]uint16{run(smallDelta, packets)}, packets},
		"vector": {slices.Repeat([]uint16{pairs(1, 1, 0, 2, 1, 1, 1)}, packets/7+1), packets},
	} {
		b.Run(name, func(b *testing.B) {
			s := newNumbered(0, packets)
			msg := feedbackBytes(0, packets, 0, 0, c.chunks, make([]byte, c.deltas)...)
			b.ReportAllocs()
			for b.Loop() {
				for i := range s.sent {
					s.sent[i].fate = awaited
				}
				f, ok := parseTransportFeedback(msg)
				if !ok || !s.take(&f, s.clock) || len(s.reports) != packets {
					b.Fatal("refused")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/packets, "ns/packet")
		})
	}
}

// BenchmarkStamp is what a number costs a packet.
func BenchmarkStamp(b *testing.B) {
	var s numbering
	var number [2]byte
	b.ReportAllocs()
	for b.Loop() {
		s.now += time.Microsecond
		s.stamp(number[:], 1200)
	}
}
