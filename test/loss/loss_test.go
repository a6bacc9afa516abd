// Package loss holds the gateway to its retransmissions: twenty viewers behind ways
// that lose packets, and how much of it comes after all.
package loss

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"gateway/test/rig"
	"gateway/test/stat"
)

const (
	viewers = 20
	delay   = 20 * time.Millisecond // each way
	lossy   = 6 * time.Second       // how long packets are lost
	repair  = time.Second           // in which what was lost last may come
)

func TestMain(m *testing.M) {
	code := m.Run()
	rig.RemoveBinary()
	os.Exit(code)
}

func TestRetransmissionsRepairWhatTheWayLoses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	repairs(ctx, t, "", []repairCase{
		{"1 percent", 0.01, 1, kind{rtx: true}, 0.99},
		{"5 percent", 0.05, 1, kind{rtx: true}, 0.97},
		{"10 percent", 0.10, 1, kind{rtx: true}, 0.95},
		{"5 percent in bursts of 4", 0.05, 4, kind{rtx: true}, 0.97},
		{"5 percent without RTX", 0.05, 1, kind{}, 0.97},
		// it doesn't learn what came by RTX and goes on asking
		{"5 percent, asked for by pion's generator", 0.05, 1, kind{rtx: true, pion: true}, 0.97},
		// 93.6 % before a packet's first retransmission had a part of the limit to itself
		{"10 percent, asked for by pion's generator", 0.10, 1, kind{rtx: true, pion: true}, 0.95},
	})
}

// The same holds for connections by ICE-lite.
func TestRetransmissionsRepairLiteConnections(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	repairs(ctx, t, "ice: {lite: true}\n", []repairCase{
		{"5 percent", 0.05, 1, kind{rtx: true}, 0.97},
		{"10 percent", 0.10, 1, kind{rtx: true}, 0.95},
		{"5 percent in bursts of 4", 0.05, 4, kind{rtx: true}, 0.97},
	})
}

type repairCase struct {
	name  string
	rate  float64
	burst int
	kind  kind
	least float64 // share that must be repaired
}

// repairs runs cases against a gateway of a configuration.
func repairs(ctx context.Context, t *testing.T, config string, cases []repairCase) {
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Config: config, Pipelines: map[string]string{
		"test": "source: videotestsrc is-live=true pattern=smpte horizontal-speed=2 ! timecodestamper ! timeoverlay time-mode=time-code font-desc=Mono,28\n" +
			"video: {codec: h264, width: 1280, height: 720, framerate: 30, bitrate: 1M}\n",
	}})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := run(ctx, t, g, weather{delay: delay, rate: c.rate, burst: c.burst}, c.kind)
			t.Logf("%d packets, %.2f%% lost, %.2f%% of them repaired, in ms p50 %.0f p95 %.0f; %.2f retransmissions for each packet lost, %.0f refused",
				r.sent, 100*float64(r.lost)/float64(r.sent), 100*r.share(), stat.Quantile(r.after, 0.5), stat.Quantile(r.after, 0.95),
				float64(r.rtx)/float64(r.lost), r.refused)
			if r.share() < c.least {
				t.Errorf("%.2f%% repaired, want %.0f%%", 100*r.share(), 100*c.least)
			}
			if r.plis != 0 {
				t.Errorf("%.0f keyframes were asked for", r.plis)
			}
		})
	}
}

// result is what became of a case's packets.
type result struct {
	sent, lost, repaired int
	rtx                  int       // retransmissions
	after                []float64 // ms from a packet's loss to its repair
	refused, plis        float64   // by the gateway's counters
}

func (r *result) share() float64 {
	if r.lost == 0 {
		return 0
	}
	return float64(r.repaired) / float64(r.lost)
}

func run(ctx context.Context, t *testing.T, g *rig.Gateway, w weather, k kind) *result {
	clients, err := join(ctx, g, viewers, w, k)
	for _, c := range clients {
		defer func() {
			if err := c.close(); err != nil {
				t.Error(err)
			}
		}()
	}
	if err != nil {
		t.Fatal(err)
	}
	before, err := g.Metrics(ctx)
	rig.Check(t, err)
	for _, on := range []bool{true, false} {
		for _, c := range clients {
			c.path.lossy.Store(on)
		}
		span := repair
		if on {
			span = lossy
		}
		select {
		case <-time.After(span):
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
	after, err := g.Metrics(ctx)
	rig.Check(t, err)
	r := &result{}
	for name, to := range map[string]*float64{
		"gateway_rtc_retransmissions_refused_total": &r.refused, "gateway_rtc_plis_received_total": &r.plis,
	} {
		*to = after[name] - before[name]
	}
	for _, c := range clients {
		r.add(c)
	}
	return r
}

// join starts n clients at once.
func join(ctx context.Context, g *rig.Gateway, n int, w weather, k kind) ([]*client, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var mu sync.Mutex
	var clients []*client
	var errs []error
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			w := w
			w.seed = uint64(i)
			c, err := watch(ctx, g.URL("/whep/test"), g.Port, w, k)
			mu.Lock()
			defer mu.Unlock()
			if errs = append(errs, err); c != nil {
				clients = append(clients, c)
			}
		})
	}
	wait.Wait()
	return clients, errors.Join(errs...)
}

func (r *result) add(c *client) {
	c.path.mu.Lock()
	defer c.path.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	r.sent += c.path.sent
	r.rtx += c.path.rtx
	r.lost += len(c.path.lost)
	for seq, at := range c.path.lost {
		if came, ok := c.received[seq]; ok {
			r.repaired++
			r.after = append(r.after, came.Sub(at).Seconds()*1000)
		}
	}
}

// A viewer that vanishes without a word leaves its address behind: behind a NAT, or
// on one machine, the next viewer may come from the same one. pion's mux gave all
// that came from it to the viewer that was gone, 30 s long, and the next one's
// connection checks were discarded for their wrong user name (2026-11).
func TestNextViewerFromTheSameAddressConnects(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: map[string]string{
		"test": "source: videotestsrc is-live=true\nvideo: {codec: h264, width: 320, height: 240, framerate: 30, bitrate: 300k}\n",
	}})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	first, err := watch(ctx, g.URL("/whep/test"), g.Port, weather{delay: delay, burst: 1}, kind{rtx: true})
	rig.Check(t, err)
	port := first.path.back.LocalAddr().(*net.UDPAddr).Port
	first.path.close() // before the peer: nothing of its end is heard
	first.peer.Close()
	w := weather{delay: delay, burst: 1, port: port}
	ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	second, err := watch(ctx, g.URL("/whep/test"), g.Port, w, kind{rtx: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.close(); err != nil {
		t.Error(err)
	}
}

// Lost datagrams are as many as the rate says, in bursts as long as it says.
func TestDiceKeepToTheirRate(t *testing.T) {
	for _, w := range []weather{{rate: 0.01, burst: 1}, {rate: 0.1, burst: 1}, {rate: 0.05, burst: 4}} {
		d := newDice(w, 1)
		const n = 1_000_000
		lost := 0
		for range n {
			if d.lose() {
				lost++
			}
		}
		if got := float64(lost) / n; got < 0.97*w.rate || got > 1.03*w.rate {
			t.Errorf("%+v: %.4f lost", w, got)
		}
	}
}
