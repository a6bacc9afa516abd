package strip

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"
)

// Painter paints on one X screen. It is used by one goroutine at a time.
type Painter struct {
	x             *xgb.Conn
	window        xproto.Window
	pixmap        xproto.Pixmap
	gc            xproto.Gcontext
	width, height int // of the screen, pixels
	bar           int // left edge of the moving bar
}

// The picture below the patches.
const (
	background = 0x406080
	barColour  = 0xe0c040
	barWidth   = 64
	barStep    = 4 // pixels a painting
)

func init() {
	xgb.Logger.SetOutput(io.Discard) // it repeats what calls return as errors
}

// NewPainter opens a window over the whole screen of a display, such as ":7".
func NewPainter(display string) (*Painter, error) {
	x, err := xgb.NewConnDisplay(display)
	if err != nil {
		return nil, fmt.Errorf("strip: display %s: %w", display, err)
	}
	p := &Painter{x: x}
	if err := p.open(); err != nil {
		x.Close()
		return nil, fmt.Errorf("strip: display %s: %w", display, err)
	}
	return p, nil
}

func (p *Painter) open() error {
	screen := xproto.Setup(p.x).DefaultScreen(p.x)
	p.width, p.height = int(screen.WidthInPixels), int(screen.HeightInPixels)
	if p.width < Width || p.height < Height {
		return fmt.Errorf("the screen's %dx%d are less than %dx%d", p.width, p.height, Width, Height)
	}
	var err error
	if p.window, err = xproto.NewWindowId(p.x); err != nil {
		return err
	}
	if p.pixmap, err = xproto.NewPixmapId(p.x); err != nil {
		return err
	}
	if p.gc, err = xproto.NewGcontextId(p.x); err != nil {
		return err
	}
	w, h := uint16(p.width), uint16(p.height)
	xproto.CreateWindow(p.x, screen.RootDepth, p.window, screen.Root, 0, 0, w, h, 0, xproto.WindowClassInputOutput, screen.RootVisual,
		xproto.CwBackPixel|xproto.CwOverrideRedirect, []uint32{background, 1})
	xproto.CreatePixmap(p.x, screen.RootDepth, p.pixmap, xproto.Drawable(p.window), w, h)
	xproto.CreateGC(p.x, p.gc, xproto.Drawable(p.pixmap), xproto.GcGraphicsExposures, []uint32{0})
	if err := xproto.MapWindowChecked(p.x, p.window).Check(); err != nil {
		return err
	}
	p.fill(background, 0, 0, p.width, p.height)
	for i, c := range Patches {
		p.fill(uint32(c.R)<<16|uint32(c.G)<<8|uint32(c.B), i*PatchSize, PatchTop, PatchSize, PatchSize)
	}
	return p.show(0, 0, p.width, p.height)
}

// Paint paints one picture that shows t, and returns when the X server has done
// so.
func (p *Painter) Paint(t time.Time) error {
	p.fill(background, p.bar, Height, barWidth, p.height-Height)
	from := p.bar
	p.bar = (p.bar + barStep) % (p.width - barWidth)
	p.fill(barColour, p.bar, Height, barWidth, p.height-Height)

	p.fill(0, 0, 0, p.width, 2*Cell)
	var white []xproto.Rectangle
	for i, on := range bits(t) {
		if on {
			white = append(white, xproto.Rectangle{X: int16(i * Cell), Width: Cell, Height: Cell})
		}
	}
	xproto.ChangeGC(p.x, p.gc, xproto.GcForeground, []uint32{0xffffff})
	xproto.PolyFillRectangle(p.x, xproto.Drawable(p.pixmap), p.gc, white)

	if p.bar < from { // it began again at the left
		p.copy(0, Height, barWidth, p.height-Height)
		p.copy(from, Height, barWidth, p.height-Height)
	} else {
		p.copy(from, Height, barWidth+barStep, p.height-Height)
	}
	return p.show(0, 0, p.width, 2*Cell)
}

// Run paints hz pictures a second until ctx is done, which is no error, or the X
// server is gone.
func (p *Painter) Run(ctx context.Context, hz int) error {
	tick := time.NewTicker(time.Second / time.Duration(hz))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := p.Paint(time.Now()); err != nil {
			return fmt.Errorf("strip: paint: %w", err)
		}
	}
}

// Keep opens a window over a display and paints hz pictures a second until stop is
// called, which waits for the end, or ctx is done. A screen that stands still shows in
// what is measured.
func Keep(ctx context.Context, display string, hz int) (stop func(), err error) {
	p, err := NewPainter(display)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx, hz)
	}()
	return func() {
		cancel()
		<-done
		p.Close()
	}, nil
}

// Hide takes the picture off the screen, which is black then.
func (p *Painter) Hide() error { return xproto.UnmapWindowChecked(p.x, p.window).Check() }

// Show puts it on again.
func (p *Painter) Show() error {
	if err := xproto.MapWindowChecked(p.x, p.window).Check(); err != nil {
		return err
	}
	return p.show(0, 0, p.width, p.height)
}

// Close closes the window.
func (p *Painter) Close() error {
	p.x.Close()
	return nil
}

func (p *Painter) fill(colour uint32, x, y, w, h int) {
	xproto.ChangeGC(p.x, p.gc, xproto.GcForeground, []uint32{colour})
	xproto.PolyFillRectangle(p.x, xproto.Drawable(p.pixmap), p.gc, []xproto.Rectangle{{X: int16(x), Y: int16(y), Width: uint16(w), Height: uint16(h)}})
}

func (p *Painter) copy(x, y, w, h int) {
	xproto.CopyArea(p.x, xproto.Drawable(p.pixmap), xproto.Drawable(p.window), p.gc, int16(x), int16(y), int16(x), int16(y), uint16(w), uint16(h))
}

// show copies and waits until the X server has done all that it was sent.
func (p *Painter) show(x, y, w, h int) error {
	return xproto.CopyAreaChecked(p.x, xproto.Drawable(p.pixmap), xproto.Drawable(p.window), p.gc, int16(x), int16(y), int16(x), int16(y), uint16(w), uint16(h)).Check()
}
