package gst

/*
#include <linux/videodev2.h>
*/
import "C"

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"gateway/internal/device"
)

// findCameras asks every V4L2 node, each by itself: a driver may hang.
func findCameras(ctx context.Context) []Camera {
	nodes, _ := filepath.Glob("/dev/video[0-9]*") // the pattern is good
	slices.SortFunc(nodes, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	links := stableLinks("/dev/v4l/by-id", "/dev/v4l/by-path")
	found := make([]*Camera, len(nodes))
	var all sync.WaitGroup
	for i, node := range nodes {
		all.Go(func() {
			var asked *Camera // still written to when nobody waits any more
			err := bounded(ctx, "camera "+node, func() (err error) {
				asked, err = askCamera(node)
				return err
			}, nil)
			if err == nil {
				found[i] = asked
			} else {
				found[i] = &Camera{Name: cmp.Or(oneLine(attribute(node, "name")), node), Formats: []VideoFormat{}, Fault: nodeFault(node, err)}
			}
		})
	}
	all.Wait()
	var cameras []Camera
	for i, c := range found {
		if c == nil {
			continue
		}
		c.Device, c.Path = nodes[i], links[nodes[i]]
		name := device.CameraName(c.Device)
		c.ID = cameraID(c, name, attribute(nodes[i], "index"))
		c.Source = "v4l2src " + property("device", cmp.Or(c.Path, name, c.Device))
		cameras = append(cameras, *c)
	}
	return cameras
}

// stableLinks maps device nodes to the links that udev made for them; of several,
// that of the first folder, then the first by name. A name that two cameras would
// have (of one model, without serial numbers) is none.
func stableLinks(folders ...string) map[string]string {
	links := map[string]string{}
	for _, folder := range folders {
		entries, err := os.ReadDir(folder)
		if err != nil {
			continue // no udev here, or no camera that has a serial
		}
		for _, e := range entries {
			link := filepath.Join(folder, e.Name())
			node, err := filepath.EvalSymlinks(link)
			if err != nil || links[node] != "" {
				continue
			}
			if _, err := device.Camera(e.Name()); !errors.Is(err, device.ErrAmbiguous) {
				links[node] = link
			}
		}
	}
	return links
}

// cameraID is the name of the camera's stable link, else the name that udev would
// give that, else its place on the bus, else the node.
func cameraID(c *Camera, name, index string) string {
	switch {
	case c.Path != "":
		return "camera:" + filepath.Base(c.Path)
	case name != "":
		return "camera:" + name
	case c.Bus != "" && index != "0" && index != "":
		return "camera:" + c.Bus + "-index" + index
	case c.Bus != "":
		return "camera:" + c.Bus
	}
	return "camera:" + filepath.Base(c.Device)
}

// attribute is what the kernel tells about a node without opening it: its name,
// and the index that tells nodes of one device apart.
func attribute(node, name string) string {
	value, err := os.ReadFile(filepath.Join("/sys/class/video4linux", filepath.Base(node), name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
}

// askCamera opens a node and lists what it can deliver; it is nil if the node
// captures no video. Opening leaves alone who captures from it.
func askCamera(node string) (*Camera, error) {
	fd, err := unix.Open(node, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var about C.struct_v4l2_capability
	if err := ioctl(fd, C.VIDIOC_QUERYCAP, unsafe.Pointer(&about)); err != nil {
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
			return nil, nil // no V4L2
		}
		return nil, err
	}
	can := about.capabilities
	if can&C.V4L2_CAP_DEVICE_CAPS != 0 {
		can = about.device_caps // of this node, where the other is the whole device's
	}
	var kind C.__u32
	switch {
	case can&(C.V4L2_CAP_VIDEO_M2M|C.V4L2_CAP_VIDEO_M2M_MPLANE) != 0:
		return nil, nil // an encoder, a decoder or a scaler
	case can&C.V4L2_CAP_VIDEO_CAPTURE != 0:
		kind = C.V4L2_BUF_TYPE_VIDEO_CAPTURE
	case can&C.V4L2_CAP_VIDEO_CAPTURE_MPLANE != 0:
		kind = C.V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
	default:
		return nil, nil // its metadata, a display, a radio
	}
	c := &Camera{
		Name:    oneLine(fieldText(about.card[:])),
		Driver:  oneLine(fieldText(about.driver[:])),
		Bus:     oneLine(fieldText(about.bus_info[:])),
		Formats: cameraFormats(fd, kind),
	}
	switch {
	case captured(fd, kind, c.Driver):
		c.Fault = nodeFault(node, unix.EBUSY)
	case can&C.V4L2_CAP_IO_MC != 0:
		c.Problem = "its sensor must be set up through the media controller, which v4l2src doesn't do"
		c.Remedy = "use libcamerasrc: install gstreamer1.0-libcamera"
	case len(c.Formats) == 0:
		c.Problem = "it delivers nothing now"
		c.Remedy = "give it a signal: connect the input, or start what feeds the loopback device"
	}
	return c, nil
}

// Bounds of what is believed of a driver.
const (
	maxFormats = 64
	maxSizes   = 128
	maxRates   = 64
)

func cameraFormats(fd int, kind C.__u32) []VideoFormat {
	formats := []VideoFormat{}
	for i := range maxFormats {
		f := C.struct_v4l2_fmtdesc{index: C.__u32(i), _type: kind}
		if ioctl(fd, C.VIDIOC_ENUM_FMT, unsafe.Pointer(&f)) != nil {
			break
		}
		formats = append(formats, VideoFormat{Name: fourCC(uint32(f.pixelformat)), Sizes: cameraSizes(fd, f.pixelformat)})
	}
	return formats
}

func cameraSizes(fd int, pixels C.__u32) []VideoSize {
	sizes := []VideoSize{}
	for i := range maxSizes {
		f := C.struct_v4l2_frmsizeenum{index: C.__u32(i), pixel_format: pixels}
		if ioctl(fd, C.VIDIOC_ENUM_FRAMESIZES, unsafe.Pointer(&f)) != nil {
			break
		}
		if f._type == C.V4L2_FRMSIZE_TYPE_DISCRETE {
			d := (*C.struct_v4l2_frmsize_discrete)(unsafe.Pointer(&f.anon0))
			sizes = append(sizes, cameraRates(fd, pixels, VideoSize{Width: int(d.width), Height: int(d.height)}))
			continue
		}
		s := (*C.struct_v4l2_frmsize_stepwise)(unsafe.Pointer(&f.anon0))
		sizes = append(sizes, cameraRates(fd, pixels, VideoSize{
			Width: int(s.max_width), Height: int(s.max_height), MinWidth: int(s.min_width), MinHeight: int(s.min_height),
		}))
		break
	}
	slices.SortStableFunc(sizes, func(a, b VideoSize) int { return b.Width*b.Height - a.Width*a.Height })
	return sizes
}

// cameraRates completes a size by its rates.
func cameraRates(fd int, pixels C.__u32, size VideoSize) VideoSize {
	size.Rates = []float64{}
	for i := range maxRates {
		f := C.struct_v4l2_frmivalenum{index: C.__u32(i), pixel_format: pixels, width: C.__u32(size.Width), height: C.__u32(size.Height)}
		if ioctl(fd, C.VIDIOC_ENUM_FRAMEINTERVALS, unsafe.Pointer(&f)) != nil {
			break
		}
		if f._type == C.V4L2_FRMIVAL_TYPE_DISCRETE {
			size.Rates = append(size.Rates, perSecond((*C.struct_v4l2_fract)(unsafe.Pointer(&f.anon0))))
			continue
		}
		s := (*C.struct_v4l2_frmival_stepwise)(unsafe.Pointer(&f.anon0))
		size.Rates, size.MinRate = append(size.Rates, perSecond(&s.min)), perSecond(&s.max)
		break
	}
	slices.SortFunc(size.Rates, func(a, b float64) int { return cmp.Compare(b, a) })
	return size
}

// perSecond is a frame interval's reciprocal, to a thousandth.
func perSecond(interval *C.struct_v4l2_fract) float64 {
	if interval.numerator == 0 {
		return 0
	}
	thousandths := (1000*uint64(interval.denominator) + uint64(interval.numerator)/2) / uint64(interval.numerator)
	return float64(thousandths) / 1000
}

// captured tells whether somebody captures from the device now: he owns its
// buffers, and the kernel then refuses even to give up none (videobuf2 and
// uvcvideo; v4l2loopback has no owner, and would reset its buffers).
func captured(fd int, kind C.__u32, driver string) bool {
	if driver == "v4l2 loopback" {
		return false
	}
	none := C.struct_v4l2_requestbuffers{_type: kind, memory: C.V4L2_MEMORY_MMAP}
	return errors.Is(ioctl(fd, C.VIDIOC_REQBUFS, unsafe.Pointer(&none)), unix.EBUSY)
}

// Busy is the problem of a camera that another program captures from.
const Busy = "busy"

// nodeFault says in words for people why a node can't be used.
func nodeFault(node string, err error) Fault {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return Fault{"this user may not open it", permission(node)}
	case errors.Is(err, unix.EBUSY):
		return Fault{Busy, "end that program, or make one stream of both: two captures of one camera don't work"}
	case errors.Is(err, ErrStuck):
		return Fault{"its driver doesn't answer", "unplug it and plug it in again, or look at the kernel's log (dmesg)"}
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOENT):
		return Fault{"it is gone", "plug it in again"}
	}
	return Fault{err.Error(), "look at the kernel's log (dmesg)"}
}

// permission says how this user comes to be allowed to open a node.
func permission(node string) string {
	var about unix.Stat_t
	if unix.Stat(node, &about) != nil || about.Mode&0o060 != 0o060 || about.Gid == 0 {
		return "let the gateway's user read and write " + node
	}
	group := strconv.Itoa(int(about.Gid))
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	name := "USER"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return fmt.Sprintf("join the group %s: sudo usermod -aG %s %s, then log in again", group, group, name)
}

// fourCC writes a pixel format as its four characters.
func fourCC(pixels uint32) string {
	name := []byte{byte(pixels), byte(pixels >> 8), byte(pixels >> 16), byte(pixels>>24) & 0x7f} // the last bit: big-endian
	return strings.TrimSpace(oneLine(string(name)))
}

// fieldText is a C string in a field of bytes.
func fieldText(field []C.__u8) string {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&field[0])), len(field))
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
