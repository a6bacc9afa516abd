package strip_test

import (
	"context"
	"image"
	"image/color"
	"testing"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"

	"gateway/test/rig"
	"gateway/test/strip"
)

// TestPaintedScreenTellsItsTime paints on a real X screen and reads the screen's
// own pixels back.
func TestPaintedScreenTellsItsTime(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	x, err := rig.StartXvfb(ctx, rig.XOptions{})
	rig.Check(t, err)
	rig.End(t, "Xvfb", x.Close)
	p, err := strip.NewPainter(x.Display)
	rig.Check(t, err)
	defer p.Close()

	at := time.Now().Add(-3 * time.Second)
	for range 400 { // the bar comes round
		rig.Check(t, p.Paint(at))
	}
	shot := screenshot(t, x.Display)
	got, err := strip.Read(shot, shot.Bounds().Dx(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got.UnixMilli() != at.UnixMilli() {
		t.Errorf("the screen shows %d ms, painted %d ms", got.UnixMilli(), at.UnixMilli())
	}
	for i, want := range strip.Patches {
		if got := shot.At(i*strip.PatchSize+strip.PatchSize/2, strip.PatchTop+strip.PatchSize/2); got != color.Color(want) {
			t.Errorf("patch %d is %v, want %v", i, got, want)
		}
	}
}

func screenshot(t *testing.T, display string) image.Image {
	x, err := xgb.NewConnDisplay(display)
	rig.Check(t, err)
	defer x.Close()
	screen := xproto.Setup(x).DefaultScreen(x)
	w, h := screen.WidthInPixels, screen.HeightInPixels
	reply, err := xproto.GetImage(x, xproto.ImageFormatZPixmap, xproto.Drawable(screen.Root), 0, 0, w, h, 1<<32-1).Reply()
	rig.Check(t, err)
	picture := image.NewRGBA(image.Rect(0, 0, int(w), int(h)))
	for i := 0; i+3 < len(reply.Data); i += 4 {
		picture.Pix[i], picture.Pix[i+1], picture.Pix[i+2], picture.Pix[i+3] = reply.Data[i+2], reply.Data[i+1], reply.Data[i], 255
	}
	return picture
}
