package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace of its own, with its loopback up and nothing
// else: no route leads out of it. Making one needs root.
type Namespace struct {
	Name    string
	closing sync.Once
}

var (
	namespaces atomic.Int32
	links      atomic.Int32
)

// NewNamespace makes a namespace.
func NewNamespace(ctx context.Context) (*Namespace, error) {
	if err := NeedRoot(); err != nil {
		return nil, err
	}
	n := &Namespace{Name: fmt.Sprintf("gwtest%d-%d", os.Getpid(), namespaces.Add(1))}
	if err := ip(ctx, "netns", "add", n.Name); err != nil {
		return nil, err
	}
	// Nobody else is on its links: no address needs a second of looking for another owner.
	trusting := func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
	}
	if err := errors.Join(n.Do(trusting), n.IP(ctx, "link", "set", "lo", "up")); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Link joins two namespaces by a pair of interfaces with an address each, such
// as "10.97.1.1/24", and waits until both have their link-local address, too. A
// Chromium that starts before finds no interface for its mDNS responder, and then
// gathers no candidate as long as it lives.
func Link(ctx context.Context, a *Namespace, addrA string, b *Namespace, addrB string) error {
	id := strconv.Itoa(int(links.Add(1)))
	va, vb := "gwa"+id, "gwb"+id
	if err := ip(ctx, "link", "add", va, "netns", a.Name, "type", "veth", "peer", "name", vb, "netns", b.Name); err != nil {
		return err
	}
	for _, end := range []struct {
		n         *Namespace
		dev, addr string
	}{{a, va, addrA}, {b, vb, addrB}} {
		if err := end.n.IP(ctx, "addr", "add", end.addr, "dev", end.dev); err != nil {
			return err
		}
		if err := end.n.IP(ctx, "link", "set", end.dev, "up"); err != nil {
			return err
		}
	}
	return errors.Join(a.settled(ctx, va), b.settled(ctx, vb))
}

// Pair makes two namespaces for a test, joined as [Link] does. They go when it ends.
func Pair(ctx context.Context, t testing.TB, addrA, addrB string) (a, b *Namespace) {
	t.Helper()
	for _, n := range []**Namespace{&a, &b} {
		made, err := NewNamespace(ctx)
		Check(t, err)
		End(t, "namespace", made.Close)
		*n = made
	}
	Check(t, Link(ctx, a, addrA, b, addrB))
	return a, b
}

// Device is the name of the namespace's interface that isn't loopback.
func (n *Namespace) Device() (name string, err error) {
	err = n.Do(func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			if i.Flags&net.FlagLoopback == 0 {
				name = i.Name
			}
		}
		return err
	})
	return name, err
}

// settled waits until an interface has a link-local address that is in use.
func (n *Namespace) settled(ctx context.Context, dev string) error {
	settled := func() (bool, error) {
		table, err := os.ReadFile("/proc/thread-self/net/if_inet6")
		for line := range strings.Lines(string(table)) {
			// address, index, prefix, scope, flags, name
			f := strings.Fields(line)
			flags, _ := strconv.ParseUint(f[4], 16, 32)
			if f[5] == dev && strings.HasPrefix(f[0], "fe80") && flags&unix.IFA_F_TENTATIVE == 0 {
				return true, nil
			}
		}
		return false, err
	}
	return n.Do(func() error { return Until(ctx, "a link-local address of "+dev+" in "+n.Name, settled) })
}

// IP runs the ip command in the namespace, such as IP(ctx, "route", "add", …).
func (n *Namespace) IP(ctx context.Context, args ...string) error {
	return ip(ctx, append([]string{"-n", n.Name}, args...)...)
}

// BlockUDP refuses every UDP packet that would leave the namespace, IPv4 and
// IPv6; TCP and what stays inside pass.
func (n *Namespace) BlockUDP(ctx context.Context) error {
	for _, family := range []string{"-4", "-6"} {
		if err := ip(ctx, "-n", n.Name, family, "rule", "add", "pref", "100", "ipproto", "udp", "prohibit"); err != nil {
			return err
		}
	}
	return nil
}

// Dial connects from inside the namespace; from the test's own when n is nil.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if n == nil {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	var conn net.Conn
	err := n.Do(func() (err error) {
		// one address, no names: the dialer makes its socket on this thread
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens inside the namespace; in the test's own when n is nil.
func (n *Namespace) Listen(network, address string) (l net.Listener, err error) {
	listen := func() (err error) {
		l, err = net.Listen(network, address)
		return err
	}
	if n == nil {
		err = listen()
	} else {
		err = n.Do(listen)
	}
	return l, err
}

// Do calls f on a thread inside the namespace and waits for it. Sockets and devices
// belong to the namespace of the thread that made them, and can be used from
// anywhere.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + n.Name)
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", n.Name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Close removes the namespace with its interfaces. Processes in it must have
// ended.
func (n *Namespace) Close() (err error) {
	n.closing.Do(func() { err = ip(context.Background(), "netns", "delete", n.Name) })
	return err
}

func ip(ctx context.Context, args ...string) error {
	path, err := Need("ip", "iproute2")
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
