// Command bench-signaling measures the conversation alone: a gateway with many
// sockets, of which some leave and as many join all the time. Every tenth watches a
// stream over a PeerConnection. It prints how long after its `join` a client has
// `joined`, what the gateway's CPU and memory came to, and whether the memory is
// given back when all have left.
//
//	go run ./test/bench-signaling [-n 1000] [-rate 50] [-seconds 60] [-rooms 100] [-v]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/stat"
	"gateway/test/viewer"
)

// watchers is of how many clients one watches.
const watchers = 10

// small is a picture that costs next to nothing.
const small = "source: videotestsrc is-live=true\nvideo: {codec: h264, width: 160, height: 90, framerate: 5, bitrate: 100k}\n"

func main() {
	n := flag.Int("n", 1000, "sockets")
	rate := flag.Int("rate", 50, "joins, and leaves, a second")
	seconds := flag.Int("seconds", 60, "how long")
	rooms := flag.Int("rooms", 100, "rooms that they are spread over")
	verbose := flag.Bool("v", false, "print what the gateway logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var log io.Writer
	if *verbose {
		log = os.Stderr
	}
	err := bench(ctx, *n, *rate, *rooms, time.Duration(*seconds)*time.Second, log)
	if err = errors.Join(err, rig.RemoveBinary()); err != nil {
		fmt.Fprintln(os.Stderr, "bench-signaling:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, n, rate, rooms int, span time.Duration, log io.Writer) (err error) {
	var conf strings.Builder
	fmt.Fprintf(&conf, "limits: {viewers: %d, sockets_per_address: 0, connections_per_address: 0, joins_per_address: 0}\nrooms:\n", 2*n)
	for i := range rooms {
		fmt.Fprintf(&conf, "  room%d: {streams: [test]}\n", i)
	}
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Config: conf.String(), Pipelines: map[string]string{"test": small}, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	fresh, err := rig.UsageOf(g.Pid())
	if err != nil {
		return err
	}
	c := &crowd{g: g, rooms: rooms}
	for range 2 { // what is made once is made before the baseline
		if err := errors.Join(c.fill(ctx, n, 2*rate), c.empty()); err != nil {
			return err
		}
	}
	before, err := settled(ctx, g)
	if err != nil {
		return err
	}
	fmt.Printf("memory: %.1f MB at the start, %.1f after two crowds of %d have come and gone\n", mb(fresh.RSS), mb(before.RSS), n)

	if err := c.fill(ctx, n, 2*rate); err != nil {
		return err
	}
	full, err := rig.UsageOf(g.Pid())
	if err != nil {
		return err
	}
	c.waits = nil
	begun := time.Now()
	if err := c.churn(ctx, rate, span); err != nil {
		return err
	}
	took := time.Since(begun)
	after, err := rig.UsageOf(g.Pid())
	if err != nil {
		return err
	}
	fmt.Printf("%d sockets in %d rooms, every %dth watches; %d joins and leaves in %.0f s\n", n, rooms, watchers, len(c.waits), took.Seconds())
	fmt.Printf("join to joined: p50 %.1f, p95 %.1f, p99 %.1f, most %.1f ms\n",
		stat.Quantile(c.waits, 0.5), stat.Quantile(c.waits, 0.95), stat.Quantile(c.waits, 0.99), stat.Quantile(c.waits, 1))
	fmt.Printf("gateway: %.0f %% of a core; %.1f MB before, %.1f with all sockets (%.0f KB each), %.1f after the joins and leaves\n",
		100*(after.CPU-full.CPU).Seconds()/took.Seconds(), mb(before.RSS), mb(full.RSS), float64(full.RSS-before.RSS)/1024/float64(n), mb(after.RSS))
	if err := c.empty(); err != nil {
		return err
	}
	last, err := settled(ctx, g)
	if err != nil {
		return err
	}
	m, err := g.Metrics(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%.0f s after all have left: %.1f MB, %.1f before; %.0f goroutines, %.0f sockets; Go's objects %.1f MB\n", settling.Seconds(), mb(last.RSS), mb(before.RSS),
		m["go_goroutines"], m["gateway_sockets"], m["go_memstats_heap_alloc_bytes"]/(1<<20))
	return nil
}

// settling is how long after a crowd memory is looked at.
const settling = 15 * time.Second

func settled(ctx context.Context, g *rig.Gateway) (rig.Usage, error) {
	select {
	case <-time.After(settling):
		return rig.UsageOf(g.Pid())
	case <-ctx.Done():
		return rig.Usage{}, ctx.Err()
	}
}

func mb(bytes int) float64 { return float64(bytes) / (1 << 20) }

// crowd is the clients that are in.
type crowd struct {
	g     *rig.Gateway
	rooms int

	mu      sync.Mutex // guards what follows
	next    int
	clients []*client
	waits   []float64 // from join to joined, ms
	errs    []error
}

// fill brings n clients in, some a second.
func (c *crowd) fill(ctx context.Context, n, rate int) error {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	var wait sync.WaitGroup
	for range n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		wait.Go(func() { c.enter(ctx) })
	}
	wait.Wait()
	return errors.Join(c.errs...)
}

// churn has one join and another leave, so many a second.
func (c *crowd) churn(ctx context.Context, rate int, span time.Duration) error {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	var wait sync.WaitGroup
	for end := time.Now().Add(span); time.Now().Before(end); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		wait.Go(func() { c.enter(ctx) })
		wait.Go(c.exit)
	}
	wait.Wait()
	return errors.Join(c.errs...)
}

func (c *crowd) enter(ctx context.Context) {
	c.mu.Lock()
	i := c.next
	c.next++
	c.mu.Unlock()
	one, err := join(ctx, c.g, i, i%c.rooms)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	c.clients, c.waits = append(c.clients, one), append(c.waits, one.waited.Seconds()*1000)
}

func (c *crowd) exit() {
	c.mu.Lock()
	if len(c.clients) == 0 {
		c.mu.Unlock()
		return
	}
	i := rand.IntN(len(c.clients))
	one := c.clients[i]
	c.clients[i] = c.clients[len(c.clients)-1]
	c.clients = c.clients[:len(c.clients)-1]
	c.mu.Unlock()
	if err := one.leave(); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.errs = append(c.errs, err)
	}
}

// empty has all leave.
func (c *crowd) empty() error {
	var wait sync.WaitGroup
	for _, one := range c.clients {
		wait.Go(func() {
			if err := one.leave(); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.errs = append(c.errs, err)
			}
		})
	}
	wait.Wait()
	c.clients = nil
	return errors.Join(c.errs...)
}

// client is one who is in: a socket alone, or a viewer with a PeerConnection.
type client struct {
	waited time.Duration // from join to joined
	viewer *viewer.Viewer
	socket *websocket.Conn
	read   chan error // when nothing comes any more
}

// join brings the i-th client in.
func join(ctx context.Context, g *rig.Gateway, i, room int) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	url := "ws" + strings.TrimPrefix(g.URL("/ws"), "http")
	if i%watchers == watchers-1 {
		v, err := viewer.Join(ctx, viewer.Options{URL: url, Codecs: []media.Codec{media.H264}}, "test")
		if err != nil {
			return nil, err
		}
		return &client{viewer: v, waited: v.Joined.Sub(v.Posted)}, nil
	}
	socket, _, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	c := &client{socket: socket, read: make(chan error, 1)}
	begun := time.Now()
	if err := socket.WriteJSON(map[string]any{"type": "join", "roomId": fmt.Sprintf("room%d", room), "version": 1}); err != nil {
		return nil, err
	}
	var m struct{ Type, Code, Message string }
	for m.Type != "joined" {
		if err := socket.ReadJSON(&m); err != nil {
			return nil, err
		}
		if m.Type == "error" {
			return nil, fmt.Errorf("join: %s: %s", m.Code, m.Message)
		}
	}
	c.waited = time.Since(begun)
	go func() { // what it is told of the others
		for {
			_, r, err := socket.NextReader()
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if err != nil {
				c.read <- err
				return
			}
		}
	}()
	return c, nil
}

// leave says so and waits until the gateway has closed the socket.
func (c *client) leave() error {
	if c.viewer != nil {
		return c.viewer.Close()
	}
	defer c.socket.Close()
	if err := c.socket.WriteJSON(map[string]any{"type": "leave"}); err != nil {
		return err
	}
	c.socket.SetReadDeadline(time.Now().Add(30 * time.Second))
	if err := <-c.read; !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}
