package gateway

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway/internal/config"
	"gateway/internal/gst"
)

func TestBusyDeviceNamesItsHolder(t *testing.T) {
	node := filepath.Join(t.TempDir(), "video0")
	held, err := os.Create(node)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	fault := &gst.Error{Factory: "v4l2src", Message: "Device '" + node + "' is busy"}
	for _, c := range []struct {
		device, want string
		err          error
	}{
		{"v4l2src " + node, node + " is held by another stream of this gateway", fault},
		{"v4l2src " + node, "", errors.New("Internal data stream error")},
		{"udpsrc 5000", "", errors.New("the port is busy")},
		{"alsasrc hw:CARD=Nobody", "", errors.New("Device is being used by another application")},
	} {
		got := nameHolder(&config.Feed{Devices: []string{c.device}}, c.err)
		if !errors.Is(got, c.err) || !strings.Contains(got.Error(), c.want) || c.want == "" && got.Error() != c.err.Error() {
			t.Errorf("%s: %v, want %q", c.device, got, c.want)
		}
	}
}
