package device

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// folders tells of files that come and go in folders, by inotify(7). Unlike
// fsnotify it asks for nothing else: in /dev each write to /dev/null would be an
// event.
type folders struct {
	file *os.File
	path map[int]string // by watch; touched by follow alone, and by read
}

const folderEvents = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ATTRIB | unix.IN_ONLYDIR

func openFolders() (*folders, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	f := &folders{os.NewFile(uintptr(fd), "inotify"), make(map[int]string)}
	return f, f.follow()
}

// watched are where nodes, their stable links and the sockets of X and sound
// servers appear.
func watched() []string {
	all := []string{"/dev", "/dev/v4l", "/dev/v4l/by-id", "/dev/v4l/by-path", "/dev/snd", "/tmp/.X11-unix"}
	if session := os.Getenv("XDG_RUNTIME_DIR"); session != "" {
		all = append(all, session, filepath.Join(session, "pulse"))
	}
	if socket, ok := strings.CutPrefix(os.Getenv("PULSE_SERVER"), "unix:"); ok {
		all = append(all, filepath.Dir(socket))
	}
	return all
}

// follow watches those of the folders that there are now. One that is watched
// already stays so (inotify_add_watch(2)).
func (f *folders) follow() error {
	raw, err := f.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		for _, folder := range watched() {
			if wd, err := unix.InotifyAddWatch(int(fd), folder, folderEvents); err == nil { // else it isn't there, or not for us
				f.path[wd] = folder
			}
		}
	})
}

// read blocks until something of matter comes or goes. An overrun is a [Change] of
// which nothing is known. An error means that it was closed.
func (f *folders) read() ([]Change, error) {
	buf := make([]byte, 16<<10)
	for {
		n, err := f.file.Read(buf)
		if err != nil {
			return nil, err
		}
		var all []Change
		for rest := buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			wd := int(int32(binary.NativeEndian.Uint32(rest)))
			mask, size := binary.NativeEndian.Uint32(rest[4:]), int(binary.NativeEndian.Uint32(rest[12:]))
			name, _, _ := bytes.Cut(rest[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+size], []byte{0})
			rest = rest[unix.SizeofInotifyEvent+size:]
			switch {
			case mask&unix.IN_Q_OVERFLOW != 0:
				all = append(all, Change{})
			case mask&unix.IN_IGNORED != 0:
				delete(f.path, wd)
			default:
				if c, ok := fileChange(filepath.Join(f.path[wd], string(name)), mask); ok {
					all = append(all, c)
				}
			}
		}
		if err := f.follow(); err != nil { // /dev/v4l comes with the first camera
			return nil, err
		}
		if len(all) > 0 {
			return all, nil
		}
	}
}

// fileChange tells what a file's coming or going means; not ok: nothing.
func fileChange(path string, mask uint32) (c Change, ok bool) {
	c.Node, c.Gone = path, mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0
	folder, name := filepath.Split(path)
	switch {
	case folder == "/dev/" && (strings.HasPrefix(name, "video") || strings.HasPrefix(name, "media")):
		c.Subsystem = "video4linux"
	case folder == "/dev/snd/":
		c.Subsystem = "sound"
	case path == "/dev/v4l", strings.HasPrefix(folder, "/dev/v4l/"):
		c.Subsystem = "link"
	case strings.HasPrefix(folder, "/dev/"): // a terminal, a disk
		return Change{}, false
	case folder == "/tmp/.X11-unix/":
		c.Subsystem = "x11"
	case name == "native", name == "pulse", strings.HasPrefix(name, "pipewire-"), "unix:"+path == os.Getenv("PULSE_SERVER"):
		c.Subsystem = "sound server"
	default:
		return Change{}, false
	}
	return c, true
}
