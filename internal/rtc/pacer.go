package rtc

import (
	"time"

	"gateway/internal/media"
)

// What a keyframe of a hundred packets does to a link of 20 Mbit/s with a queue of
// 64 KB, sent at once, is to lose 45 % of itself (November 2026): large frames are
// spread over time, by a budget of bytes that grows with it.
const (
	paceBurst    = 16   // packets that go at once
	paceChunk    = 8    // packets of a larger frame that go together
	pacePacket   = 1250 // bytes that a packet is reckoned with before it is known
	paceFactor   = 2.5  // of the bitrate: what is behind catches up
	paceTick     = 2 * time.Millisecond
	pacedUsual   = 33 * time.Millisecond // in which a frame is sent, while the time between two is unknown
	pacedMost    = 50 * time.Millisecond // and at most
	pacedHighest = 2_000_000_000         // bit/s; an int of 32 bits holds it
	pacedAtOnce  = 20 * time.Millisecond // on a link that is known to be slow: what goes at once is worth that long
	pacedLeast   = 2                     // packets, but at least so many
	estimateMin  = 50_000                // bit/s: less isn't believed
)

// pacer is a track's budget. Its methods are called with Viewer.sendMu held.
type pacer struct {
	debt    int           // bytes that were sent and are not paid for yet
	planned int           // bit/s at which the last buffer is to be sent
	most    int           // bit/s that the viewer's network carries; 0: unknown
	rate    int           // bit/s at which debt is paid: what is planned, as far as the network carries it
	at      time.Duration // when debt was reckoned
	left    int           // packets of the last buffer that are still to be sent

	interval time.Duration // between frames, smoothed; 0 while unknown
	capture  time.Duration // of the last frame
	frame    int           // bytes of its buffers until now
	mean     int           // bytes of a frame, smoothed
}

// room is how many packets may go now, 0: none before the next tick.
func (p *pacer) room(now time.Duration) int {
	p.debt, p.at = max(p.debt-p.worth(min(now-p.at, time.Second)), 0), now
	burst := p.burst()
	n := (max(burst, p.worth(2*paceTick)) - p.debt) / pacePacket
	if n < min(paceChunk, max(burst/pacePacket/2, 1)) && (p.left == 0 || p.left > n) {
		return 0 // fewer go only if they end a buffer
	}
	return n
}

// burst is the bytes that may go at once: 16 packets are half a second of 300 kbit/s,
// and more than many a queue holds.
func (p *pacer) burst() int {
	const usual = paceBurst * pacePacket
	if p.most == 0 {
		return usual
	}
	return min(max(p.worth(pacedAtOnce), pacedLeast*pacePacket), usual)
}

// within keeps the rate within what the viewer's network carries, in bit/s; 0: unknown.
// It may be called at any time: the rate goes up again with it, in the middle of a frame.
func (p *pacer) within(estimate int) {
	p.most, p.rate = estimate, p.planned
	if estimate > 0 {
		p.most = max(estimate, estimateMin)
		p.rate = min(p.planned, p.most)
	}
}

// worth is how many bytes the rate allows in a time.
func (p *pacer) worth(d time.Duration) int {
	return int(int64(p.rate) * int64(d) / int64(8*time.Second))
}

// spend notes what was sent: the last of these packets, and bytes of all of them.
func (p *pacer) spend(last media.Packet, bytes int) {
	p.debt += bytes
	p.left = last.Buffer.Len() - 1 - last.I
}

// plan sets the rate for a buffer. Its frame is sent in the time between two
// frames; a third faster while it is behind. bitrate is the track's, of which it is
// known only that it should be that; estimate is what the viewer's network
// carries; both in bit/s and 0 if unknown.
func (p *pacer) plan(b *media.Buffer, bitrate, estimate int) {
	if d := b.Capture - p.capture; d != 0 {
		p.next(d)
		p.capture = b.Capture
	}
	p.frame += b.Size() // it may have several buffers
	interval := max(p.interval, time.Millisecond)
	bps := func(bytes int, in time.Duration) int { return int(int64(bytes) * 8 * int64(time.Second) / int64(in)) }
	whole := interval
	if p.at-b.Arrived > interval {
		whole = whole * 3 / 4
	}
	p.planned = max(int(paceFactor*float64(max(bitrate, bps(p.mean, interval)))), bps(p.frame, whole))
	p.planned = min(p.planned, pacedHighest)
	p.within(estimate)
}

// next begins a frame that was captured d after the last one.
func (p *pacer) next(d time.Duration) {
	switch {
	case p.interval == 0:
		p.interval = pacedUsual
	case d > 0:
		p.interval += (min(d, pacedMost) - p.interval) / 8
		p.mean += (p.frame - p.mean) / 8
	}
	p.frame = 0
}
