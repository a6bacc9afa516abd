package device

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"
)

// fields joins what a message holds.
func fields(all ...string) []byte { return []byte(strings.Join(all, "\x00") + "\x00") }

// byUdev puts udev's header before properties (systemd, device-monitor.c).
func byUdev(properties []byte) []byte {
	b := []byte("libudev\x00")
	b = binary.BigEndian.AppendUint32(b, 0xfeedcafe)
	b = binary.NativeEndian.AppendUint32(b, 40)
	b = binary.NativeEndian.AppendUint32(b, 40)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(properties)))
	return append(append(b, make([]byte, 16)...), properties...)
}

func TestUevents(t *testing.T) {
	const path = "/devices/platform/vivid.0/video4linux/video0"
	added := []string{"ACTION=add", "DEVPATH=" + path, "SUBSYSTEM=video4linux", "MAJOR=81", "DEVNAME=video0", "SEQNUM=77"}
	for name, c := range map[string]struct {
		message []byte
		want    Change
	}{
		"added":             {fields(append([]string{"add@" + path}, added...)...), Change{Subsystem: "video4linux", Node: "/dev/video0"}},
		"removed":           {fields("remove@"+path, "ACTION=remove", "SUBSYSTEM=video4linux", "DEVNAME=video0"), Change{"video4linux", "/dev/video0", true}},
		"by udev":           {byUdev(fields("ACTION=add", "SUBSYSTEM=video4linux", "DEVNAME=/dev/video0", "ID_SERIAL=x=y")), Change{Subsystem: "video4linux", Node: "/dev/video0"}},
		"no node":           {fields("change@/devices/card0", "ACTION=change", "SUBSYSTEM=sound"), Change{Subsystem: "sound"}},
		"of no matter":      {fields("add@/devices/sda", "ACTION=add", "SUBSYSTEM=block", "DEVNAME=sda"), Change{}},
		"no action":         {fields("add@/x", "SUBSYSTEM=sound"), Change{}},
		"no title":          {fields(added...), Change{}},
		"empty":             {nil, Change{}},
		"udev cut":          {byUdev(fields(added...))[:30], Change{}},
		"udev lies":         {append([]byte("libudev\x00\xfe\xed\xca\xfe"), slices.Repeat([]byte{0xff}, 40)...), Change{}},
		"udev of elsewhere": {append([]byte("libudev\x00\xde\xad\xbe\xef"), make([]byte, 40)...), Change{}},
	} {
		c2, ok := parseUevent(c.message)
		if c2.Subsystem == "" || !ok {
			c2 = Change{}
		}
		if ok != (c.want != Change{}) || c2 != c.want {
			t.Errorf("%s: %+v %v, want %+v", name, c2, ok, c.want)
		}
	}
}

func FuzzUevent(f *testing.F) {
	f.Add(fields("add@/devices/x", "ACTION=add", "SUBSYSTEM=sound"))
	f.Add(byUdev(fields("ACTION=add", "SUBSYSTEM=video4linux", "DEVNAME=/dev/video0")))
	f.Fuzz(func(t *testing.T, message []byte) {
		if c, ok := parseUevent(message); ok && !subsystems[c.Subsystem] {
			t.Errorf("%q passed", c.Subsystem)
		}
	})
}

// The kernel sends a device's event anew to whoever writes its action into sysfs
// (kernel: Documentation/ABI/testing/sysfs-uevent).
func TestTheKernelIsHeard(t *testing.T) {
	f, err := openUevents()
	if err != nil {
		t.Skip("skipped: ", err)
	}
	defer f.Close()
	subsystems["mem"] = true
	defer delete(subsystems, "mem")
	if err := os.WriteFile("/sys/class/mem/null/uevent", []byte("change"), 0); err != nil {
		t.Skip("skipped: no events can be had from the kernel by this user: ", err)
	}
	if c, err := readUevent(f); err != nil || c != (Change{Subsystem: "mem", Node: "/dev/null"}) {
		t.Errorf("%+v, %v", c, err)
	}
}
