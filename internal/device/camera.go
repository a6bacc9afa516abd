package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A camera has up to three names that stay when its node gets another number:
// those of its links that udev's rules make (60-persistent-v4l.rules), by its
// maker, model and serial number and by its port, and what its driver calls it.
// The first two are worked out here from sysfs as udev does, so that they hold
// where no udev runs, and before it has made a link.
//
//	usb-046d_HD_Pro_Webcam_C920_1A2B3C4D-video-index0
//	pci-0000:00:14.0-usb-0:2:1.0-video-index0
//	HD Pro Webcam C920

// firstNode may be left out.
const firstNode = "-video-index0"

// cameras finds cameras in the kernel's tree.
type cameras struct {
	sys, dev string // "/sys", "/dev"

	mu    sync.Mutex
	known map[string][]string // by a node's path as somebody named it: the names that it had
}

// maxKnown bounds what is remembered: pipelines name few nodes.
const maxKnown = 256

var host = &cameras{sys: "/sys", dev: "/dev", known: make(map[string][]string)}

// Camera finds the node that a camera has now. The name is a path, which is
// returned as it is where it exists, or one of the names that stay, without folder:
// that of its link in /dev/v4l ("-video-index0" may be left out), or what its driver
// calls it. A path that doesn't exist any more, and whose camera has come back under
// another number, is that camera's new node. An error tells which cameras there
// are; a path that isn't there and never was comes back without one.
func Camera(name string) (node string, err error) { return host.find(name) }

// ErrAmbiguous says that more than one camera has the name.
var ErrAmbiguous = errors.New("there is more than one such camera")

// CameraName is the best name of a node ("/dev/video0") that stays: by its serial
// number, else by its port; "" if it has none, as devices have that are nowhere.
func CameraName(node string) string {
	for _, name := range host.lasting(filepath.Base(node)) {
		if strings.Contains(name, "-video-index") {
			return name
		}
	}
	return ""
}

func (c *cameras) find(name string) (string, error) {
	if !filepath.IsAbs(name) {
		return c.called(name)
	}
	real, err := filepath.EvalSymlinks(name)
	if err == nil {
		c.remember(name, filepath.Base(real))
		return name, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return name, nil // who opens it says it in better words
	}
	if folder := filepath.Dir(name); filepath.Dir(folder) == filepath.Join(c.dev, "v4l") {
		if node, err := c.called(filepath.Base(name)); err == nil {
			return node, nil
		}
	}
	c.mu.Lock()
	names := c.known[name]
	c.mu.Unlock()
	for _, n := range names {
		if node, err := c.called(n); err == nil {
			return node, nil
		}
	}
	return name, nil
}

// remember notes which camera is behind a path.
func (c *cameras) remember(path, node string) {
	names := c.lasting(node)
	if len(names) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[path] != nil || len(c.known) < maxKnown {
		c.known[path] = names
	}
}

// called finds the one camera of a name.
func (c *cameras) called(name string) (string, error) {
	var found, all []string
	for _, node := range c.nodes() {
		names := c.names(node)
		all = append(all, names...)
		if slices.Contains(names, name) || slices.Contains(names, name+firstNode) {
			found = append(found, filepath.Join(c.dev, node))
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("no camera: there is no %q; %s", name, thereAre(all))
	}
	return "", fmt.Errorf("%w: %q are %s; name one by its port: %s", ErrAmbiguous, name, strings.Join(found, " and "), thereAre(all))
}

func thereAre(names []string) string {
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return "plug one in"
	}
	const most = 8
	return "there is " + strings.Join(names[:min(len(names), most)], ", ")
}

// lasting are a node's names that no other has.
func (c *cameras) lasting(node string) []string {
	names := c.names(node)
	for _, other := range c.nodes() {
		if other != node && len(names) > 0 {
			theirs := c.names(other)
			names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(theirs, n) })
		}
	}
	return names
}

// nodes lists the nodes of V4L2, such as "video0".
func (c *cameras) nodes() []string {
	entries, _ := os.ReadDir(filepath.Join(c.sys, "class/video4linux")) // none: no such driver is loaded
	var nodes []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "video") {
			nodes = append(nodes, e.Name())
		}
	}
	return nodes
}

// names are a node's, shared or not: by serial number, by port, by driver, as far
// as it has them.
func (c *cameras) names(node string) (names []string) {
	class := filepath.Join(c.sys, "class/video4linux", node)
	index := attribute(class, "index")
	add := func(name string) {
		if name != "" && index != "" {
			names = append(names, name+"-video-index"+index)
		}
	}
	if device, err := filepath.EvalSymlinks(filepath.Join(class, "device")); err == nil {
		add(c.serial(device))
		add(c.port(device))
	}
	if name := attribute(class, "name"); name != "" && (index == "0" || index == "") {
		names = append(names, name)
	}
	return names
}

// serial is a USB device's bus and ID_SERIAL as udev's builtin usb_id makes it:
// maker, model and, where it has one, serial number.
func (c *cameras) serial(device string) string {
	for ; len(device) > len(c.sys); device = filepath.Dir(device) {
		if attribute(device, "idVendor") == "" {
			continue
		}
		part := func(text, number string) string {
			if s := attribute(device, text); s != "" {
				return linkName(s)
			}
			return attribute(device, number)
		}
		name := "usb-" + part("manufacturer", "idVendor") + "_" + part("product", "idProduct")
		if s := attribute(device, "serial"); s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == ',' }) {
			name += "_" + linkName(s)
		}
		return name
	}
	return ""
}

// port is a device's ID_PATH as udev's builtin path_id makes it of the buses that
// cameras are on: where it is plugged in. Of what is in a row on one bus (hubs,
// bridges), only the last is part of it.
func (c *cameras) port(device string) string {
	var path []string
	for last := ""; len(device) > len(c.sys); device = filepath.Dir(device) {
		bus, _ := os.Readlink(filepath.Join(device, "subsystem"))
		if bus = filepath.Base(bus); bus == last {
			continue
		}
		last = bus
		name := filepath.Base(device)
		switch bus {
		case "usb":
			if _, place, ok := strings.Cut(name, "-"); ok { // of the interface, with all hubs: "2.1:1.0"
				path = append(path, "usb-0:"+place)
			}
		case "pci", "platform":
			path = append(path, bus+"-"+name)
		}
	}
	slices.Reverse(path)
	return strings.Join(path, "-")
}

// linkName makes a text fit for a link as udev does (udev_replace_whitespace,
// udev_replace_chars).
func linkName(s string) string {
	s = strings.Join(strings.Fields(s), "_")
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && !strings.ContainsRune("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ#+-.:=@_", r) || r == utf8.RuneError {
			return '_'
		}
		return r
	}, s)
}

// attribute reads a file of sysfs; "" if there is none.
func attribute(dir, name string) string {
	value, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
}
