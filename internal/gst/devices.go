package gst

import (
	"context"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
)

// devicesTimeout bounds each question to a device, a display or a sound server.
const devicesTimeout = 3 * time.Second

// Devices is what this machine can capture. The JSON names are public:
// docs/operations.md. Every ID stays the same as long as the device stays in its
// place, or longer; it is no secret and no path.
//
// Source is launch text: what a pipeline's source says to capture that thing. It
// is there for things that can't be opened now too.
type Devices struct {
	Cameras  []Camera  `json:"cameras"`
	Displays []Display `json:"displays"`
	Windows  []Window  `json:"windows"`  // of the displays that let this user in
	Monitors []Monitor `json:"monitors"` // likewise
	Audio    []Audio   `json:"audio"`
	Notes    []string  `json:"notes"` // what couldn't be asked, and why
}

// Fault is why a thing can't be captured now. The zero value: it can, as far as
// is seen without capturing.
type Fault struct {
	Problem string `json:"problem,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
}

// Camera is a capture device of V4L2, or another source of video that a plugin of
// GStreamer found (libcamera, PipeWire, a capture card).
type Camera struct {
	ID      string        `json:"id"`
	Name    string        `json:"name"`
	Driver  string        `json:"driver"` // the kernel's, or the API: "libcamera"
	Bus     string        `json:"bus,omitempty"`
	Device  string        `json:"device,omitempty"` // the node that it has now: "/dev/video0"
	Path    string        `json:"path,omitempty"`   // a link to it that stays, under /dev/v4l
	Source  string        `json:"source"`
	Formats []VideoFormat `json:"formats"`
	Fault
}

// VideoFormat is one format of a camera, in all its sizes.
type VideoFormat struct {
	Name  string      `json:"name"` // four characters of V4L2: "MJPG", "YUYV", "H264"; else a media type
	Sizes []VideoSize `json:"sizes"`
}

// VideoSize is one size, or all between two.
type VideoSize struct {
	Width     int       `json:"width"` // pixels
	Height    int       `json:"height"`
	MinWidth  int       `json:"minWidth,omitempty"` // given: all sizes from this one up to Width and Height
	MinHeight int       `json:"minHeight,omitempty"`
	Rates     []float64 `json:"rates"`             // frames a second, highest first; empty: unknown
	MinRate   float64   `json:"minRate,omitempty"` // given: all rates from this one up to the first
}

// Display is an X server that runs here, or that DISPLAY names.
type Display struct {
	ID     string `json:"id"`
	Name   string `json:"name"`            // ":0", as DISPLAY has it
	Width  int    `json:"width,omitempty"` // pixels
	Height int    `json:"height,omitempty"`
	Source string `json:"source"`
	Fault
}

// Window is a top-level window that is shown on a display.
type Window struct {
	ID      string `json:"id"`
	Display string `json:"display"`
	XID     string `json:"xid"` // "0x1a00003"; as long as the window is there
	Title   string `json:"title"`
	Class   string `json:"class"` // of the program (ICCCM §4.1.2.5)
	Width   int    `json:"width"` // pixels
	Height  int    `json:"height"`
	Source  string `json:"source"`
}

// Monitor is a part of a display's screen: what RandR calls a monitor.
type Monitor struct {
	ID      string `json:"id"`
	Display string `json:"display"`
	Name    string `json:"name"` // "HDMI-1"
	Primary bool   `json:"primary"`
	X       int    `json:"x"` // pixels from the screen's left
	Y       int    `json:"y"` // and from its top
	Width   int    `json:"width"`
	Height  int    `json:"height"`
	Source  string `json:"source"`
}

// Audio is a source of sound.
type Audio struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	API     string `json:"api"`     // "pulse", "pipewire", "alsa"
	Monitor bool   `json:"monitor"` // it is what a sink plays
	Default bool   `json:"default"`
	Source  string `json:"source"`
}

// FindDevices lists what this machine can capture. It captures nothing. It blocks
// for 3 s at most where something hangs, and a little longer where the plugin
// registry must be scanned first; what hung is in the notes.
func FindDevices(ctx context.Context) *Devices {
	Init()
	ctx, cancel := context.WithTimeout(ctx, devicesTimeout)
	defer cancel()
	d := &Devices{
		Cameras: []Camera{}, Displays: []Display{}, Windows: []Window{}, Monitors: []Monitor{}, Audio: []Audio{}, Notes: []string{},
	}
	var cameras []Camera
	var desktops []desktop
	var provided provision
	var all sync.WaitGroup
	all.Go(func() { cameras = findCameras(ctx) })
	all.Go(func() { desktops = findDesktops(ctx) })
	all.Go(func() { provided = findProvided(ctx) })
	all.Wait()
	d.Cameras = append(append(d.Cameras, cameras...), provided.cameras...)
	d.Audio = append(d.Audio, provided.audio...)
	d.Notes = append(d.Notes, provided.notes...)
	for _, x := range desktops {
		d.Displays = append(d.Displays, x.Display)
		d.Windows = append(d.Windows, x.windows...)
		d.Monitors = append(d.Monitors, x.monitors...)
	}
	if os.Getenv("WAYLAND_DISPLAY") != "" {
		d.Notes = append(d.Notes, "this is a Wayland session: X displays show X programs only; the whole screen takes pipewiresrc")
	}
	return d
}

// oneLine makes a name that a device, a window or a server gave fit for a
// terminal and a comment: one line without control characters, of bounded length.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 120 {
		s = string(r[:119]) + "…"
	}
	return s
}

// property writes a launch text's property; the value is quoted where it must be.
func property(name, value string) string {
	plain := value != "" && !strings.ContainsFunc(value, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+/:.,@#%=", r)
	})
	if !plain {
		value = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
	}
	return name + "=" + value
}
