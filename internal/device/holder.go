package device

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder is a process that has a device open.
type Holder struct {
	PID  int
	Name string // the program's, at most 15 bytes of it (proc(5), comm)
	Ours bool   // it is this process or a child of its own
}

// String is the program's name and number.
func (h Holder) String() string { return fmt.Sprintf("%s (pid %d)", h.Name, h.PID) }

// Holders lists the processes that have a device node open. hidden is how many
// processes this user may not look into: one of those may be another. It reads all
// of /proc and blocks for milliseconds.
func Holders(node string) (holders []Holder, hidden int) { return holdersOf("/proc", node) }

func holdersOf(proc, node string) (holders []Holder, hidden int) {
	var device unix.Stat_t
	if unix.Stat(node, &device) != nil {
		return nil, 0
	}
	processes, _ := os.ReadDir(proc)
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		folder := filepath.Join(proc, p.Name())
		open, err := os.ReadDir(filepath.Join(folder, "fd"))
		if errors.Is(err, fs.ErrPermission) {
			hidden++
			continue
		}
		for _, fd := range open {
			path := filepath.Join(folder, "fd", fd.Name())
			link, err := os.Readlink(path)
			if err != nil || !strings.HasPrefix(link, "/dev/") && filepath.Base(link) != filepath.Base(node) { // no stat of files on who knows what
				continue
			}
			var about unix.Stat_t // not the link's text: other mounts call the node otherwise
			if unix.Stat(path, &about) == nil && about.Mode&unix.S_IFMT == device.Mode&unix.S_IFMT && same(&about, &device) {
				holders = append(holders, Holder{pid, cmp.Or(attribute(folder, "comm"), "a program"), ours(folder, pid)})
				break
			}
		}
	}
	slices.SortFunc(holders, func(a, b Holder) int { return a.PID - b.PID })
	return holders, hidden
}

// ours tells whether a process is this one or its child.
func ours(folder string, pid int) bool {
	stat := attribute(folder, "stat") // "77 (a name, even with brackets) S 1 …": the parent is behind the state
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	return pid == os.Getpid() || len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid())
}

// same tells whether two are the same device, or of files the same file.
func same(a, b *unix.Stat_t) bool {
	if a.Mode&unix.S_IFMT == unix.S_IFCHR {
		return a.Rdev == b.Rdev
	}
	return a.Dev == b.Dev && a.Ino == b.Ino
}

// HeldBy says in words who has a node open: "cheese (pid 77)", or why that can't
// be said.
func HeldBy(node string) string {
	all, hidden := Holders(node)
	holders := slices.DeleteFunc(slices.Clone(all), func(h Holder) bool { return h.Ours })
	switch {
	case len(holders) > 0:
	case hidden == 0 && len(all) > 0: // who asks may be one of them
		return "another stream of this gateway, or a program that has ended meanwhile"
	case hidden == 0:
		return "a program that has ended meanwhile"
	default:
		return fmt.Sprintf("a program of another user: this one may not look into %d processes (sudo fuser -v %s tells which)", hidden, node)
	}
	const most = 4
	var names []string
	for _, h := range holders[:min(len(holders), most)] {
		names = append(names, h.String())
	}
	return strings.Join(names, ", ")
}

var alsaCard = regexp.MustCompile(`^(?:plug)?hw:(?:CARD=)?([A-Za-z0-9_-]+)(?:,(?:DEV=)?([0-9]+))?`)

// SoundCard is the node that ALSA captures from by a name such as "hw:1" or
// "plughw:CARD=PCH,DEV=0"; "" where that names no card which is there.
func SoundCard(name string) (node string) {
	m := alsaCard.FindStringSubmatch(name)
	if m == nil {
		return ""
	}
	card := m[1]
	if link, err := os.Readlink("/proc/asound/" + card); err == nil { // "PCH" → "card0"
		card = strings.TrimPrefix(link, "card")
	}
	if _, err := strconv.Atoi(card); err != nil {
		return ""
	}
	return fmt.Sprintf("/dev/snd/pcmC%sD%sc", card, cmp.Or(m[2], "0"))
}
