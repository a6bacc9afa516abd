package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/lint"
)

// pipelines has every file checked as `gateway check` does.
func (d *doctor) pipelines(context.Context) []checked {
	const area = "pipelines"
	var report lint.Report
	if err := through(func(b *bytes.Buffer) error {
		return d.settings.Check(nil, CheckOptions{JSON: true}, b)
	}, &report); err != nil {
		return []checked{{area, fail, err.Error(), "name the folder of the pipeline files in pipelines: or by -pipelines"}}
	}
	if len(report.Files) == 0 {
		return []checked{{area, warn, "there is no file in " + d.settings.conf.Pipelines, "gateway devices -yaml ID > " + filepath.Join(d.settings.conf.Pipelines, "NAME.yaml") + " makes one"}}
	}
	all := []checked{}
	for _, f := range report.Files {
		for _, e := range f.Findings {
			v := warn
			if e.Severity == config.Fault {
				v = fail
			}
			short := *e
			short.Remedy = ""
			all = append(all, checked{area, v, short.Error(), cmp.Or(e.Remedy, "mend that line")})
		}
		for _, why := range f.Absent {
			all = append(all, checked{area, warn, f.File + ": absent now: " + why, "it begins by itself when its source comes"})
		}
	}
	if len(all) == 0 {
		return []checked{ok(area, "%d in %s are good", len(report.Files), d.settings.conf.Pipelines)}
	}
	return all
}

// gstreamer looks at the library and its plugins.
func (d *doctor) gstreamer(ctx context.Context) (all []checked) {
	const area, least = "GStreamer", "1.22"
	version := gst.Version()
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err == nil && (major < 1 || major == 1 && minor < 22) {
		all = append(all, checked{area, fail, version + " is older than " + least, "use Debian 12 or newer"})
	}
	plugins, err := d.settings.plugins(ctx)
	if err != nil {
		return []checked{{area, fail, err.Error(), "gst-inspect-1.0 may tell which plugin it is; remove that one's package"}}
	}
	for _, p := range plugins {
		if p.Broken {
			all = append(all, checked{area, warn, fmt.Sprintf("plugin %s (%s) can't be loaded", p.Name, p.File), "install its package anew, then: rm -r ~/.cache/gstreamer-1.0"})
		}
	}
	if len(all) > 0 {
		return all
	}
	return []checked{ok(area, "%s, %d plugins", version, len(plugins))}
}

// plugins lists GStreamer's.
func (s Settings) plugins(ctx context.Context) ([]gst.Plugin, error) {
	m := s.machine()
	defer m.close()
	return m.plugins(ctx)
}

// find asks for devices and has the encoders tried, once for all who ask.
func (d *doctor) find(ctx context.Context) (*devices, error) {
	if d.devices == nil {
		found := new(devices)
		if err := through(func(b *bytes.Buffer) error { return d.settings.Devices(ctx, true, "", b) }, found); err != nil {
			return nil, err
		}
		d.devices = found
	}
	return d.devices, nil
}

// capture tells of each thing to capture whether it can be.
func (d *doctor) capture(ctx context.Context) (all []checked) {
	found, err := d.find(ctx)
	if err != nil {
		return []checked{{"devices", fail, err.Error(), "gateway devices tells more"}}
	}
	add := func(area, id, name string, f gst.Fault) {
		if f.Problem != "" {
			all = append(all, checked{area, warn, id + ": " + f.Problem, f.Remedy})
			return
		}
		all = append(all, ok(area, "%s", list(id, name)))
	}
	for _, c := range found.Cameras {
		add("camera", c.ID, c.Name, c.Fault)
	}
	for _, x := range found.Displays {
		add("display", x.ID, "", x.Fault)
	}
	for _, a := range found.Audio {
		add("sound", a.ID, a.Name, gst.Fault{})
	}
	if len(all) == 0 {
		all = append(all, checked{"devices", warn, "no camera, display or sound source is here", "plug one in, or let this user see it: groups video and audio, DISPLAY, XDG_RUNTIME_DIR"})
	}
	for _, note := range found.Notes {
		all = append(all, ok("devices", "%s", note))
	}
	return all
}

// encoders tells which were tried, and which fail.
func (d *doctor) encoders(ctx context.Context) (all []checked) {
	const area = "encoders"
	found, err := d.find(ctx)
	if err != nil {
		return nil // told already
	}
	var work []string
	video := false
	for _, e := range found.Encoders {
		switch {
		case e.Problem != "":
			all = append(all, checked{area, warn, e.Name + ": " + e.Problem, e.Remedy})
		case e.Installed && e.FPS > 0:
			video = true
			work = append(work, fmt.Sprintf("%s (%.0f frames a second)", e.Name, e.FPS))
		case e.Installed:
			work = append(work, e.Name)
		}
	}
	if !video {
		return append(all, checked{area, fail, "none works for video", "install gstreamer1.0-plugins-ugly (x264enc) or gstreamer1.0-plugins-good (vp8enc)"})
	}
	return append([]checked{ok(area, "these work: %s", strings.Join(work, ", "))}, all...)
}

// through reads back what a command prints as JSON. What it prints counts, not that it
// says that something is wrong with it.
func through(command func(*bytes.Buffer) error, into any) error {
	var b bytes.Buffer
	err := command(&b)
	if b.Len() == 0 && err != nil {
		return err
	}
	return json.Unmarshal(b.Bytes(), into)
}
