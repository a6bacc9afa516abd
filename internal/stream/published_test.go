package stream

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"gateway/internal/media"
)

var (
	publishedVideo = media.Track{Name: "video", Kind: media.Video, Codec: media.VP8}
	publishedAudio = media.Track{Name: "audio", Kind: media.Audio, Codec: media.Opus}
)

// vp8Packet is one packet of a frame, as browsers write it: with a picture number.
func vp8Packet(timestamp uint32, first, last, key bool, fill byte) media.Received {
	p := []byte{0x80, 0x80, byte(timestamp) & 0x7f}
	if first {
		p[0] |= 0x10
		tag := byte(1)
		if key {
			tag = 0
		}
		p = append(p, tag, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00) // 320×180
	}
	at := media.Now()
	return media.Received{
		Payload: append(p, fill, fill, fill), Timestamp: timestamp, Marker: last,
		Capture: time.Hour + time.Duration(timestamp)*time.Second/90000, Arrived: at,
	}
}

func newPublished(t *testing.T, tracks ...PublishedTrack) *Published {
	t.Helper()
	p := NewPublished("ann-camera", "Camera", tracks, nil, slog.Default())
	t.Cleanup(func() { p.Close() })
	return p
}

// due takes what is due, and copies the payloads.
func due(sub *Subscription) (packets []media.Packet, payloads [][]byte) {
	for _, p := range sub.Next(make([]media.Packet, 0, 100)) {
		payloads = append(payloads, bytes.Clone(p.Payload()))
		packets = append(packets, p)
		p.Release()
	}
	return packets, payloads
}

func TestPublishedPacketsReachSubscriptions(t *testing.T) {
	asked := make(chan struct{}, 10)
	p := newPublished(t,
		PublishedTrack{Track: publishedAudio},
		PublishedTrack{Track: publishedVideo, RequestKeyframe: func() { asked <- struct{}{} }})
	if s := p.Info().State; s != Starting {
		t.Errorf("before anything has come it is %s", s)
	}
	feed := p.Feed("video")
	feed.Receive([]media.Received{vp8Packet(0, true, true, true, 1)})
	sub, err := p.Subscribe("video")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	feed.Receive([]media.Received{vp8Packet(3000, true, false, true, 2)})
	feed.Receive([]media.Received{vp8Packet(3000, false, true, true, 3), vp8Packet(6000, true, true, false, 4)})
	packets, payloads := due(sub)
	if len(payloads) != 3 {
		t.Fatalf("%d packets are due", len(payloads))
	}
	for i, fill := range []byte{2, 3, 4} {
		if p := payloads[i]; p[0]&0x80 != 0 || !bytes.HasSuffix(p, []byte{fill, fill, fill}) {
			t.Errorf("packet %d: % x", i, p)
		}
	}
	if !packets[0].Start || packets[1].Start || !packets[2].Start {
		t.Errorf("frames begin at %v, %v, %v", packets[0].Start, packets[1].Start, packets[2].Start)
	}
	tracks, err := p.Tracks(context.Background())
	if err != nil || tracks[0].Name != "video" || tracks[0].Width != 320 || tracks[0].Height != 180 {
		t.Errorf("tracks %+v, %v", tracks, err)
	}

	// a loss: nothing until a keyframe, which is asked for
	lost := vp8Packet(9000, true, true, false, 5)
	lost.Gap = true
	feed.Receive([]media.Received{lost})
	if _, payloads := due(sub); len(payloads) != 0 {
		t.Errorf("%d packets are due after a loss", len(payloads))
	}
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Fatal("no keyframe was asked for")
	}
	feed.Receive([]media.Received{vp8Packet(12000, true, true, false, 6), vp8Packet(15000, true, true, true, 7)})
	if _, payloads := due(sub); len(payloads) != 1 || payloads[0][len(payloads[0])-1] != 7 {
		t.Errorf("after the keyframe % x is due", payloads)
	}
}

// A keyframe whose first packet is lost is none, though its rest tells that it is one.
func TestPublishedKeyframeNeedsItsBeginning(t *testing.T) {
	p := newPublished(t, PublishedTrack{Track: media.Track{Name: "video", Kind: media.Video, Codec: media.H264}})
	sub, err := p.Subscribe("video")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	nal := func(timestamp uint32, gap, last bool, payload ...byte) media.Received {
		return media.Received{Payload: payload, Timestamp: timestamp, Marker: last, Gap: gap, Arrived: media.Now()}
	}
	feed := p.Feed("video")
	feed.Receive([]media.Received{nal(0, false, true, 0x61, 1), nal(3000, true, false, 0x65, 1), nal(3000, false, true, 0x65, 2)})
	if _, payloads := due(sub); len(payloads) != 0 {
		t.Errorf("a keyframe without its parameter sets is due: % x", payloads)
	}
	feed.Receive([]media.Received{nal(6000, false, false, 0x67, 1), nal(6000, false, true, 0x65, 2)})
	if _, payloads := due(sub); len(payloads) != 2 {
		t.Errorf("of a whole keyframe % x is due", payloads)
	}
}

// Sound goes on after a loss.
func TestPublishedSoundGoesOnAfterALoss(t *testing.T) {
	p := newPublished(t, PublishedTrack{Track: publishedAudio})
	sub, err := p.Subscribe("audio")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	for i := range uint32(10) {
		p.Feed("audio").Receive([]media.Received{{
			Payload: []byte{1, byte(i)}, Timestamp: i * 960, Gap: i == 5, Capture: time.Duration(i) * 20 * time.Millisecond, Arrived: media.Now(),
		}})
		if _, payloads := due(sub); len(payloads) != 1 || payloads[0][1] != byte(i) {
			t.Fatalf("packet %d: % x", i, payloads)
		}
	}
}

func TestPublishedMuteDropsAtTheGateway(t *testing.T) {
	p := newPublished(t, PublishedTrack{Track: publishedAudio})
	sub, err := p.Subscribe("audio")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	feed := p.Feed("audio")
	send := func(n uint32) {
		feed.Receive([]media.Received{{Payload: []byte{byte(n)}, Timestamp: n * 960, Arrived: media.Now()}})
	}
	p.Mute(media.Audio, true)
	send(1)
	if _, payloads := due(sub); len(payloads) != 0 {
		t.Error("sound of who is muted is passed on")
	}
	p.Mute(media.Audio, false)
	send(2)
	if _, payloads := due(sub); len(payloads) != 1 || payloads[0][0] != 2 {
		t.Errorf("afterwards: % x", payloads)
	}
}

// A simulcast layer that stops is offered no more, until it comes again.
func TestPublishedLayerThatStopsIsNotOffered(t *testing.T) {
	low, high := publishedVideo, publishedVideo
	low.Name, high.Name = "q", "f"
	p := newPublished(t, PublishedTrack{Track: low}, PublishedTrack{Track: high})
	await := func(n int, what string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		changed := make(chan struct{}, 1)
		defer p.Watch(func(Info) { signal(changed) })()
		for i := uint32(0); ; i++ {
			p.Feed("q").Receive([]media.Received{vp8Packet(i*3000, true, true, true, 1)})
			if n == 2 {
				p.Feed("f").Receive([]media.Received{vp8Packet(i*3000, true, true, true, 1)})
			}
			if tracks, err := p.Tracks(context.Background()); err != nil {
				t.Fatal(err)
			} else if len(tracks) == n && p.Info().State == Live {
				return
			}
			select {
			case <-changed:
			case <-time.After(50 * time.Millisecond):
			case <-deadline:
				t.Fatal(what)
			}
		}
	}
	await(2, "both layers come")
	sub, err := p.Subscribe("f")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	await(1, "one layer has stopped")
	if p.Current(sub) {
		t.Error("who reads the layer that has stopped isn't told")
	}
	await(2, "it has come again")
	if !p.Current(sub) {
		t.Error("it isn't current again")
	}
}

func TestPublishedIsAbsentWhileItsPublisherIsAway(t *testing.T) {
	p := newPublished(t, PublishedTrack{Track: publishedVideo})
	p.Feed("video").Receive([]media.Received{vp8Packet(0, true, true, true, 1)})
	p.Away("the publisher's connection is interrupted")
	if i := p.Info(); i.State != Absent || i.Reason == "" {
		t.Errorf("it is %s: %s", i.State, i.Reason)
	}
	p.Away("")
	if s := p.Info().State; s != Live {
		t.Errorf("afterwards it is %s", s)
	}
}

// Whoever watched a publisher whose connection was interrupted saw his last picture for
// half a minute, as if it were live.
func TestViewersOfAPublisherWhoIsAwaySeeACard(t *testing.T) {
	before := media.LiveBuffers()
	asked := make(chan struct{}, 10)
	tracks := []PublishedTrack{{Track: publishedVideo, RequestKeyframe: func() { asked <- struct{}{} }}, {Track: publishedAudio}}
	b := newBench()
	b.draws(drawing)
	p := NewPublished("ann-camera", "Ann camera", tracks, b.Placeholder, slog.Default())
	defer p.Close()
	sub, err := p.Subscribe("video")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	viewer := &audience{sub, make(chan struct{}, 1)}
	viewer.Notify(func() { signal(viewer.due) })
	feed := p.Feed("video")
	feed.Receive([]media.Received{vp8Packet(0, true, true, true, 1)})
	live := viewer.next(t, 1)[0]
	p.Away("the publisher's connection is interrupted")
	seen := ""
	for _, packet := range viewer.next(t, 4) {
		if seen += packet.payload; !packet.placeholder || packet.capture < live.capture {
			t.Errorf("seen %+v", packet)
		}
	}
	if seen != "abcd" {
		t.Errorf("seen %q", seen)
	}
	if i := p.Info(); i.State != Absent || !i.Placeholder {
		t.Errorf("%+v", i)
	}
	card := b.asked()[0]
	if card.Last != nil { // it is a stranger's
		t.Error("the publisher's picture is decoded")
	}
	if card.Title != "Ann camera" || card.Text == "" || card.Codec != media.VP8 || card.Width != 320 || card.Height != 180 || len(card.Launches) == 0 {
		t.Errorf("%+v", card)
	}

	p.Away("")
	feed.Receive([]media.Received{vp8Packet(900000, true, true, false, 2)}) // follows nothing that is seen
	receive(t, asked, "keyframe request")
	feed.Receive([]media.Received{vp8Packet(903000, true, true, true, 3)})
	packet := viewer.next(t, 1)[0]
	for ; packet.placeholder; packet = viewer.next(t, 1)[0] {
	}
	if packet.payload[len(packet.payload)-1] != 3 {
		t.Errorf("afterwards %x is seen first", packet.payload)
	}
	if i := p.Info(); i.State == Closed || i.Placeholder { // after long silence it is live at the next look
		t.Errorf("%+v", i)
	}
	if c := p.Counts()["video"]; c.Frames != 3 || c.Placeholders < 2 {
		t.Errorf("%+v", c)
	}
	sub.Close()
	p.Close()
	if now := media.LiveBuffers(); now != before {
		t.Errorf("%d buffers are left", now-before)
	}
}

// What a publisher says of his picture's size isn't what a placeholder may cost, and what is
// muted or hasn't begun isn't missed.
func TestPublisherDoesNotSayHowLargeACardIs(t *testing.T) {
	p := newPublished(t, PublishedTrack{Track: publishedVideo})
	sub, err := p.Subscribe("video")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	later := media.Now() + time.Minute
	if all, watched := p.gone(later); len(all) != 0 || !watched {
		t.Errorf("before anything has come: %+v, watched %v", all, watched)
	}
	feed := p.Feed("video")
	feed.Receive([]media.Received{vp8Packet(0, true, true, true, 1)})
	feed.become(func(t *media.Track) { t.Width, t.Height = 15360, 8640 })
	heard := func() time.Duration { return time.Duration(feed.heard.Load()) }
	if all, _ := p.gone(heard() + publishedAbsent/2); len(all) != 0 {
		t.Errorf("after %v: %+v", publishedAbsent/2, all)
	}
	all, _ := p.gone(later)
	if len(all) != 1 || all[0].track.Width != 960 || all[0].track.Height != 540 || !all[0].card {
		t.Errorf("%+v", all)
	}
	p.Mute(media.Video, true)
	feed.Receive([]media.Received{vp8Packet(3000, true, true, false, 1)})
	if all, _ := p.gone(heard() + 2*time.Second); len(all) != 0 {
		t.Errorf("muted: %+v", all)
	}
}

// The stream's end is told, and its memory given back.
func TestPublishedEnds(t *testing.T) {
	before := media.LiveBuffers()
	p := newPublished(t, PublishedTrack{Track: publishedVideo})
	for i := range uint32(3000) {
		p.Feed("video").Receive([]media.Received{vp8Packet(i*3000, true, true, i%100 == 0, 1)})
	}
	sub, err := p.Subscribe("video")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan State, 10)
	p.Watch(func(i Info) { told <- i.State })
	p.Close()
	if s := <-told; s != Closed {
		t.Errorf("told %s", s)
	}
	if _, err := p.Tracks(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("tracks: %v", err)
	}
	if _, err := p.Subscribe("video"); !errors.Is(err, ErrClosed) {
		t.Errorf("subscribe: %v", err)
	}
	if _, payloads := due(sub); len(payloads) != 0 {
		t.Error("something is due after the end")
	}
	sub.Close()
	if now := media.LiveBuffers(); now != before {
		t.Errorf("%d buffers are left", now-before)
	}
}

// Tracks that stay go on for those who read them when others come and go.
func TestPublishedRearranges(t *testing.T) {
	p := newPublished(t, PublishedTrack{Track: publishedVideo})
	sub, err := p.Subscribe("video")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	p.Rearrange([]PublishedTrack{{Track: publishedVideo}, {Track: publishedAudio}})
	if tracks, _ := p.Tracks(context.Background()); len(tracks) != 2 || !p.Current(sub) {
		t.Errorf("tracks %+v, current %v", tracks, p.Current(sub))
	}
	other := publishedVideo
	other.Codec = media.H264
	p.Rearrange([]PublishedTrack{{Track: other}})
	if tracks, _ := p.Tracks(context.Background()); len(tracks) != 1 || tracks[0].Codec != media.H264 || p.Current(sub) {
		t.Errorf("tracks %+v, current %v", tracks, p.Current(sub))
	}
}

// What is muted isn't asked for keyframes, that nobody would get; after that it is.
func TestMutedPublisherIsNotAskedForKeyframes(t *testing.T) {
	asked := 0
	p := newPublished(t, PublishedTrack{Track: publishedVideo})
	p.Close() // its goroutine
	p = &Published{log: p.log, muted: make(map[media.Kind]bool), notice: newNotice(), wish: make(chan struct{}, 1)}
	p.Rearrange([]PublishedTrack{{Track: publishedVideo, RequestKeyframe: func() { asked++ }}})
	feed := p.Feed("video")
	feed.Receive([]media.Received{vp8Packet(0, true, true, false, 1)})
	sub, err := p.Subscribe("video")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	due(sub)
	p.Mute(media.Video, true)
	if again := p.askKeyframes(); again != 0 || asked != 0 {
		t.Errorf("muted, it is asked %d times, and again after %v", asked, again)
	}
	p.Mute(media.Video, false)
	if p.askKeyframes(); asked != 1 {
		t.Errorf("afterwards it is asked %d times", asked)
	}
}
