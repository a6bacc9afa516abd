package rtc

import (
	"testing"
	"time"

	"github.com/pion/rtcp"

	"gateway/internal/media"
)

// told is a receiver report of a round trip to one track.
func (v *Viewer) told(t *track, rtt time.Duration) []byte {
	sent := uint32(v.ntp(media.Now()-rtt) >> 16)
	b, _ := (&rtcp.ReceiverReport{Reports: []rtcp.ReceptionReport{{SSRC: t.ssrc, LastSenderReport: sent}}}).Marshal()
	return b
}

// A round trip that was long once, or that of a track that sends nothing any more, isn't
// the viewer's for good.
func TestRoundTripIsTheLatestOne(t *testing.T) {
	v := newWHEP(t, newEngine(t, Options{}))
	picture := playing(v, videoTrack, newSource(), format{pt: 102}, &counter{})
	sound := playing(v, audioTrack, newSource(), format{pt: 111}, &counter{})
	v.sendMu.Lock()
	v.tracks = []*track{picture, sound}
	v.sendMu.Unlock()
	between := func(least, most time.Duration) {
		t.Helper()
		least -= time.Millisecond // the report counts in 65536ths of a second
		if rtt := v.Stats().RTT; rtt < least || rtt > most {
			t.Errorf("the round trip is %v, not between %v and %v", rtt, least, most)
		}
	}
	sound.receive(v.told(sound, 8*time.Second))
	between(8*time.Second, maxRTT)
	picture.receive(v.told(picture, 20*time.Millisecond))
	between(20*time.Millisecond, 4*time.Second)
	sound.drop()
	sound.receive(v.told(sound, 8*time.Second))
	between(20*time.Millisecond, 4*time.Second)
	if rtt := v.rtt(media.Now() + rttLasts + time.Second); rtt != 0 {
		t.Errorf("nothing was heard for %v, and the round trip is %v", rttLasts, rtt)
	}
}

// A receiver tells of each picture by itself, at once or nearly so: what counts is what
// all have lost.
func TestReportsOnAllPicturesCount(t *testing.T) {
	v := newWHEP(t, newEngine(t, Options{}))
	var tracks []*track
	report := &rtcp.ReceiverReport{}
	for i, c := range []struct{ packets, lost int }{{100, 20}, {300, 240}} {
		tr := playing(v, videoTrack, newSource(), format{pt: 102}, &counter{})
		tr.ssrc, tr.packets = uint32(i+1), uint64(c.packets)
		tracks = append(tracks, tr)
		report.Reports = append(report.Reports, rtcp.ReceptionReport{SSRC: tr.ssrc, FractionLost: uint8(c.lost * 256 / c.packets)})
	}
	const rate = 800_000 // bit/s
	now := media.Now()
	v.sendMu.Lock()
	v.tracks = tracks
	for at := now - 4*time.Second; at < now; at += 100 * time.Millisecond {
		v.est.Sent(at, rate/8/10)
	}
	v.sendMu.Unlock()
	b, err := report.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range tracks {
		tr.receive(b)
	}
	v.open.Store(true)
	defer v.open.Store(false)
	v.tend(now)
	// of 400 packets 260 were lost: 35 % came, and as much again of the loss is held back
	want := rate * 35 / 100 * 675 / 1000
	if got := v.Stats().Estimate.Bps; got < want*8/10 || got > want*12/10 {
		t.Errorf("the estimate is %d bit/s, want about %d", got, want)
	}
}
