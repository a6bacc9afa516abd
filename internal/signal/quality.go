package signal

import (
	"time"

	"gateway/internal/media"
)

// tellQuality tells who observes, of each stream.
func (x *session) tellQuality() {
	for _, w := range x.watches {
		w.tellQuality()
	}
}

func (w *watch) tellQuality() {
	x := w.session
	q := w.quality()
	q.Decisions = append([]decision{}, w.decisions[w.passedOn:]...)
	w.passedOn = len(w.decisions)
	x.client.send(&qualityMessage{x.header("quality", ""), w.stream.Name(), q})
}

// measure reckons what is sent.
func (t *transport) measure(wire uint64) {
	now := time.Now()
	d := now.Sub(t.sentAt)
	if !t.sentAt.IsZero() && d <= tellQuality/2 {
		return
	}
	if !t.sentAt.IsZero() {
		t.rate = int(float64(8*(wire-t.sent)) / d.Seconds())
	}
	t.sent, t.sentAt = wire, now
}

// quality is what the viewer gets of the stream now, without decisions.
func (w *watch) quality() quality {
	x := w.session
	q := quality{At: time.Now().UnixMilli(), Rendition: w.playing, Decisions: []decision{}}
	if x.viewer == nil {
		return q
	}
	q.Latency = w.ledger.latency(media.Now())
	stats := x.viewer.Stats()
	q.Estimate, q.Loss = stats.Estimate.Bps, max(stats.Loss, stats.TransportLoss)
	q.RoundTrip, q.Queue = milliseconds(stats.RTT), milliseconds(stats.Estimate.Queue)
	x.network.measure(stats.Wire)
	q.Sent, q.Share = x.network.rate, min(w.share, q.Estimate)
	for _, t := range w.stream.Info().Tracks {
		if t.Kind == media.Video && t.Name == q.Rendition {
			q.Target, q.Width, q.Height, q.FPS = t.Bitrate, t.Width, t.Height, t.FPS
			if t.Adaptation != nil {
				q.Target = t.Adaptation.Target
			}
		}
	}
	return q
}
