package gst

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/randr"
	"github.com/jezek/xgb/xproto"
)

// The questions to X servers don't go through Xlib, which ends the process when a
// server goes away and has no bound in time (see xserver.c).

func init() {
	xgb.Logger.SetOutput(io.Discard) // it repeats what calls return as errors
}

// desktop is one display with what is on it.
type desktop struct {
	Display
	windows  []Window
	monitors []Monitor
}

const (
	maxDisplays = 32
	maxWindows  = 256 // of a display
	leastSide   = 32  // pixels: smaller windows are helpers of programs
)

// findDesktops asks DISPLAY and every X server that has a socket here, each by
// itself: a server may hang.
func findDesktops(ctx context.Context) []desktop {
	names := displayNames(os.Getenv("DISPLAY"), "/tmp/.X11-unix")
	desktops := make([]desktop, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			x := &desktops[i]
			asked := new(desktop) // still written to when nobody waits any more
			if err := bounded(ctx, "X display "+name, func() error { return asked.ask(name) }, nil); err != nil {
				x.Fault = displayFault(name, err)
			} else {
				*x = *asked
			}
			x.ID, x.Name = "display:"+name, name
			x.Source = "ximagesrc " + property("display-name", name) + " use-damage=false"
		})
	}
	all.Wait()
	return desktops
}

var socketName = regexp.MustCompile(`^X([0-9]{1,5})$`)

// displayNames lists displays: that of the environment first, then the sockets.
func displayNames(environ, sockets string) []string {
	var names []string
	if environ != "" {
		names = append(names, environ)
	}
	entries, _ := os.ReadDir(sockets)
	var local []string
	for _, e := range entries {
		if m := socketName.FindStringSubmatch(e.Name()); m != nil {
			local = append(local, ":"+m[1])
		}
	}
	slices.SortFunc(local, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	for _, l := range local {
		if same := strings.TrimPrefix(environ, "unix"); same != l && same != l+".0" {
			names = append(names, l)
		}
	}
	return names[:min(len(names), maxDisplays)]
}

// ask fills in what is on a display.
func (d *desktop) ask(name string) (err error) {
	d.Name = name
	defer func() {
		if fault := recover(); fault != nil { // xgb parses answers without a look at their length
			err = fmt.Errorf("its answer can't be read: %v", fault)
		}
	}()
	x, err := xgb.NewConnDisplay(name)
	if err != nil {
		return err
	}
	defer x.Close()
	setup := xproto.Setup(x)
	if x.DefaultScreen >= len(setup.Roots) {
		return fmt.Errorf("it has no screen %d", x.DefaultScreen)
	}
	screen := setup.Roots[x.DefaultScreen]
	d.Width, d.Height = int(screen.WidthInPixels), int(screen.HeightInPixels)
	d.askWindows(x, screen.Root)
	d.askMonitors(x, screen.Root)
	return nil
}

// askMonitors lists monitors (RandR 1.5). A display without that has none.
func (d *desktop) askMonitors(x *xgb.Conn, root xproto.Window) {
	const name = "RANDR"
	extension, err := xproto.QueryExtension(x, uint16(len(name)), name).Reply()
	if err != nil || !extension.Present {
		return
	}
	// As randr.Init does, but that writes to maps which all connections share.
	x.ExtLock.Lock()
	x.Extensions[name] = extension.MajorOpcode
	x.ExtLock.Unlock()
	version, err := randr.QueryVersion(x, 1, 5).Reply()
	if err != nil || version.MajorVersion == 1 && version.MinorVersion < 5 {
		return
	}
	reply, err := randr.GetMonitors(x, root, true).Reply()
	if err != nil {
		return
	}
	for _, m := range reply.Monitors {
		atom, err := xproto.GetAtomName(x, m.Name).Reply()
		if err != nil || m.Width == 0 || m.Height == 0 {
			continue
		}
		monitor := Monitor{
			Display: d.Name, Name: oneLine(atom.Name), Primary: m.Primary,
			X: int(m.X), Y: int(m.Y), Width: int(m.Width), Height: int(m.Height),
		}
		monitor.ID = "monitor:" + d.Name + ":" + monitor.Name
		// the ends belong to the region
		monitor.Source = fmt.Sprintf("ximagesrc %s startx=%d starty=%d endx=%d endy=%d use-damage=false", property("display-name", d.Name),
			monitor.X, monitor.Y, monitor.X+monitor.Width-1, monitor.Y+monitor.Height-1)
		d.monitors = append(d.monitors, monitor)
	}
}

// askWindows lists the windows that people see. Where a window manager tells them
// (EWMH _NET_CLIENT_LIST), it is asked; else they are the root's children.
func (d *desktop) askWindows(x *xgb.Conn, root xproto.Window) {
	windows := windowList(x, root)
	if windows == nil {
		tree, err := xproto.QueryTree(x, root).Reply()
		if err != nil {
			return
		}
		for _, w := range tree.Children {
			windows = append(windows, client(x, w, 3))
		}
	}
	for _, w := range windows[:min(len(windows), maxWindows)] {
		if found := d.askWindow(x, w); found != nil {
			d.windows = append(d.windows, *found)
		}
	}
}

func windowList(x *xgb.Conn, root xproto.Window) []xproto.Window {
	value := windowProperty(x, root, "_NET_CLIENT_LIST", maxWindows)
	var windows []xproto.Window
	for ; len(value) >= 4; value = value[4:] {
		windows = append(windows, xproto.Window(xgb.Get32(value)))
	}
	return windows
}

// client is the program's own window in the frame that a window manager put
// around it, which has a WM_STATE (ICCCM §4.1.3.1); else the window itself.
func client(x *xgb.Conn, w xproto.Window, depth int) xproto.Window {
	if depth == 0 || windowProperty(x, w, "WM_STATE", 2) != nil {
		return w
	}
	tree, err := xproto.QueryTree(x, w).Reply()
	if err != nil || len(tree.Children) > maxWindows {
		return w
	}
	for _, c := range tree.Children {
		if inner := client(x, c, depth-1); inner != c || windowProperty(x, c, "WM_STATE", 2) != nil {
			return inner
		}
	}
	return w
}

// askWindow describes a window; nil if it is hidden, tiny, a menu or gone.
func (d *desktop) askWindow(x *xgb.Conn, w xproto.Window) *Window {
	attributes, err := xproto.GetWindowAttributes(x, w).Reply()
	if err != nil || attributes.OverrideRedirect || attributes.MapState != xproto.MapStateViewable || attributes.Class != xproto.WindowClassInputOutput {
		return nil
	}
	shape, err := xproto.GetGeometry(x, xproto.Drawable(w)).Reply()
	if err != nil || shape.Width < leastSide || shape.Height < leastSide {
		return nil
	}
	title := windowProperty(x, w, "_NET_WM_NAME", 1024)
	if title == nil {
		title = windowProperty(x, w, "WM_NAME", 1024)
	}
	// two strings, each ended by a NUL: instance and class
	_, class, _ := strings.Cut(string(windowProperty(x, w, "WM_CLASS", 256)), "\x00")
	class, _, _ = strings.Cut(class, "\x00")
	xid := fmt.Sprintf("0x%x", uint32(w))
	return &Window{
		ID:      "window:" + d.Name + ":" + xid,
		Display: d.Name, XID: xid,
		Title: oneLine(string(title)), Class: oneLine(class),
		Width: int(shape.Width), Height: int(shape.Height),
		Source: fmt.Sprintf("ximagesrc %s xid=%s use-damage=false", property("display-name", d.Name), xid),
	}
}

// windowProperty is a property's value, at most 4*long bytes; nil without one.
func windowProperty(x *xgb.Conn, w xproto.Window, name string, long uint32) []byte {
	atom, err := xproto.InternAtom(x, true, uint16(len(name)), name).Reply()
	if err != nil || atom.Atom == xproto.AtomNone {
		return nil
	}
	p, err := xproto.GetProperty(x, false, w, atom.Atom, xproto.GetPropertyTypeAny, 0, long).Reply()
	if err != nil || len(p.Value) == 0 {
		return nil
	}
	return p.Value
}

// displayFault says in words for people why a display can't be opened.
func displayFault(name string, err error) Fault {
	words := err.Error()
	var dial *net.OpError
	switch {
	case errors.Is(err, ErrStuck):
		return Fault{"the X server doesn't answer", "look whether it hangs"}
	case strings.Contains(words, "authentication"), strings.Contains(words, "auth protocol"):
		return Fault{"the X server doesn't let this user in", "set XAUTHORITY to a cookie file of that session that this user can read: in the session, echo $XAUTHORITY; or there: xhost +si:localuser:USER"}
	case errors.As(err, &dial), strings.Contains(words, "cannot connect"):
		remedy := "start the X server, or set DISPLAY to one that runs"
		if strings.HasPrefix(name, ":") {
			if _, err := os.Stat(filepath.Join("/tmp/.X11-unix", "X"+name[1:])); err == nil {
				remedy = "the socket was left behind by an X server that ended: start one, or remove /tmp/.X11-unix/X" + name[1:]
			}
		}
		return Fault{"no X server answers", remedy}
	}
	return Fault{oneLine(words), "see whether xdpyinfo -display " + name + " works"}
}
