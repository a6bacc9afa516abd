package gst

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/randr"
	"github.com/jezek/xgb/xproto"

	"gateway/internal/media"
)

// openTestWindow opens a window of 200x120 with a title, inside another one, as
// window managers have it.
func openTestWindow(t *testing.T, display, title string) (*xgb.Conn, xproto.Window) {
	t.Helper()
	x, err := xgb.NewConnDisplay(display)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	screen := xproto.Setup(x).DefaultScreen(x)
	frame, _ := xproto.NewWindowId(x)
	id, _ := xproto.NewWindowId(x)
	xproto.CreateWindow(x, screen.RootDepth, frame, screen.Root, 0, 0, 210, 150, 0, xproto.WindowClassInputOutput, screen.RootVisual, 0, nil)
	xproto.CreateWindow(x, screen.RootDepth, id, frame, 5, 25, 200, 120, 0, xproto.WindowClassInputOutput, screen.RootVisual, 0, nil)
	xproto.ChangeProperty(x, xproto.PropModeReplace, id, xproto.AtomWmName, xproto.AtomString, 8, uint32(len(title)), []byte(title))
	xproto.MapWindow(x, id)
	if err := xproto.MapWindowChecked(x, frame).Check(); err != nil {
		t.Fatal(err)
	}
	return x, id
}

// ximagesrc shows the whole screen when it doesn't find the window that it is told.
func TestWindowThatIsNotThereIsAbsent(t *testing.T) {
	display, _ := startXvfb(t)
	x, id := openTestWindow(t, display, "The Editor")
	r := NewRegistry()
	source := "ximagesrc display-name=" + display
	for _, which := range []string{` xname="The Editor"`, fmt.Sprintf(" xid=%d", id), fmt.Sprintf(" xid=0x%x", id)} {
		if f, err := r.Formats(source + which); err != nil || len(f) == 0 || f[0].MaxWidth != 200 || f[0].MaxHeight != 120 {
			t.Errorf("%s: %+v, %v", which, f, err)
		}
	}
	for _, which := range []string{" xname=Editor", " xid=0x7654321"} {
		if f, err := r.Formats(source + which); err == nil || !strings.Contains(err.Error(), "isn't there") {
			t.Errorf("%s: %+v, %v", which, f, err)
		}
	}
	xproto.UnmapWindowChecked(x, id).Check()
	if _, err := r.Formats(source + ` xname="The Editor"`); err == nil || !strings.Contains(err.Error(), "hidden") {
		t.Errorf("a hidden window: %v", err)
	}
}

// It goes on with the last picture, or a part of one, when the window isn't what it was.
func TestCaptureEndsWithItsWindow(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(*xgb.Conn, xproto.Window)
	}{
		{"closed", "closed", func(x *xgb.Conn, w xproto.Window) { xproto.DestroyWindow(x, w) }},
		{"hidden", "hidden", func(x *xgb.Conn, w xproto.Window) { xproto.UnmapWindow(x, w) }},
		{"resized", "320x200", func(x *xgb.Conn, w xproto.Window) {
			xproto.ConfigureWindow(x, w, xproto.ConfigWindowWidth|xproto.ConfigWindowHeight, []uint32{320, 200})
		}},
	} {
		want, change := c.want, c.change
		t.Run(c.name, func(t *testing.T) {
			display, _ := startXvfb(t)
			x, id := openTestWindow(t, display, "app")
			_, c := launch(t, "ximagesrc use-damage=false xname=app display-name="+display+" ! video/x-raw,framerate=30/1 ! videoconvert ! "+x264+sink, media.H264)
			next(t, c).Release()
			xproto.ConfigureWindow(x, id, xproto.ConfigWindowX, []uint32{2}) // moved is no matter
			next(t, c).Release()
			change(x, id)
			select {
			case err := <-c.failure:
				if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"app"`) {
					t.Errorf("reported %v", err)
				}
			case <-time.After(deadline):
				t.Error("nothing was reported")
			}
		})
	}
}

// resize makes a display's screen smaller, or as large again as it was at first, as
// xrandr --fb does with what it shows.
func resize(t *testing.T, display string, width, height uint16) {
	t.Helper()
	x, err := xgb.NewConnDisplay(display)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := randr.Init(x); err != nil {
		t.Fatal(err)
	}
	root := xproto.Setup(x).DefaultScreen(x).Root
	if _, err := randr.QueryVersion(x, 1, 5).Reply(); err != nil {
		t.Fatal(err)
	}
	had, err := randr.GetScreenResources(x, root).Reply()
	if err != nil {
		t.Fatal(err)
	}
	for _, crtc := range had.Crtcs { // a screen isn't smaller than what is shown of it
		if _, err := randr.SetCrtcConfig(x, crtc, 0, had.ConfigTimestamp, 0, 0, 0, randr.RotationRotate0, nil).Reply(); err != nil {
			t.Fatal(err)
		}
	}
	if err := randr.SetScreenSizeChecked(x, root, width, height, uint32(width)/4, uint32(height)/4).Check(); err != nil {
		t.Fatal(err)
	}
}

// ximagesrc goes on with the old size, or with the last picture.
func TestCaptureEndsWhenTheScreenIsResized(t *testing.T) {
	display, _ := startXvfb(t)
	source := "ximagesrc use-damage=false display-name=" + display
	for _, size := range [][2]uint16{{320, 240}, {640, 480}} {
		now := fmt.Sprintf("%dx%d", size[0], size[1])
		t.Run(now, func(t *testing.T) {
			_, c := launch(t, source+" ! video/x-raw,framerate=30/1 ! videoconvert ! "+x264+sink, media.H264)
			next(t, c).Release()
			resize(t, display, size[0], size[1])
			select {
			case err := <-c.failure:
				if want := "the screen " + display + " is " + now + " now"; err.Error() != want {
					t.Errorf("reported %v, want %s", err, want)
				}
			case <-time.After(deadline):
				t.Fatal("nothing was reported")
			}
			if got := delivers(t, source); got != now {
				t.Errorf("then it delivers %s", got)
			}
		})
	}
}
