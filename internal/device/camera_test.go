package device

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree is a kernel's tree of cameras, and their nodes.
type tree struct {
	t *testing.T
	*cameras
}

func newTree(t *testing.T) tree {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return tree{t, &cameras{sys: filepath.Join(dir, "sys"), dev: filepath.Join(dir, "dev"), known: make(map[string][]string)}}
}

func (x tree) write(path, text string) {
	x.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		x.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		x.t.Fatal(err)
	}
}

func (x tree) link(to, path string) {
	x.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		x.t.Fatal(err)
	}
	os.Remove(path)
	if err := os.Symlink(to, path); err != nil {
		x.t.Fatal(err)
	}
}

// plug makes a node of the device at a place such as "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0".
func (x tree) plug(node, place, name, index string) {
	class := filepath.Join(x.sys, "devices", place, "video4linux", node)
	x.write(class+"/name", name+"\n")
	x.write(class+"/index", index+"\n")
	x.link(filepath.Join(x.sys, "devices", place), class+"/device")
	x.link(class, filepath.Join(x.sys, "class/video4linux", node))
	x.write(filepath.Join(x.dev, node), "")
	for at := filepath.Join(x.sys, "devices", place); len(at) > len(x.sys)+len("/devices"); at = filepath.Dir(at) {
		bus := "platform"
		switch base := filepath.Base(at); {
		case strings.HasPrefix(base, "pci"), base == "platform", base == "virtual":
			continue // a root: it is on no bus
		case strings.Contains(at, "/usb"):
			bus = "usb"
		case strings.HasPrefix(base, "0000:"):
			bus = "pci"
		}
		x.link("/sys/bus/"+bus, at+"/subsystem")
	}
}

func (x tree) unplug(node string) {
	for _, path := range []string{filepath.Join(x.sys, "class/video4linux", node), filepath.Join(x.dev, node)} {
		if err := os.Remove(path); err != nil {
			x.t.Fatal(err)
		}
	}
}

// webcam plugs a USB camera with its second node, for metadata, into a port.
func (x tree) webcam(node, second, port, serial string) {
	at := filepath.Join("pci0000:00/0000:00:1c.0/0000:02:00.0/usb1", port)
	for i, n := range []string{node, second} {
		x.plug(n, filepath.Join(at, port+":1.0"), "HD Pro Webcam C920", []string{"0", "1"}[i])
	}
	device := filepath.Join(x.sys, "devices", at)
	x.write(device+"/idVendor", "046d\n")
	x.write(device+"/idProduct", "082d\n")
	x.write(device+"/product", "HD Pro  Webcam C920\n")
	if serial != "" {
		x.write(device+"/serial", serial+"\n")
	}
}

func (x tree) is(name, want string) {
	x.t.Helper()
	got, err := x.find(name)
	if err != nil {
		got = err.Error()
	}
	if got != want && !strings.HasPrefix(want, "video") || strings.HasPrefix(want, "video") && got != filepath.Join(x.dev, want) {
		x.t.Errorf("%s is %s, want %s", name, got, want)
	}
}

func TestCamerasAreNamedAsUdevNamesThem(t *testing.T) {
	x := newTree(t)
	x.webcam("video0", "video1", "1-2", "1A2B/3C4D")
	x.plug("video5", "platform/vivid.0", "vivid", "0")
	x.plug("video9", "virtual", "loop", "0")                                                                            // v4l2loopback: it is nowhere
	x.plug("video11", "platform/soc/fd500000.pcie/pci0000:00/0000:01:00.0/usb1/1-1/1-1.3/1-1.3:1.0", "USB Camera", "0") // a Raspberry Pi 4
	for node, want := range map[string][]string{
		"video0":  {"usb-046d_HD_Pro_Webcam_C920_1A2B_3C4D-video-index0", "pci-0000:02:00.0-usb-0:2:1.0-video-index0", "HD Pro Webcam C920"},
		"video1":  {"usb-046d_HD_Pro_Webcam_C920_1A2B_3C4D-video-index1", "pci-0000:02:00.0-usb-0:2:1.0-video-index1"},
		"video11": {"platform-fd500000.pcie-pci-0000:01:00.0-usb-0:1.3:1.0-video-index0", "USB Camera"},
		"video5":  {"platform-vivid.0-video-index0", "vivid"},
	} {
		if got := x.lasting(node); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", node, got, want)
		}
	}
	for name, want := range map[string]string{
		"usb-046d_HD_Pro_Webcam_C920_1A2B_3C4D":              "video0",
		"usb-046d_HD_Pro_Webcam_C920_1A2B_3C4D-video-index1": "video1",
		"pci-0000:02:00.0-usb-0:2:1.0":                       "video0",
		"HD Pro Webcam C920":                                 "video0",
		"loop":                                               "video9",
		x.dev + "/video1":                                    "video1",
		x.dev + "/v4l/by-id/usb-046d_HD_Pro_Webcam_C920_1A2B_3C4D-video-index0": "video0", // without udev
		x.dev + "/v4l/by-path/pci-0000:02:00.0-usb-0:2:1.0-video-index1":        "video1",
		x.dev + "/v4l/by-id/usb-other-video-index0":                             x.dev + "/v4l/by-id/usb-other-video-index0",
		x.dev + "/video7": x.dev + "/video7",
	} {
		x.is(name, want)
	}
	if _, err := x.find("usb-other"); err == nil || !strings.Contains(err.Error(), `no "usb-other"`) || !strings.Contains(err.Error(), "pci-0000:02:00.0-usb-0:2:1.0-video-index0") {
		t.Errorf("a camera that isn't there: %v", err)
	}
}

// Of two cameras of one model without serial numbers only the ports tell them apart.
func TestCamerasThatAreAlike(t *testing.T) {
	x := newTree(t)
	x.webcam("video0", "video1", "1-2", "")
	x.webcam("video2", "video3", "1-4.1", "")
	x.is("pci-0000:02:00.0-usb-0:4.1:1.0", "video2")
	for _, name := range []string{"HD Pro Webcam C920", "usb-046d_HD_Pro_Webcam_C920"} {
		if _, err := x.find(name); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names := x.lasting("video2"); !slices.Equal(names, []string{"pci-0000:02:00.0-usb-0:4.1:1.0-video-index0"}) {
		t.Errorf("the names that stay: %q", names)
	}
}

// A camera that was opened by its number is found when it comes back under another,
// but not in place of one that has the number now.
func TestCameraComesBackUnderAnotherNumber(t *testing.T) {
	x := newTree(t)
	first := filepath.Join(x.dev, "video0")
	x.webcam("video0", "video1", "1-2", "1A2B")
	x.is(first, "video0")
	x.unplug("video0")
	x.is(first, first)
	x.unplug("video1")
	x.webcam("video2", "video3", "1-4", "1A2B") // in another port: its serial number tells
	x.is(first, "video2")
	x.plug("video0", "platform/other.0", "other", "0")
	x.is(first, "video0")
}

func TestLinkNames(t *testing.T) {
	for s, want := range map[string]string{
		" Chicony  HD Camera ": "Chicony_HD_Camera", "a/b(c)": "a_b_c_", "Käm": "Käm", "x\xff": "x_", "a.b-c:d=e@f#g+h": "a.b-c:d=e@f#g+h",
	} {
		if got := linkName(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
