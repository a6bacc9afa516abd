// Package impair is a bad network for tests on kernels without netem: a software
// router that joins network namespaces through TUN devices, with a limited rate, a
// queue that overflows, delay, jitter, loss, and what Wi-Fi does, by settings that
// may change while packets are on their way.
//
// It hides the devices and the queueing. Times are those of a model: a thread that
// is late delays a packet by as much, but never changes the rate. Each direction has
// a thread, which goes before others (SCHED_FIFO) and ends with [Network.Close].
package impair

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gateway/test/rig"
)

// ServerIP is the server's address, the same for all clients.
const ServerIP = "10.98.0.1"

// Network is the namespace of a server and those of its clients, each with a way of
// its own to the server and none to the others.
type Network struct {
	Server  *rig.Namespace
	Clients []*Client

	wait    sync.WaitGroup
	stop    *os.File // a pipe's end, which can be read once the other is closed
	stopped *os.File // the other
	devices []*device
	closing sync.Once
}

// Client is the namespace of one client.
type Client struct {
	*rig.Namespace
	IP   string
	Down *Link // from the server
	Up   *Link // to it
}

// New makes a network for some clients, at most 250, whose links do nothing yet. The
// seed decides what the links leave to chance. Without root or TUN devices the error
// is a *[rig.Missing].
func New(ctx context.Context, clients int, seed uint64) (*Network, error) {
	n := new(Network)
	if err := n.make(ctx, clients, seed); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Network) make(ctx context.Context, clients int, seed uint64) (err error) {
	if n.Server, err = rig.NewNamespace(ctx); err != nil {
		return err
	}
	if n.stop, n.stopped, err = os.Pipe(); err != nil {
		return err
	}
	for i := range clients {
		c := &Client{IP: fmt.Sprintf("10.98.%d.2", i+1), Down: newLink(seed, uint64(2*i)), Up: newLink(seed, uint64(2*i+1))}
		n.Clients = append(n.Clients, c)
		if c.Namespace, err = rig.NewNamespace(ctx); err != nil {
			return err
		}
		near := fmt.Sprintf("client%d", i+1)
		server, err := n.open(ctx, n.Server, near)
		if err != nil {
			return err
		}
		client, err := n.open(ctx, c.Namespace, "net0")
		if err != nil {
			return err
		}
		if err := n.Server.IP(ctx, "addr", "add", ServerIP, "peer", c.IP, "dev", near); err != nil {
			return err
		}
		if err := c.Namespace.IP(ctx, "addr", "add", c.IP+"/24", "dev", "net0"); err != nil {
			return err
		}
		// browsers gather no candidate without one
		if err := c.Namespace.IP(ctx, "route", "add", "default", "dev", "net0"); err != nil {
			return err
		}
		for _, way := range []struct {
			l        *Link
			from, to *device
		}{{c.Down, server, client}, {c.Up, client, server}} {
			if way.l.kick, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
				return err
			}
			n.wait.Go(func() { carry(way.l, way.from, way.to, n.stop) })
		}
	}
	return nil
}

func (n *Network) open(ctx context.Context, in *rig.Namespace, name string) (*device, error) {
	d, err := openDevice(ctx, in, name)
	if err == nil {
		n.devices = append(n.devices, d)
	}
	return d, err
}

// Close removes the namespaces, in which no process may run any more. It does
// nothing the second time.
func (n *Network) Close() (err error) {
	n.closing.Do(func() {
		var errs []error
		if n.stopped != nil {
			errs = append(errs, n.stopped.Close())
		}
		n.wait.Wait()
		if n.stop != nil {
			errs = append(errs, n.stop.Close())
		}
		for _, d := range n.devices {
			errs = append(errs, unix.Close(d.fd))
		}
		for _, c := range n.Clients {
			errs = append(errs, c.close())
		}
		if n.Server != nil {
			errs = append(errs, n.Server.Close())
		}
		err = errors.Join(errs...)
	})
	return err
}

func (c *Client) close() (err error) {
	for _, l := range []*Link{c.Down, c.Up} {
		l.mu.Lock()
		if l.kick >= 0 {
			err = errors.Join(err, unix.Close(l.kick))
			l.kick = -1
		}
		l.mu.Unlock()
	}
	if c.Namespace != nil {
		err = errors.Join(err, c.Namespace.Close())
	}
	return err
}

// Change is what a link is set to after a time.
type Change struct {
	After time.Duration // since the script began
	Settings
}

// Play sets a link by a script, whose changes are in the order of their times, until
// it ends or ctx is done. at, unless nil, is called with each change that was made.
func Play(ctx context.Context, l *Link, script []Change, at func(Change)) {
	begun := time.Now()
	for _, c := range script {
		select {
		case <-time.After(time.Until(begun.Add(c.After))):
		case <-ctx.Done():
			return
		}
		l.Set(c.Settings)
		if at != nil {
			at(c)
		}
	}
}
