package impair

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"gateway/test/rig"
)

const (
	mtu         = 1500
	kernelQueue = 1000 // packets that the kernel keeps for a device's reader
)

// openDevice makes a TUN device in a namespace, which can be used from anywhere.
func openDevice(ctx context.Context, n *rig.Namespace, name string) (*device, error) {
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
	err = n.IP(ctx, "link", "set", name, "up", "mtu", fmt.Sprint(mtu), "txqueuelen", fmt.Sprint(kernelQueue))
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &device{fd, name}, nil
}

// device is one end of a link. It is read and written by poll: a goroutine that
// waits for the runtime's timers and poller is late where the machine is busy, by
// tens of milliseconds, and the network would have that as its jitter.
type device struct {
	fd   int
	name string
}

// carry takes packets from one device to another over a link, on a thread of its own
// that goes before all others where that is allowed, until stop can be read.
func carry(l *Link, from, to *device, stop *os.File) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	// without the rights it is merely later
	unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: 1}, 0)
	polled := []unix.PollFd{{Fd: int32(from.fd), Events: unix.POLLIN}, {Fd: int32(l.kick), Events: unix.POLLIN}, {Fd: int32(stop.Fd()), Events: unix.POLLIN}}
	b := make([]byte, 65536)
	var arrived []packet
	for {
		for {
			n, err := unix.Read(from.fd, b)
			if err != nil {
				break // EAGAIN: all is read
			}
			if n >= 20 && (b[0]>>4 == 4 || b[0]>>4 == 6) {
				l.enqueue(time.Now(), append([]byte(nil), b[:n]...))
			}
		}
		var next time.Time
		arrived, next = l.step(time.Now(), arrived[:0])
		for _, p := range arrived {
			unix.Write(to.fd, p.data) // what the other side doesn't take is lost, as on any network
		}
		var timeout *unix.Timespec
		if !next.IsZero() {
			t := unix.NsecToTimespec(int64(max(time.Until(next), 0)))
			timeout = &t
		}
		unix.Ppoll(polled, timeout, nil) // the only error is EINTR
		if polled[2].Revents != 0 {
			return
		}
		if polled[1].Revents != 0 {
			unix.Read(l.kick, b[:8])
		}
	}
}
