package rtc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gateway/internal/media"
)

// payloads lists what an offer says of each payload type, one text for each m-line
// that has it.
func payloads(offer string) map[string][]string {
	said := map[string][]string{}
	for _, section := range strings.Split(offer, "\r\nm=")[1:] {
		here := map[string]string{}
		for _, line := range strings.Split(section, "\r\n") {
			for _, key := range []string{"a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"} {
				if rest, ok := strings.CutPrefix(line, key); ok {
					pt, value, _ := strings.Cut(rest, " ")
					here[pt] += key + value + "\n"
				}
			}
		}
		for pt, text := range here {
			said[pt] = append(said[pt], text)
		}
	}
	return said
}

// Payload types are few: streams in one codec share them, and say the same of them,
// also where one has a higher level, or when that changes.
func TestPayloadTypesAreSharedByTracks(t *testing.T) {
	s := newSession(t, newEngine(t, Options{}), peerOptions{})
	high := strings.Replace(h264Fmtp, "42e01f", "42e028", 1)
	main := strings.Replace(h264Fmtp, "42e01f", "4d001f", 1)
	var slots []string
	for i := range 24 {
		video, audio := videoTrack, audioTrack
		switch i % 3 {
		case 1:
			video.Fmtp = high
		case 2:
			video.Fmtp = main
		}
		if i%2 == 1 {
			audio.Fmtp += ";stereo=1;sprop-stereo=1"
		}
		video.Name, audio.Name = fmt.Sprint("video-", i), fmt.Sprint("audio-", i)
		for _, track := range []media.Track{video, audio} {
			if err := s.AddTrack(track.Name, track, fmt.Sprint("stream-", i), newSource()); err != nil {
				t.Fatal(err)
			}
			slots = append(slots, track.Name)
		}
	}
	check := func(offer string) {
		t.Helper()
		said := payloads(offer)
		for pt, texts := range said {
			slices.Sort(texts)
			if different := slices.Compact(slices.Clone(texts)); len(different) != 1 {
				t.Errorf("payload type %s is %q", pt, different)
			}
		}
		if len(said) != 5 { // two of H.264 with their RTX, and Opus
			t.Errorf("%d payload types", len(said))
		}
		if len(offer) > MaxSDP*3/4 { // of 24 streams; 32 have room too
			t.Errorf("the offer has %d bytes", len(offer))
		}
	}
	offer := s.connect(t)
	check(offer)
	mids := map[string]bool{}
	for _, slot := range slots {
		mids[s.Mid(slot)] = true
	}
	if len(mids) != len(slots) || mids[""] {
		t.Errorf("%d m-lines of %d tracks", len(mids), len(slots))
	}
	if s.SetFmtp("video-0", strings.Replace(h264Fmtp, "42e01f", "42e033", 1)) {
		t.Error("a level needs an offer")
	}
	check(s.negotiate(t, false))
	// a track in a profile that another m-line has taken needs an offer, but no payload type
	if offer, err := s.Replace("video-0", media.Track{Name: "other", Kind: media.Video, Codec: media.H264, Fmtp: main}, newSource()); err != nil || !offer {
		t.Errorf("another profile: %v %v", offer, err)
	}
	check(s.negotiate(t, false))
}

func TestTracksOfAViewerAreLimited(t *testing.T) {
	s := newSession(t, newEngine(t, Options{}), peerOptions{})
	add := func(i int) error {
		src := newSource()
		err := s.AddTrack(fmt.Sprint("video-", i), videoTrack, "desk", src)
		if err != nil && !src.isClosed() {
			t.Error("the source of a refused track stays open")
		}
		return err
	}
	for i := range maxTracksViewer {
		if err := add(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := add(maxTracksViewer); !errors.Is(err, ErrTooManyTracks) {
		t.Errorf("one more: %v", err)
	}
	if err := s.Remove("video-0"); err != nil {
		t.Fatal(err)
	}
	if err := add(maxTracksViewer); err != nil {
		t.Errorf("in the place of another: %v", err)
	}
}

// Of several pictures some may be in a codec that the peer hasn't: they end alone.
func TestAnswerMayRefuseSomePictures(t *testing.T) {
	s := newSession(t, newEngine(t, Options{}), peerOptions{})
	good, bad := newSource(), newSource()
	for _, x := range []struct {
		slot  string
		track media.Track
		src   *fakeSource
	}{{"video", videoTrack, good}, {"video-2", vp8Track, bad}} {
		if err := s.AddTrack(x.slot, x.track, "desk", x.src); err != nil {
			t.Fatal(err)
		}
	}
	offer, err := s.Offer(context.Background(), false)
	if err != nil {
		t.Fatal(err)
	}
	answer := strings.ReplaceAll(s.peer.answer(t, offer), "VP8/90000", "VP7/90000")
	var declined *DeclinedError
	if err := s.SetAnswer(context.Background(), answer); !errors.As(err, &declined) || !slices.Equal(declined.Refused, []string{"video-2"}) || len(declined.Slots) != 0 {
		t.Fatalf("answer: %v", err)
	}
	if good.isClosed() || !bad.isClosed() {
		t.Error("the wrong picture ended")
	}
	if s.Mid("video") == "" || s.Mid("video-2") != "" {
		t.Errorf("m-lines %q and %q", s.Mid("video"), s.Mid("video-2"))
	}
	s.await(t, StateConnected)
	good.run(t, 30, 2)
	s.peer.next(t)
}

// What takes the place of a track before the peer has heard of it isn't sent as that.
func TestTrackInAnothersPlaceWaitsForItsOffer(t *testing.T) {
	first, second := newMarked('a'), newMarked('b')
	s := newSession(t, newEngine(t, Options{}), peerOptions{}, videoTrack, first)
	ctx := context.Background()
	offer, err := s.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("video"); err != nil {
		t.Fatal(err)
	}
	if err := s.AddTrack("video-2", videoTrack, "garden", second); err != nil {
		t.Fatal(err)
	}
	second.run(t, 30, 2)
	if err := s.SetAnswer(ctx, s.peer.answer(t, offer)); err != nil {
		t.Fatal(err)
	}
	s.await(t, StateConnected)
	if !s.OfferDue() {
		t.Error("nothing is to be offered")
	}
	if n := s.Stats().Packets; n != 0 {
		t.Errorf("%d packets were sent under another's name", n)
	}
	if offer := s.negotiate(t, false); !strings.Contains(offer, "a=msid:garden video-2") {
		t.Errorf("offered is\n%s", offer)
	}
	s.until(t, 'b')
}

// What is put on an m-line that was inactive reaches the peer, however often and in
// whichever codec.
func TestTrackOnAFreeMLineReachesThePeer(t *testing.T) {
	s := newSession(t, newEngine(t, Options{}), peerOptions{})
	stays := newMarked('s')
	if err := s.AddTrack("stays", videoTrack, "hall", stays); err != nil {
		t.Fatal(err)
	}
	stays.run(t, 60, 2)
	s.connect(t)
	mid := ""
	for i, spec := range []media.Track{videoTrack, vp8Track, videoTrack} {
		mark := byte('a' + i)
		src, slot := newMarked(mark), fmt.Sprint("video-", i)
		if err := s.AddTrack(slot, spec, slot, src); err != nil {
			t.Fatal(err)
		}
		src.run(t, 60, 2)
		s.negotiate(t, false)
		if at := s.Mid(slot); mid != "" && at != mid {
			t.Errorf("it is on m-line %s, %s was free", at, mid)
		} else {
			mid = at
		}
		s.until(t, mark)
		if err := s.Remove(slot); err != nil {
			t.Fatal(err)
		}
		s.negotiate(t, false)
		s.until(t, 's')
	}
}
