package worker

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gateway/internal/config"
)

// Needs tells what a child needs that runs these launch texts. Beside the programs
// and the settings that every pipeline needs these are the devices and files
// that the texts name, the kinds of sockets that their elements use, and the hardware by which encoders work. paths are further
// files, folders and devices, which it may write, too.
func Needs(texts, paths []string) *Confinement {
	c := everyPipelineNeeds()
	for _, text := range texts {
		nodes, err := config.ParseLaunch(text)
		if err != nil {
			continue // GStreamer will say what is wrong
		}
		for i := range nodes {
			if nodes[i].Kind == config.LaunchElement {
				c.element(&nodes[i])
			}
		}
	}
	c.paths(paths)
	return c
}

// ProbeNeeds tells what a child needs that looks for devices and tries encoders: all
// devices that could be captured, and no files.
func ProbeNeeds(paths []string) *Confinement {
	c := everyPipelineNeeds()
	for _, k := range wants {
		c.devices(k.devices...)
	}
	c.Local = true
	c.Network = c.Network || remoteX(os.Getenv("DISPLAY")) || remotePulse()
	c.Write = append(c.Write, registryFolder()) // GStreamer keeps there what it finds out about new plugins
	c.paths(paths)
	return c
}

// want is what elements of a kind need.
type want struct {
	elements *regexp.Regexp
	devices  []string // patterns
	network  bool
	local    bool // sockets of other programs
}

// wants are by the names of elements: what they open doesn't stand in launch texts.
var wants = []want{
	{elements: regexp.MustCompile(`^v4l2(src|radio)$|^uvch264`), devices: []string{"/dev/video0", "/dev/v4l"}},
	{elements: regexp.MustCompile(`^libcamera`), devices: []string{"/dev/video*", "/dev/media*", "/dev/v4l*", "/dev/dma_heap", "/dev/udmabuf"}},
	{elements: regexp.MustCompile(`^v4l2.*(enc|dec|convert|transform)$`), devices: []string{"/dev/video*", "/dev/media*"}},
	{elements: regexp.MustCompile(`^(alsa|jack|autoaudio|osx?4?)`), devices: []string{"/dev/snd", "/dev/dsp*"}, local: true},
	{elements: regexp.MustCompile(`^decklink`), devices: []string{"/dev/blackmagic"}, local: true},
	{elements: regexp.MustCompile(`^(nvargus|nvunixfd|unixfd|shm|qti)`), local: true}, // nvarguscamerasrc captures by a program of NVIDIA's
	{elements: regexp.MustCompile(`^(dvb|dc1394|dv1394|fbdev|aja|aravis|pylon|spinnaker|tcam)`), devices: []string{"/dev/dvb", "/dev/fw*", "/dev/fb*", "/dev/aja*", "/dev/bus/usb"}},
	{elements: regexp.MustCompile(`^(xi?v?image|gl|vaapi|kms|wayland|waylandsink|pipewire|pulse)`), local: true},
	{elements: regexp.MustCompile(`^(rtsp|rtmp|rtp(src|sink)|srt(src|sink|client|server)|udp|multiudp|dynudp|tcp|multisocket|multifd|socket|rist|soup|curl|neon|http|hls|dash|mss|adaptive|webrtc|whip|whep|nice|rfb|vnc|mms|dccp|ndi|sip|s3|aws|reqwest|quic|moq|kvs|uri|playbin|livekit|giosrc|giosink|zmq|mqtt|gst-?wpe|wpe|cef)`), network: true, local: true},
}

// compute are the devices by which encoders and converters work, which may begin
// while the child runs.
var compute = []string{
	"/dev/dri", "/dev/nvidia*", "/dev/nvmap", "/dev/nvhost*", "/dev/mali*", "/dev/dma_heap", "/dev/udmabuf", "/dev/vchiq", "/dev/mpp_service",
	"/dev/rga", "/dev/kfd", "/dev/dxg", "/dev/vcsm-cma",
}

// codecNode finds the V4L2 nodes that encode and decode by the names that their drivers
// have in /sys/class/video4linux: cameras have others.
var codecNode = regexp.MustCompile(`(?i)codec|enc|dec\b|decode|vpu|venus|mfc|coda|wave5|hantro|jpu`)

// pathVariables name files and folders that GStreamer, its plugins and what these use
// read.
var pathVariables = []string{
	"LD_LIBRARY_PATH", "GST_PLUGIN_PATH", "GST_PLUGIN_PATH_1_0", "GST_PLUGIN_SYSTEM_PATH", "GST_PLUGIN_SYSTEM_PATH_1_0", "GST_PRESET_PATH", "GST_ENCODING_TARGET_PATH",
	"ALSA_CONFIG_PATH", "ALSA_CONFIG_DIR", "ALSA_CONFIG_UCM2", "ALSA_PLUGIN_DIR", "PULSE_CLIENTCONFIG", "PULSE_COOKIE", "PULSE_CONFIG_PATH", "PULSE_RUNTIME_PATH",
	"PIPEWIRE_CONFIG_DIR", "PIPEWIRE_RUNTIME_DIR", "PIPEWIRE_MODULE_DIR", "SPA_PLUGIN_DIR", "LIBCAMERA_IPA_CONFIG_PATH", "LIBCAMERA_RPI_CONFIG_FILE", "LIBVA_DRIVERS_PATH",
	"VK_ICD_FILENAMES", "VK_DRIVER_FILES", "FONTCONFIG_FILE", "FONTCONFIG_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "XLOCALEDIR",
}

// everyPipelineNeeds is what GStreamer needs wherever it runs.
func everyPipelineNeeds() *Confinement {
	c := &Confinement{
		Read: []string{
			"/usr", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/proc", "/sys", "/run/udev", "/run/opengl-driver", "/var/lib/dbus/machine-id",
			"/var/cache/fontconfig",
		},
		Write: []string{"/dev/null", "/dev/zero", "/dev/full"},
		List:  []string{"/dev"}, // cameras and encoders are looked for there
	}
	c.Read = append(c.Read, "/dev/random", "/dev/urandom")
	// not /etc itself: the configuration of programs such as this one is there
	for _, name := range []string{
		"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "alternatives", "localtime", "timezone", "nsswitch.conf", "passwd", "group", "hosts", "host.conf", "resolv.conf",
		"gai.conf", "services", "protocols", "machine-id", "os-release", "ssl", "pki", "ca-certificates", "crypto-policies", "gnutls", "fonts", "pulse",
		"pipewire", "alsa", "asound.conf", "X11", "drirc", "OpenCL", "vulkan", "glvnd", "EGL", "libva.conf", "libcamera", "udev", "openal", "orc",
	} {
		c.Read = append(c.Read, "/etc/"+name)
	}
	c.Read = append(c.Read, "/run/systemd/resolve", "/run/resolvconf", os.Getenv("XAUTHORITY"), registryFolder())
	if home, err := os.UserHomeDir(); err == nil {
		for _, name := range []string{
			".Xauthority", ".pulse-cookie", ".pulse", ".config/pulse", ".config/pipewire", ".asoundrc", ".config/alsa", ".drirc", ".fonts", ".local/share/fonts",
			".config/fontconfig", ".cache/fontconfig", ".local/share/gstreamer-1.0", ".gstreamer-1.0",
		} {
			c.Read = append(c.Read, filepath.Join(home, name))
		}
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		c.Read = append(c.Read, filepath.Join(dir, "pulse"), filepath.Join(dir, "pipewire-0"))
	}
	for _, name := range pathVariables {
		c.Read = append(c.Read, filepath.SplitList(os.Getenv(name))...)
	}
	c.Run = append(c.Run, "/proc/self/exe", interpreter(), os.Getenv("GST_PLUGIN_SCANNER"), os.Getenv("GST_PLUGIN_SCANNER_1_0"))
	for _, pattern := range []string{
		"/usr/lib/*/gstreamer1.0/gstreamer-1.0/gst-plugin-scanner", "/usr/libexec/gstreamer-1.0/gst-plugin-scanner*", "/usr/lib*/gstreamer-1.0/gst-plugin-scanner",
	} {
		c.Run = append(c.Run, glob(pattern)...)
	}
	c.devices(compute...)
	for _, name := range glob("/sys/class/video4linux/*/name") {
		if driver, err := os.ReadFile(name); err == nil && codecNode.Match(driver) {
			c.devices("/dev/" + filepath.Base(filepath.Dir(name)))
		}
	}
	c.Read = slices.DeleteFunc(c.Read, func(path string) bool { return path == "" })
	c.Run = slices.DeleteFunc(c.Run, func(path string) bool { return path == "" })
	return c
}

// element adds what an element needs.
func (c *Confinement) element(n *config.LaunchNode) {
	for _, k := range wants {
		if k.elements.MatchString(n.Name) {
			c.devices(k.devices...)
			c.Network, c.Local = c.Network || k.network, c.Local || k.local
		}
	}
	switch {
	case strings.HasPrefix(n.Name, "ximage"):
		display, named := n.Prop("display-name")
		if !named {
			display = os.Getenv("DISPLAY")
		}
		c.Network = c.Network || remoteX(display)
	case strings.HasPrefix(n.Name, "pulse"):
		_, named := n.Prop("server")
		c.Network = c.Network || named || remotePulse()
	}
	for _, p := range n.Props {
		path := strings.TrimPrefix(p.Value, "file://")
		switch {
		case strings.HasPrefix(path, "/dev/"):
			c.devices(path)
		case p.Name != "location" && p.Name != "uri" && !strings.HasPrefix(path, "/"):
		case strings.HasSuffix(n.Name, "sink"):
			c.Write = append(c.Write, filepath.Dir(path))
		case strings.Contains(path, "%"): // a pattern of several files
			c.Read = append(c.Read, filepath.Dir(path))
		default:
			c.Read = append(c.Read, path)
		}
	}
}

// paths adds what an operator has named.
func (c *Confinement) paths(paths []string) {
	for _, path := range paths {
		if strings.HasPrefix(path, "/dev/") {
			c.devices(path)
			continue
		}
		c.Write = append(c.Write, path)
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			c.Local = true
		}
	}
}

// devices adds what patterns find.
func (c *Confinement) devices(patterns ...string) {
	for _, pattern := range patterns {
		c.Devices = append(c.Devices, glob(pattern)...)
	}
}

func glob(pattern string) []string {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return []string{pattern} // a name with brackets
	}
	return found
}

// remoteX tells whether an X display is reached by TCP (X(7), display names).
func remoteX(display string) bool {
	host, _, _ := strings.Cut(display, ":")
	return host != "" && host != "unix" && !strings.HasPrefix(host, "/")
}

func remotePulse() bool {
	server := os.Getenv("PULSE_SERVER")
	return server != "" && !strings.HasPrefix(server, "/") && !strings.HasPrefix(server, "unix:")
}

// registryFolder holds what GStreamer knows of its plugins (gst_registry(3)).
func registryFolder() string {
	for _, name := range []string{"GST_REGISTRY_1_0", "GST_REGISTRY"} {
		if file := os.Getenv(name); file != "" {
			return filepath.Dir(file)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "gstreamer-1.0")
}

// interpreter is the dynamic linker that the kernel starts this program by.
func interpreter() string {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			path := make([]byte, p.Filesz)
			if _, err := p.ReadAt(path, 0); err == nil {
				return strings.TrimRight(string(path), "\x00")
			}
		}
	}
	return ""
}

// String lists what is allowed, for people.
func (c *Confinement) String() string {
	return fmt.Sprintf("reads %q, writes %q, drives %q, runs %q, network %t, other programs' sockets %t", c.Read, c.Write, c.Devices, c.Run, c.Network, c.Local)
}
