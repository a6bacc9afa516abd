package config

import (
	"cmp"
	"strings"

	"gateway/internal/device"
)

// LocateCameras is a launch text with the nodes that its cameras have now, where
// it names them by what stays when a camera is plugged in anew: see
// [device.Camera]. An error is an *AbsentError: a camera of such a name isn't
// there, and the text keeps it.
func LocateCameras(text string) (string, error) { return locateCameras(text, device.Camera) }

func locateCameras(text string, find func(name string) (node string, err error)) (string, error) {
	nodes, err := ParseLaunch(text)
	if err != nil {
		return text, nil // who launches it says so
	}
	var b strings.Builder
	var absent error
	done := 0
	for _, n := range nodes {
		s := findSource(n.Name)
		if n.Kind != LaunchElement || s.Device == nil || !s.Device.Camera {
			continue
		}
		p := LaunchProp{Value: s.Device.Default, Start: n.End, End: n.End}
		for _, given := range n.Props {
			if given.Name == s.Device.Property {
				p = given
			}
		}
		node, err := find(p.Value)
		if err != nil {
			absent = cmp.Or(absent, error(&AbsentError{Source: text[n.Start:n.End], Err: err}))
			continue
		}
		if node == p.Value {
			continue
		}
		b.WriteString(text[done:p.Start])
		if p.Start == p.End {
			b.WriteString(" ")
		}
		b.WriteString(s.Device.Property + "=" + quoteLaunch(node))
		done = p.End
	}
	return b.String() + text[done:], absent
}

// located is LocateCameras in a compilation: a camera that isn't there makes its
// feed absent.
func (c *compiler) located(text string) string {
	found, err := LocateCameras(text)
	if err != nil && c.feed.Absent == nil {
		c.feed.Absent = err
	}
	return found
}
