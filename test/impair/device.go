package impair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gateway/test/rig"
)

const (
	mtu        = 1500
	queueCalls = 1000 // packets that the kernel keeps for a device's reader
)

// openDevice makes a TUN device in a namespace. The file can be used from anywhere.
func openDevice(ctx context.Context, n *rig.Namespace, name string) (*os.File, error) {
	var fd int
	err := n.Do(func() (err error) {
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
		}
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			unix.Close(fd)
			return fmt.Errorf("TUN device %s: %w", name, err)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return nil, &rig.Missing{What: "/dev/net/tun", Remedy: "load the kernel's module tun, and allow the device in a container: " + err.Error()}
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	err = n.IP(ctx, "link", "set", name, "up", "mtu", fmt.Sprint(mtu), "txqueuelen", fmt.Sprint(queueCalls))
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// carry takes packets from one device to another over a link, with two goroutines,
// until from is closed.
func carry(wait *sync.WaitGroup, l *Link, from, to *os.File) {
	stop := make(chan struct{})
	wait.Go(func() {
		defer close(stop)
		b := make([]byte, 65536)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if n >= 20 && (b[0]>>4 == 4 || b[0]>>4 == 6) {
				l.enqueue(time.Now(), append([]byte(nil), b[:n]...))
			}
		}
	})
	wait.Go(func() { l.run(to, stop) })
}

// run sends until stop is closed.
func (l *Link) run(to io.Writer, stop <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var arrived []packet
	for {
		var next time.Time
		arrived, next = l.step(time.Now(), arrived[:0])
		for _, p := range arrived {
			to.Write(p.data) // what the other side doesn't take is lost, as on any network
		}
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-timer.C:
		case <-l.kick:
		case <-stop:
			return
		}
	}
}
