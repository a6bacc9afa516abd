package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Groups of NETLINK_KOBJECT_UEVENT: the kernel tells at once, udev when it has set
// a device's links and permissions.
const (
	kernelGroup = 1 << 0
	udevGroup   = 1 << 1
)

// subsystems are those whose devices are captured, as the kernel names them.
var subsystems = map[string]bool{"video4linux": true, "sound": true, "media": true}

const (
	maxUevent  = 16 << 10 // bytes; the kernel's are 2 KiB at most, udev's 8
	ueventRoom = 1 << 20  // bytes of the socket, for the hundreds that a hub's return makes
)

// openUevents opens the socket on which the kernel multicasts its uevents (kernel:
// lib/kobject_uevent.c), and udev what it made of them. Anybody may listen; only
// the kernel and root can send.
func openUevents() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, ueventRoom) // what is granted is good: an overrun is noticed
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup | udevGroup}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink bind: %w", err)
	}
	return os.NewFile(uintptr(fd), "uevents"), nil
}

// readUevent blocks until a device of our subsystems comes, goes or changes. An
// overrun is a [Change] of which nothing is known. An error means that the socket
// was closed.
func readUevent(f *os.File) (Change, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return Change{}, err
	}
	buf := make([]byte, maxUevent)
	for {
		n, fault := 0, error(nil)
		err := raw.Read(func(fd uintptr) bool {
			for {
				n, _, fault = unix.Recvfrom(int(fd), buf, 0)
				if !errors.Is(fault, unix.EINTR) {
					return !errors.Is(fault, unix.EAGAIN)
				}
			}
		})
		switch {
		case err != nil:
			return Change{}, err
		case errors.Is(fault, unix.ENOBUFS): // some were lost
			return Change{}, nil
		case fault != nil:
			return Change{}, fmt.Errorf("netlink: %w", fault)
		}
		if c, ok := parseUevent(buf[:n]); ok {
			return c, nil
		}
	}
}

// parseUevent reads a message of the kernel ("add@/devices/…", NUL, KEY=value, NUL
// …) or of udev (a header, then likewise: systemd, device-monitor.c); not ok if it
// is malformed or of no matter here.
func parseUevent(message []byte) (c Change, ok bool) {
	if fields, is := bytes.CutPrefix(message, []byte("libudev\x00")); is {
		// magic, sizes of header and properties; from the message's beginning
		if len(fields) < 16 || binary.BigEndian.Uint32(fields) != 0xfeedcafe {
			return Change{}, false
		}
		at, size := uint64(binary.NativeEndian.Uint32(fields[8:])), uint64(binary.NativeEndian.Uint32(fields[12:]))
		if at+size > uint64(len(message)) {
			return Change{}, false
		}
		message = message[at : at+size]
	} else {
		title, rest, _ := bytes.Cut(message, []byte{0})
		if !bytes.Contains(title, []byte("@/")) {
			return Change{}, false
		}
		message = rest
	}
	action := ""
	for field := range bytes.SplitSeq(message, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		switch key {
		case "ACTION":
			action = value
		case "SUBSYSTEM":
			c.Subsystem = value
		case "DEVNAME": // the kernel's is without /dev
			c.Node = "/dev/" + strings.TrimPrefix(value, "/dev/")
		}
	}
	c.Gone = action == "remove"
	return c, action != "" && subsystems[c.Subsystem]
}
