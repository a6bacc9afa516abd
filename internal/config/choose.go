package config

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gateway/internal/media"
)

// shareThreads divides the cores among the renditions by their pixels a second,
// generously: seldom all run at once. One thread does 640x360 at 30; more than 4 cost bitrate
// and gain little.
func (c *compiler) shareThreads(rs []*rendition) {
	const one = 640 * 360 * 30
	load := func(r *rendition) float64 {
		if r.Copy() {
			return 0
		}
		if r.picture.width == 0 {
			return 1280 * 720 * r.picture.fps
		}
		return float64(r.picture.width*r.picture.height) * r.picture.fps
	}
	sum := 0.0
	for _, r := range rs {
		sum += load(r)
	}
	for _, r := range rs {
		part := math.Ceil(float64(c.cores) * load(r) / sum)
		r.threads = int(max(min(part, math.Ceil(load(r)/one), 4), 1))
	}
}

// encoder chooses the row that encodes a rendition.
func (c *compiler) encoder(r *rendition) (Encoder, bool) {
	if r.Encoder != autoEncoder {
		row, ok := c.s.table.Find(r.Encoder)
		if !ok {
			c.fault(r.key+".encoder", quote(r.Encoder)+" is not a known encoder", "check its name")
			return Encoder{}, false
		}
		if gone := row.missing(c.r); len(gone) > 0 {
			remedy := "install the package " + row.Package
			if row.Hardware {
				remedy = "it comes with the package " + row.Package + " and is there only where its hardware and driver are"
			}
			c.fault(r.key+".encoder", "not installed here: "+strings.Join(gone, ", "), remedy+"; or use encoder: auto")
			return Encoder{}, false
		}
		if r.Profile != "" && !slices.Contains(row.Profiles, r.Profile) {
			c.fault(r.key+".profile", row.Name+" cannot make "+r.Profile, "use "+orList(row.Profiles))
			return Encoder{}, false
		}
		c.note("%s: encoder %s, as the file says", r.Name, row.Name)
		return row, true
	}
	var candidates []Encoder
	var tried, packages []string
	for _, row := range c.s.table.For(r.Codec) {
		gone := row.missing(c.r)
		switch {
		case len(gone) > 0 && row.Hardware:
			// most machines have none of these families: not worth a word
		case len(gone) > 0:
			c.note("%s: not %s: %s not installed", r.Name, row.Name, strings.Join(gone, ", "))
			tried = append(tried, row.Name)
			if !slices.Contains(packages, row.Package) {
				packages = append(packages, row.Package)
			}
		case r.Profile != "" && !slices.Contains(row.Profiles, r.Profile):
			c.note("%s: not %s: it cannot make %s", r.Name, row.Name, r.Profile)
		default:
			candidates = append(candidates, row)
		}
	}
	for i, row := range candidates {
		how := "the best one installed"
		if i < len(candidates)-1 {
			err := c.r.Blamed(row.Name)
			if row.uncertain() && c.feed.Absent == nil && err == nil {
				err = c.try(r, row)
				how = "the best one that works here"
			}
			if err != nil {
				c.note("%s: not %s: %v", r.Name, row.Name, err)
				continue
			}
		}
		c.note("%s: encoder %s, %s for %s", r.Name, row.Name, how, r.Codec)
		return row, true
	}
	message := fmt.Sprintf("no encoder for %s is installed", r.Codec)
	if len(tried) > 0 {
		message += " (" + strings.Join(tried, ", ") + ")"
	}
	remedy := "use another codec"
	if len(packages) > 0 {
		remedy = "install the package " + orList(packages)
	}
	c.fault(r.key+".codec", message, remedy)
	return Encoder{}, false
}

// try runs a row at the rendition's size. What it is told doesn't depend on the
// rendition's bitrate, so that a trial serves for good.
func (c *compiler) try(r *rendition, row Encoder) error {
	trial := *r
	trial.Rendition = &Rendition{Bitrate: Bitrate{Start: defaultBitrate, Max: defaultBitrate}, KeyframeInterval: r.KeyframeInterval, Profile: r.Profile}
	if trial.picture.width == 0 {
		trial.picture.width, trial.picture.height = 1280, 720
	}
	p := trial.picture
	return c.r.Try(row, c.branch(&trial, row, picture{fps: p.fps, limit: p.fps}), p.width, p.height, p.fps)
}

func (c *compiler) audioEncoder(codec media.Codec) (Encoder, bool) {
	var packages []string
	for _, row := range c.s.table.For(codec) {
		gone := row.missing(c.r)
		if len(gone) == 0 {
			c.note("audio: encoder %s", row.Name)
			return row, true
		}
		c.note("audio: not %s: %s not installed", row.Name, strings.Join(gone, ", "))
		packages = append(packages, row.Package)
	}
	c.fault("audio.codec", fmt.Sprintf("no encoder for %s is installed", codec), "install the package "+orList(packages))
	return Encoder{}, false
}
