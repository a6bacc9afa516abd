package gst

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"

	"gateway/internal/config"
)

// maxTree is how many windows of a display are looked at for a title.
const maxTree = 8192

// window is one that an ximagesrc is to capture, or the screen, on a connection of
// its own. ximagesrc (GStreamer 1.22) shows the whole screen when it doesn't find
// the window, and goes on with the last picture when it is closed, hidden or has
// another size. Of a screen that RandR has made larger it goes on with the part that
// was there; of one that is smaller, with the last picture.
type window struct {
	x             *xgb.Conn
	id            xproto.Window
	what          string // "the window 0x1c00007", "the screen :0"
	width, height uint16
}

// openWindows finds the windows and screens that a text's ximagesrcs capture, and
// follows them from here on. An error says that a window isn't there. It may block as long as an X server
// does.
func openWindows(text string) (windows []*window, err error) {
	nodes, err := config.ParseLaunch(text)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if n.Kind != config.LaunchElement || n.Name != "ximagesrc" {
			continue
		}
		w, err := openWindow(&n)
		if err != nil {
			closeWindows(windows)
			return nil, err
		}
		if w != nil {
			windows = append(windows, w)
		}
	}
	return windows, nil
}

// openWindow is openWindows for one ximagesrc; nil if its display can't be opened.
func openWindow(n *config.LaunchNode) (w *window, err error) {
	title, named := n.Prop("xname")
	number, numbered := n.Prop("xid")
	id, _ := strconv.ParseUint(number, 0, 32)
	screen := !named && (!numbered || id == 0)
	display, ok := n.Prop("display-name")
	if !ok {
		display = os.Getenv("DISPLAY")
	}
	x, err := xgb.NewConnDisplay(display)
	if err != nil {
		return nil, nil // ximagesrc says it in its own words
	}
	defer func() {
		if fault := recover(); fault != nil { // xgb parses answers without a look at their length
			err = fmt.Errorf("the answer of the X display %s can't be read: %v", display, fault)
		}
		if err != nil {
			x.Close()
		}
	}()
	w = &window{x: x, id: xproto.Window(id), what: "the window " + number}
	root := xproto.Setup(x).DefaultScreen(x).Root
	switch {
	case screen:
		w.id, w.what = root, "the screen "+display
	case named: // of both it heeds the title
		w.what = "the window " + strconv.Quote(title)
		left := maxTree
		w.id = findTitle(x, root, title, &left)
	}
	return w, w.follow()
}

// findTitle finds the window that ximagesrc takes for a title, 0 without one: the
// first, from w down, whose WM_NAME is the same.
func findTitle(x *xgb.Conn, w xproto.Window, title string, left *int) xproto.Window {
	if *left--; *left < 0 {
		return 0
	}
	name, err := xproto.GetProperty(x, false, w, xproto.AtomWmName, xproto.AtomString, 0, 1024).Reply()
	if err == nil {
		if value, _, _ := bytes.Cut(name.Value, []byte{0}); name.Format == 8 && string(value) == title {
			return w
		}
	}
	tree, err := xproto.QueryTree(x, w).Reply()
	if err != nil {
		return 0
	}
	for _, child := range tree.Children {
		if found := findTitle(x, child, title, left); found != 0 {
			return found
		}
	}
	return 0
}

// follow asks for the window's events and looks whether it can be captured.
func (w *window) follow() error {
	gone := fmt.Errorf("%s isn't there: open it, or give the title or number that xwininfo shows", w.what)
	if w.id == 0 {
		return gone
	}
	xproto.ChangeWindowAttributes(w.x, w.id, xproto.CwEventMask, []uint32{xproto.EventMaskStructureNotify})
	attributes, err := xproto.GetWindowAttributes(w.x, w.id).Reply()
	if err != nil {
		return gone
	}
	if attributes.MapState != xproto.MapStateViewable {
		return fmt.Errorf("%s is hidden", w.what)
	}
	shape, err := xproto.GetGeometry(w.x, xproto.Drawable(w.id)).Reply()
	if err != nil {
		return gone
	}
	w.width, w.height = shape.Width, shape.Height
	return nil
}

// lost is why the window can't be captured any more, or not as it was. It doesn't
// block.
func (w *window) lost() error {
	for {
		event, err := w.x.PollForEvent()
		switch e := event.(type) {
		case xproto.UnmapNotifyEvent: // a window that is closed is hidden first
			return errors.New(w.what + " was closed or hidden")
		case xproto.ConfigureNotifyEvent:
			if e.Width != w.width || e.Height != w.height {
				return fmt.Errorf("%s is %dx%d now", w.what, e.Width, e.Height)
			}
		}
		if event == nil && err == nil {
			return nil
		}
	}
}

func closeWindows(windows []*window) {
	for _, w := range windows {
		w.x.Close()
	}
}
