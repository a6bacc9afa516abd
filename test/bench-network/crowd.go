package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"gateway/test/impair"
	"gateway/test/stat"
)

// ladder is what the crowd watches. The baselines send the best rendition.
const ladder = `source: videotestsrc is-live=true pattern=smpte horizontal-speed=2
video:
  codec: h264
  framerate: 30
  keyframe_interval: 10s
  renditions:
    - {name: high, width: 1280, height: 720, bitrate: {min: 1M, start: 2.5M, max: 2.5M}}
    - {name: mid, width: 640, height: 360, bitrate: {min: 400k, start: 800k, max: 800k}}
    - {name: low, width: 320, height: 180, bitrate: {min: 100k, start: 250k, max: 250k}}
`

const (
	crowdName     = "crowd"
	neighbours    = 19
	crowdAlone    = 15 * time.Second
	crowdTogether = 25 * time.Second
)

var good = impair.Settings{Rate: 10 * mbps, Queue: long, Delay: way}

// badLinks are the neighbours' links, in turn.
var badLinks = []impair.Settings{
	link(300*kbps, 300*time.Millisecond),
	link(600*kbps, bloat),
	with(link(1*mbps, long), func(s *impair.Settings) { s.Loss = 0.05 }),
	wifi,
	link(1200*kbps, long), // and a third of it, by turns
}

// crowdHeader is that of the crowd's own table.
const crowdHeader = `| a good viewer beside 19 bad ones | frames | interval p50 ms | p95 | p99 | longest | kbit/s | keyframes | neighbours' kbit/s, median | their freezes > 500 ms, in the median |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |`

// member is one viewer of the crowd.
type member struct {
	*pionWatcher
	meter *impair.Meter
}

// crowd measures a good viewer's frames alone and with bad neighbours.
func (b *bench) crowd(ctx context.Context, contender string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, crowdAlone+crowdTogether+2*joining+2*time.Minute)
	defer cancel()
	n, err := impair.New(ctx, 1+neighbours, b.seed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	s, err := contenders[contender](ctx, n, ladder, b.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	n.Clients[0].Down.Set(good)
	n.Clients[0].Up.Set(up(good))
	first, err := joinCrowd(ctx, n.Clients[0], s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, first.close()) }()
	if err := sleep(ctx, joining); err != nil {
		return err
	}
	from := time.Now()
	if err := sleep(ctx, crowdAlone); err != nil {
		return err
	}
	fmt.Println(first.row(contender+", alone", from, time.Now(), nil))

	others, leave, err := joinNeighbours(ctx, n, s)
	defer func() { err = errors.Join(err, leave()) }()
	if err != nil {
		return err
	}
	if err := sleep(ctx, joining); err != nil {
		return err
	}
	from = time.Now()
	if err := sleep(ctx, crowdTogether); err != nil {
		return err
	}
	fmt.Println(first.row(contender+", with them", from, time.Now(), others))
	return nil
}

func joinCrowd(ctx context.Context, c *impair.Client, s *server) (*member, error) {
	meter := impair.NewMeter(c.Down)
	w, err := watchByPion(ctx, c, s.whep)
	if err != nil {
		return nil, err
	}
	return &member{w, meter}, nil
}

// joinNeighbours has all bad ones join at once; leave ends them.
func joinNeighbours(ctx context.Context, n *impair.Network, s *server) (others []*member, leave func() error, err error) {
	var wait, changing sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	changes, stop := context.WithCancel(ctx)
	for i, c := range n.Clients[1:] {
		l := badLinks[i%len(badLinks)]
		c.Down.Set(l)
		c.Up.Set(up(l))
		if i%len(badLinks) == len(badLinks)-1 {
			changing.Go(func() { alternate(changes, c.Down, l) })
		}
		wait.Go(func() {
			m, err := joinCrowd(ctx, c, s)
			mu.Lock()
			defer mu.Unlock()
			if errs = append(errs, err); err == nil {
				others = append(others, m)
			}
		})
	}
	wait.Wait()
	leave = func() error {
		stop()
		changing.Wait()
		var errs []error
		for _, m := range others {
			errs = append(errs, m.close())
		}
		return errors.Join(errs...)
	}
	if err := errors.Join(errs...); err != nil {
		// some may not get in over their link; the others disturb enough
		fmt.Fprintln(os.Stderr, "bench-network: crowd:", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if len(others) < neighbours/2 {
		return others, leave, errors.New("most of the neighbours can't join")
	}
	return others, leave, nil
}

// alternate makes a link slow and fast by turns until ctx is done.
func alternate(ctx context.Context, l *impair.Link, s impair.Settings) {
	slow := s
	slow.Rate /= 3
	for sleep(ctx, 5*time.Second) == nil {
		s, slow = slow, s
		l.Set(s)
	}
}

// row tells what a viewer had, and what its neighbours had meanwhile.
func (m *member) row(what string, from, to time.Time, others []*member) string {
	intervals := m.intervals(from, to)
	q := func(share float64) float64 { return stat.Quantile(intervals, share) }
	row := fmt.Sprintf("| %s | %d | %.0f | %.0f | %.0f | %.0f | %.0f | %d |", what, len(intervals), q(0.5), q(0.95), q(0.99), q(1), m.kbps(from, to), m.keyframes(from, to))
	if len(others) == 0 {
		return row + " | |"
	}
	var rates, freezes []float64
	for _, o := range others {
		rates = append(rates, o.kbps(from, to))
		n := 0.0
		for _, ms := range o.intervals(from, to) {
			if ms > 500 {
				n++
			}
		}
		freezes = append(freezes, n)
	}
	return row + fmt.Sprintf(" %.0f | %.0f |", stat.Quantile(rates, 0.5), stat.Quantile(freezes, 0.5))
}

// intervals are the ms between frames.
func (m *member) intervals(from, to time.Time) (list []float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := from
	for _, f := range m.frames {
		if f.at.After(from) && f.at.Before(to) {
			list = append(list, ms(f.at.Sub(last)))
			last = f.at
		}
	}
	return append(list, ms(to.Sub(last)))
}

// kbps is the rate of media that came.
func (m *member) kbps(from, to time.Time) float64 {
	ssrc := m.SSRC()
	return impair.Rate(m.meter.Records(from, to), to.Sub(from), func(r *impair.Record) bool {
		return r.RTP && r.Fate == impair.Delivered && r.SSRC == ssrc && !r.Padding
	}) / 1000
}

func (m *member) keyframes(from, to time.Time) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.frames {
		if f.keyframe && f.at.After(from) && f.at.Before(to) {
			n++
		}
	}
	return n
}
