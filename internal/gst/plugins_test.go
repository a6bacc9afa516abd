package gst

import (
	"slices"
	"testing"
)

func TestPluginsAreListed(t *testing.T) {
	all := NewRegistry().Plugins()
	at := slices.IndexFunc(all, func(p Plugin) bool { return p.Name == "coreelements" })
	if at < 0 {
		t.Fatalf("no coreelements among %d plugins", len(all))
	}
	if p := all[at]; p.Version == "" || p.Source != "gstreamer" || p.File == "" || p.Broken {
		t.Errorf("coreelements is %+v", p)
	}
}
