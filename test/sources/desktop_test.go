package sources

import (
	"fmt"
	"image"
	"image/color"
	"io"
	"testing"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/randr"
	"github.com/jezek/xgb/xproto"

	"gateway/internal/media"
	"gateway/test/rig"
)

func init() { xgb.Logger.SetOutput(io.Discard) } // it repeats what calls return as errors

var (
	red   = color.RGBA{200, 30, 40, 255}
	green = color.RGBA{30, 160, 60, 255}
	blue  = color.RGBA{40, 60, 190, 255}
	grey  = color.RGBA{120, 120, 120, 255}
)

// window opens a window of one colour on a display, until close or the test's end.
// Without a window manager it is just where it says.
func window(t *testing.T, display, title string, c color.RGBA, at image.Rectangle) (id xproto.Window, close func()) {
	t.Helper()
	x, err := xgb.NewConnDisplay(display)
	rig.Check(t, err)
	t.Cleanup(x.Close)
	screen := xproto.Setup(x).DefaultScreen(x)
	id, err = xproto.NewWindowId(x)
	rig.Check(t, err)
	colour := uint32(c.R)<<16 | uint32(c.G)<<8 | uint32(c.B)
	xproto.CreateWindow(x, screen.RootDepth, id, screen.Root, int16(at.Min.X), int16(at.Min.Y), uint16(at.Dx()), uint16(at.Dy()), 0,
		xproto.WindowClassInputOutput, screen.RootVisual, xproto.CwBackPixel, []uint32{colour})
	xproto.ChangeProperty(x, xproto.PropModeReplace, id, xproto.AtomWmName, xproto.AtomString, 8, uint32(len(title)), []byte(title))
	rig.Check(t, xproto.MapWindowChecked(x, id).Check())
	xproto.WarpPointer(x, 0, screen.Root, 0, 0, 0, 0, int16(screen.WidthInPixels/2), int16(screen.HeightInPixels/2))
	_, err = xproto.GetInputFocus(x).Reply() // an answer comes after all that
	rig.Check(t, err)
	return id, x.Close
}

// shows tells whether a picture of 160x90 has colours at its four corners, from
// the upper left one clockwise.
func shows(corners ...color.RGBA) func(*image.RGBA) bool {
	at := []image.Point{{8, 6}, {152, 6}, {152, 84}, {8, 84}}
	return func(p *image.RGBA) bool {
		for i, c := range corners {
			if !near(p.RGBAAt(at[i].X, at[i].Y), c) {
				return false
			}
		}
		return true
	}
}

func TestDesktop(t *testing.T) {
	ctx := bounded(t, time.Minute)
	needElement(t, "gstreamer1.0-plugins-good", "ximagesrc")
	x, err := rig.StartXvfb(ctx, rig.XOptions{Width: 640, Height: 360})
	rig.Check(t, err)
	rig.End(t, "Xvfb", x.Close)
	window(t, x.Display, "background", grey, image.Rect(0, 0, 640, 360))
	id, _ := window(t, x.Display, "The red one", red, image.Rect(0, 0, 320, 180))
	window(t, x.Display, "green", green, image.Rect(320, 0, 640, 180))
	window(t, x.Display, "blue", blue, image.Rect(320, 180, 640, 360))

	source := "source: ximagesrc display-name=" + x.Display
	video := "\nvideo: {codec: vp8, framerate: 10}\n"
	g := startGateway(ctx, t, map[string]string{
		"whole":     source + " show-pointer=false" + video,
		"damage":    source + " use-damage=true" + video,
		"scaled":    source + "\nvideo: {codec: vp8, width: 160, height: 90, framerate: 10}\n",
		"region":    source + " startx=320 starty=180 endx=639 endy=359" + video,
		"by-name":   source + ` xname="The red one"` + video,
		"by-number": source + fmt.Sprintf(" xid=0x%x", id) + video,
		"middle":    source + " startx=288 starty=162 endx=351 endy=197" + video,
		"no-cursor": source + " startx=288 starty=162 endx=351 endy=197 show-pointer=false" + video,
	})
	for _, c := range []struct {
		name          string
		width, height int
		corners       []color.RGBA
	}{
		{"whole", 640, 360, []color.RGBA{red, green, blue, grey}},
		{"damage", 640, 360, []color.RGBA{red, green, blue, grey}},
		{"scaled", 160, 90, []color.RGBA{red, green, blue, grey}},
		{"region", 320, 180, []color.RGBA{blue, blue, blue, blue}},
		{"by-name", 320, 180, []color.RGBA{red, red, red, red}},
		{"by-number", 320, 180, []color.RGBA{red, red, red, red}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := watch(ctx, t, g, c.name, media.VP8)
			w.settles(ctx, t, "its colours", shows(c.corners...))
			s, err := g.Stream(ctx, c.name)
			rig.Check(t, err)
			if tr := s.Tracks[0]; tr.Width != c.width || tr.Height != c.height {
				t.Errorf("it is %dx%d, want %dx%d", tr.Width, tr.Height, c.width, c.height)
			}
		})
	}
	t.Run("cursor", func(t *testing.T) {
		// the pointer is where the four meet: drawn, it is neither of them
		isCursor := func(p *image.RGBA) bool {
			n := 0
			for y := 35; y < 55; y++ {
				for x := 70; x < 90; x++ {
					if c := p.RGBAAt(x, y); int(c.R)+int(c.G)+int(c.B) < 90 || int(c.R)+int(c.G)+int(c.B) > 660 {
						n++
					}
				}
			}
			return n > 20
		}
		watch(ctx, t, g, "middle", media.VP8).settles(ctx, t, "the pointer", isCursor)
		watch(ctx, t, g, "no-cursor", media.VP8).settles(ctx, t, "the screen without a pointer", func(p *image.RGBA) bool {
			return shows(red, green, blue, grey)(p) && !isCursor(p)
		})
	})
}

// resize gives a display's screen another size, no larger than its first.
func resize(t *testing.T, display string, width, height int) {
	t.Helper()
	x, err := xgb.NewConnDisplay(display)
	rig.Check(t, err)
	defer x.Close()
	rig.Check(t, randr.Init(x))
	_, err = randr.QueryVersion(x, 1, 5).Reply()
	rig.Check(t, err)
	root := xproto.Setup(x).DefaultScreen(x).Root
	had, err := randr.GetScreenResources(x, root).Reply()
	rig.Check(t, err)
	for _, crtc := range had.Crtcs { // a screen isn't smaller than what is shown of it
		_, err := randr.SetCrtcConfig(x, crtc, 0, had.ConfigTimestamp, 0, 0, 0, randr.RotationRotate0, nil).Reply()
		rig.Check(t, err)
	}
	rig.Check(t, randr.SetScreenSizeChecked(x, root, uint16(width), uint16(height), uint32(width)/4, uint32(height)/4).Check())
}

// The screen becomes smaller and larger under its viewer, as RandR does it, and then
// its X server is another, with a screen of another size.
func TestScreenOfAnotherSize(t *testing.T) {
	ctx := bounded(t, time.Minute)
	x, err := rig.StartXvfb(ctx, rig.XOptions{Width: 640, Height: 360})
	rig.Check(t, err)
	rig.End(t, "Xvfb", func() error { return x.Close() })
	paint := func() {
		window(t, x.Display, "left", red, image.Rect(0, 0, 320, 360))
		window(t, x.Display, "right", blue, image.Rect(320, 0, 640, 360))
	}
	paint()
	g := startGateway(ctx, t, map[string]string{"desk": "source: ximagesrc display-name=" + x.Display + "\nvideo: {codec: vp8, framerate: 10}\n"})
	w := watch(ctx, t, g, "desk", media.VP8)
	w.settles(ctx, t, "both windows", shows(red, blue, blue, red))
	becomes := func(what string, width, height int, corners ...color.RGBA) {
		t.Helper()
		begun := time.Now()
		rig.Check(t, rig.Until(ctx, what, func() (bool, error) {
			s, err := g.Stream(ctx, "desk")
			return err == nil && s.Tracks[0].Width == width && s.Tracks[0].Height == height && s.State == "live" && s.Viewers == 1, err
		}))
		w.settles(ctx, t, what, shows(corners...))
		t.Logf("%s is seen after %s", what, time.Since(begun).Round(time.Millisecond))
	}
	resize(t, x.Display, 320, 180)
	becomes("the smaller screen", 320, 180, red, red, red, red)
	resize(t, x.Display, 640, 360)
	becomes("the larger screen", 640, 360, red, blue, blue, red)

	rig.Check(t, x.Close())
	rig.Check(t, g.WaitState(ctx, "desk", "absent"))
	x, err = rig.StartXvfb(ctx, rig.XOptions{Width: 320, Height: 180, Display: x.Display})
	rig.Check(t, err)
	window(t, x.Display, "green", green, image.Rect(0, 0, 320, 180))
	becomes("another X server's screen", 320, 180, green, green, green, green)
}

// A window that isn't there yet is absent; it is seen once it is opened, and its
// viewers stay when it is closed and opened anew.
func TestWindowThatComesAndGoes(t *testing.T) {
	ctx := bounded(t, time.Minute)
	x, err := rig.StartXvfb(ctx, rig.XOptions{Width: 640, Height: 360})
	rig.Check(t, err)
	rig.End(t, "Xvfb", x.Close)
	g := startGateway(ctx, t, map[string]string{"app": "source: ximagesrc display-name=" + x.Display + " xname=app\nvideo: {codec: vp8, width: 320, height: 180, framerate: 10}\n"})
	rig.Check(t, g.WaitState(ctx, "app", "absent"))
	_, close := window(t, x.Display, "app", red, image.Rect(0, 0, 320, 180))
	rig.Check(t, g.WaitState(ctx, "app", "idle"))
	w := watch(ctx, t, g, "app", media.VP8)
	w.settles(ctx, t, "the window", shows(red, red, red, red))
	close()
	rig.Check(t, rig.Until(ctx, "the gateway to notice", func() (bool, error) {
		s, err := g.Stream(ctx, "app")
		return err == nil && s.State != "live", err
	}))
	window(t, x.Display, "app", blue, image.Rect(100, 100, 420, 280))
	w.settles(ctx, t, "the new window", shows(blue, blue, blue, blue))
}
