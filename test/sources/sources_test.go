// Package sources tests each kind of source as its users meet it: a real camera on
// the network, a screen, a sound server, a file, another program, the gateway as a
// process, and a viewer that decodes what it is sent.
//
// pipewiresrc (a desktop portal) and libcamerasrc (a Raspberry Pi's camera) can't
// be had here: what they compile to is tested in internal/config.
package sources

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

func TestMain(m *testing.M) {
	status := m.Run()
	rig.RemoveBinary()
	os.Exit(status)
}

func bounded(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// startGateway starts a gateway that ends with the test, and prints its log when
// the test has failed. The log names every GStreamer element that is made.
func startGateway(ctx context.Context, t *testing.T, pipelines map[string]string, env ...string) *rig.Gateway {
	t.Helper()
	g, err := rig.StartGateway(ctx, rig.GatewayOptions{Pipelines: pipelines, Env: append(env, "GST_DEBUG=GST_ELEMENT_FACTORY:4")})
	rig.Check(t, err)
	rig.End(t, "gateway", g.Close)
	t.Cleanup(func() {
		if t.Failed() {
			for line := range strings.Lines(g.Log()) {
				if !strings.Contains(line, "GST_ELEMENT_FACTORY") {
					t.Log(strings.TrimSpace(line))
				}
			}
		}
	})
	return g
}

var (
	elementMade = regexp.MustCompile(`creating element \\?"([a-zA-Z0-9_]+)`)
	codecName   = regexp.MustCompile(`^(.*(enc|dec|decodebin3?|encodebin)|av(enc|dec)_.*)$`)
)

// codecElements are the elements that the gateway has made, and that encode or
// decode pictures.
func codecElements(g *rig.Gateway) (names []string) {
	for _, m := range elementMade.FindAllStringSubmatch(g.Log(), -1) {
		if codecName.MatchString(m[1]) && !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	return names
}

// straightThrough checks that nothing was encoded or decoded.
func straightThrough(ctx context.Context, t *testing.T, g *rig.Gateway, name string) {
	t.Helper()
	if !elementMade.MatchString(g.Log()) {
		t.Error("the log doesn't tell which elements are made")
	}
	if made := codecElements(g); len(made) > 0 {
		t.Errorf("elements that encode or decode: %v", made)
	}
	s, err := g.Stream(ctx, name)
	rig.Check(t, err)
	for _, track := range s.Tracks {
		if track.Encoder != "" || slices.ContainsFunc(strings.Fields(track.Launch), codecName.MatchString) {
			t.Errorf("track %s: encoder %q, launch %s", track.Name, track.Encoder, track.Launch)
		}
	}
}

// launch starts gst-launch-1.0 with a text, until the test ends.
func launch(t *testing.T, text string, env ...string) *rig.Process {
	t.Helper()
	path, err := rig.Need("gst-launch-1.0", "gstreamer1.0-tools")
	rig.Check(t, err)
	p, err := rig.Start(rig.Command{Path: path, Args: append([]string{"-q"}, strings.Fields(text)...), Env: env})
	rig.Check(t, err)
	rig.End(t, "gst-launch-1.0", p.Close)
	return p
}

// needElement skips the test unless the elements are installed.
func needElement(t *testing.T, debian string, elements ...string) {
	t.Helper()
	path, err := rig.Need("gst-inspect-1.0", "gstreamer1.0-tools")
	rig.Check(t, err)
	for _, e := range elements {
		if exec.Command(path, "--exists", e).Run() != nil {
			rig.Check(t, &rig.Missing{What: "the element " + e, Remedy: "apt-get install " + debian})
		}
	}
}

// watched is a stream as a viewer sees it.
type watched struct {
	*viewer.Viewer
	pictures chan *image.RGBA // the newest ones; older ones give way
}

// watch watches a stream in one codec, its pictures scaled to 160x90, until the test ends.
func watch(ctx context.Context, t *testing.T, g *rig.Gateway, name string, codec media.Codec) *watched {
	t.Helper()
	w := &watched{pictures: make(chan *image.RGBA, 4)}
	d, err := viewer.NewDecoder(codec, 160, 90, func(p *image.RGBA) {
		for {
			select {
			case w.pictures <- p:
				return
			default:
			}
			select {
			case <-w.pictures:
			default:
			}
		}
	})
	rig.Check(t, err)
	rig.End(t, "decoder", d.Close)
	w.Viewer, err = viewer.Watch(ctx, viewer.Options{
		URL: g.URL("/whep/" + name), Codecs: []media.Codec{codec, media.Opus},
		OnRTP: func(c media.Codec, p *rtp.Packet) {
			if c == codec && len(p.Payload) > 0 {
				d.Write(p) // an error means that the decoder has ended: no pictures then
			}
		},
	})
	rig.Check(t, err)
	rig.End(t, "viewer", w.Close)
	return w
}

// picture waits for the next picture.
func (w *watched) picture(ctx context.Context, t *testing.T) *image.RGBA {
	t.Helper()
	select {
	case p := <-w.pictures:
		return p
	case <-ctx.Done():
		t.Fatalf("no picture: %v; seen %+v", ctx.Err(), w.Seen())
	}
	panic("unreachable")
}

// moves waits until n pictures differ from the one before.
func (w *watched) moves(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	before := w.picture(ctx, t)
	for n > 0 {
		p := w.picture(ctx, t)
		if differs(before, p) {
			n--
		}
		before = p
	}
}

// settles waits for a picture for which ok is true.
func (w *watched) settles(ctx context.Context, t *testing.T, what string, ok func(*image.RGBA) bool) {
	t.Helper()
	var last *image.RGBA
	for {
		select {
		case p := <-w.pictures:
			if last = p; ok(p) {
				return
			}
			continue
		case <-ctx.Done():
		}
		if last != nil {
			keep(t, last)
		}
		t.Fatalf("no picture shows %s", what)
	}
}

// keep writes a picture into the folder that `go test -artifacts` names.
func keep(t *testing.T, p *image.RGBA) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.ArtifactDir(), "last.png"))
	rig.Check(t, err)
	defer file.Close()
	rig.Check(t, png.Encode(file, p))
	t.Logf("the last picture is %s", file.Name())
}

// differs tells whether some pixels of two pictures do, by more than an encoder's noise.
func differs(a, b *image.RGBA) bool {
	n := 0
	for i := range a.Pix {
		if d := int(a.Pix[i]) - int(b.Pix[i]); d > 60 || d < -60 {
			n++
		}
	}
	return n > 20
}

// near tells whether a pixel has a colour, but for what encoding costs a flat one.
func near(got, want color.RGBA) bool {
	for _, d := range []int{int(got.R) - int(want.R), int(got.G) - int(want.G), int(got.B) - int(want.B)} {
		if d > 24 || d < -24 {
			return false
		}
	}
	return true
}

// ball is a moving picture of 320x180.
const ball = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=180,framerate=15/1"

// h264 encodes for a viewer of a straight-through stream.
func h264(profile string) string {
	return fmt.Sprintf(" ! x264enc tune=zerolatency speed-preset=superfast bitrate=500 key-int-max=30 bframes=0 ! video/x-h264,profile=%s ", profile)
}
