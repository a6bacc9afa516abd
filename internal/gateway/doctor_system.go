package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// user tells as whom all this is seen.
func (d *doctor) user(context.Context) []checked {
	who := strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	var groups []string
	if ids, err := os.Getgroups(); err == nil {
		for _, id := range ids {
			if g, err := user.LookupGroupId(strconv.Itoa(id)); err == nil {
				groups = append(groups, g.Name)
			}
		}
	}
	if os.Getuid() == 0 {
		return []checked{{"user", warn, "this runs as root, which may all that the gateway's own user may not", "run it as that user: sudo -u gateway gateway doctor; the gateway itself needs no root"}}
	}
	return []checked{ok("user", "%s, in the groups %s", who, and(groups))}
}

// state looks at the folder that the gateway keeps its keys in.
func (d *doctor) state(context.Context) []checked {
	const area = "state folder"
	dir := d.settings.conf.State
	if dir == "" {
		return []checked{{area, fail, "there is none", "set state in gateway.yaml to a folder that this user may write"}}
	}
	info, err := os.Stat(dir)
	at := dir
	if errors.Is(err, fs.ErrNotExist) {
		at = existing(dir)
		info, err = os.Stat(at)
	}
	switch {
	case err != nil:
		return []checked{{area, fail, err.Error(), "let this user into it, or set state to another folder"}}
	case !info.IsDir():
		return []checked{{area, fail, at + " is no folder", "set state to a folder that this user may write"}}
	case unix.Access(at, unix.W_OK|unix.X_OK) != nil:
		return []checked{{area, fail, "this user may not write " + at, "chown it to this user, or set state to another folder"}}
	case at == dir && info.Mode().Perm()&0o022 != 0:
		return []checked{{area, warn, fmt.Sprintf("others may write %s (%v)", dir, info.Mode().Perm()), "chmod 700 " + dir}}
	case at != dir:
		return []checked{ok(area, "%s is made at the first start", dir)}
	}
	return []checked{ok(area, "%s", dir)}
}

// existing is the nearest folder above a path that is there.
func existing(path string) string {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
	}
}

// clock looks at the time: tokens and certificates live by it.
func (d *doctor) clock(context.Context) []checked {
	const area = "clock"
	now := time.Now()
	if now.Year() < 2025 {
		return []checked{{area, fail, "it says " + now.Format(time.DateOnly) + ": tokens and certificates aren't good at that time", "set it: timedatectl set-ntp true, or date -s"}}
	}
	var t unix.Timex // with no modes it is only read
	if _, err := unix.Adjtimex(&t); err != nil {
		return []checked{ok(area, "%s; whether something keeps it right isn't known: %v", now.Format(time.RFC3339), err)}
	}
	if t.Status&unix.STA_UNSYNC != 0 {
		return []checked{{area, warn, now.Format(time.RFC3339) + ", and nothing keeps it right: tokens of other machines may seem to be from the future", "start a time service, such as: timedatectl set-ntp true (package systemd-timesyncd or chrony)"}}
	}
	return []checked{ok(area, "%s, kept right by a time service", now.Format(time.RFC3339))}
}

const (
	littleDisk = 64 << 20 // bytes free below which it is told
	noDisk     = 1 << 20
)

// disk looks at the room for what is written: keys, certificates, logs on the way.
func (d *doctor) disk(context.Context) (all []checked) {
	const area = "disk"
	seen := map[[2]int32]bool{}
	for _, path := range []string{d.settings.conf.State, d.settings.conf.Pipelines, os.TempDir()} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			path = existing(path)
		}
		var s unix.Statfs_t
		if err := unix.Statfs(path, &s); err != nil {
			all = append(all, checked{area, warn, fmt.Sprintf("%s: %v", path, err), "look at the disk's health"})
			continue
		}
		if seen[s.Fsid.Val] {
			continue
		}
		seen[s.Fsid.Val] = true
		free := s.Bavail * uint64(s.Bsize)
		switch {
		case free < noDisk:
			all = append(all, checked{area, fail, "full at " + path, "make room: keys and certificates can't be written; what runs goes on"})
		case s.Files > 0 && s.Ffree < 100:
			all = append(all, checked{area, fail, "no file can be made at " + path + ": its inodes are used up", "remove files there"})
		case free < littleDisk:
			all = append(all, checked{area, warn, fmt.Sprintf("%s free at %s", bytesText(free), path), "make room before it is full"})
		default:
			all = append(all, ok(area, "%s free at %s", bytesText(free), path))
		}
	}
	return all
}

const littleMemory = 128 << 20 // bytes available below which it is told

// memory looks at the machine's, and at the limit of this control group.
func (d *doctor) memory(context.Context) []checked {
	const area = "memory"
	free, err := memAvailable()
	if err != nil {
		return []checked{{area, warn, err.Error(), "mount /proc"}}
	}
	text := bytesText(free) + " available"
	if limit, _ := cgroupLimit("/proc/self/cgroup", "/sys/fs/cgroup"); limit > 0 {
		text += ", limit of the service or container " + bytesText(limit)
		free = min(free, limit)
	}
	if free < littleMemory {
		return []checked{{area, warn, text, "end other programs, raise the limit, or lower limits.viewers and the pictures' size"}}
	}
	return []checked{ok(area, "%s", text)}
}

// memAvailable is what programs can still have without swapping (proc(5)).
func memAvailable() (uint64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "MemAvailable:" {
			n, err := strconv.ParseUint(fields[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}

// files looks at the limit of file descriptors: a viewer takes one, its WebSocket's.
func (d *doctor) files(context.Context) []checked {
	const area, others = "open files", 400 // sockets that haven't joined, UDP, pipelines
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return []checked{{area, warn, err.Error(), "ask who confines this process"}}
	}
	viewers := uint64(d.settings.conf.Limits.Viewers)
	if limit.Max < viewers+others { // Go raises the soft limit to the hard one
		return []checked{{area, warn, fmt.Sprintf("%d at most, and %d viewers take about %d", limit.Max, viewers, viewers+others),
			"raise it (LimitNOFILE=65536 in the unit, ulimit -Hn), or lower limits.viewers"}}
	}
	return []checked{ok(area, "%d at most, enough for %d viewers", limit.Max, viewers)}
}

// bytesText is a size for people.
func bytesText(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
