package gst

/*
#include "facts.h"
*/
import "C"

import (
	"cmp"
	"slices"
)

// Plugin is a plugin of GStreamer as the registry has it.
type Plugin struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Source  string `json:"source"`           // the module that it was built from, such as gst-plugins-good
	File    string `json:"file,omitempty"`   // none: it is built into the library
	Broken  bool   `json:"broken,omitempty"` // it couldn't be loaded, and isn't tried again until its file changes
}

// Plugins lists the plugins by their names.
func (*Registry) Plugins() []Plugin {
	Init()
	const columns = 5
	plugins := []Plugin{}
	for row := range slices.Chunk(units(taken(C.plugin_rows())), columns) {
		plugins = append(plugins, Plugin{row[0], row[1], row[2], row[3], row[4] != ""})
	}
	slices.SortFunc(plugins, func(a, b Plugin) int { return cmp.Compare(a.Name, b.Name) })
	return plugins
}
