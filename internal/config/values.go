package config

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// scalar returns a key's scalar, or nil if it isn't given or isn't one.
func (m *mapping) scalar(name, expected string) *yaml.Node {
	n := m.value(name)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		m.fault(name, "expected "+expected+", found "+describe(n), "write one value")
		return nil
	}
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
		return n
	}
	m.fault(name, "the tag "+quote(n.Tag)+" is not supported", "remove it")
	return nil
}

// text reads a string of at most limit bytes.
func (m *mapping) text(name, def string, limit int) string {
	n := m.scalar(name, "a text")
	if n == nil {
		return def
	}
	if len(n.Value) > limit {
		m.fault(name, fmt.Sprintf("the text has %d bytes, at most %d are allowed", len(n.Value), limit), "shorten it")
		return def
	}
	if i := strings.IndexFunc(n.Value, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }); i >= 0 {
		m.fault(name, fmt.Sprintf("the text holds the control character %q", n.Value[i]), "remove it")
		return def
	}
	return n.Value
}

// key is what the schema says of a key.
func (m *mapping) key(name string) *key {
	k := m.d.schema.find(joinPath(m.path, name))
	if k == nil {
		panic("config: " + joinPath(m.path, name) + " is not in the schema") // a mistake of this package
	}
	return k
}

// one reads a word out of the key's list.
func (m *mapping) one(name, def string) string {
	allowed := m.key(name).words
	n := m.scalar(name, "one of "+strings.Join(allowed, ", "))
	if n == nil || slices.Contains(allowed, n.Value) {
		if n == nil {
			return def
		}
		return n.Value
	}
	remedy := "use " + orList(allowed)
	if near := nearest(n.Value, allowed); near != "" {
		remedy = "did you mean " + near + "?"
	}
	m.fault(name, quote(n.Value)+" is not one of "+strings.Join(allowed, ", "), remedy)
	return def
}

func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func (m *mapping) boolean(name string, def bool) bool {
	n := m.scalar(name, "true or false")
	if n == nil {
		return def
	}
	if n.ShortTag() == "!!bool" {
		return strings.EqualFold(n.Value, "true")
	}
	remedy := ""
	switch strings.ToLower(n.Value) {
	case "yes", "on", "y", "1":
		remedy = "write true"
	case "no", "off", "n", "0":
		remedy = "write false"
	}
	m.fault(name, "expected true or false, found "+describe(n), remedy)
	return def
}

func (m *mapping) integer(name string, def int, unit string) int {
	least, most := int(m.key(name).least), int(m.key(name).most)
	n := m.scalar(name, "a whole number")
	if n == nil {
		return def
	}
	v, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 10, 64)
	if err != nil {
		m.fault(name, "expected a whole number, found "+describe(n), strings.TrimSpace(fmt.Sprintf("allowed are %d to %d %s", least, most, unit)))
		return def
	}
	if v < int64(least) || v > int64(most) {
		m.fault(name, fmt.Sprintf("%d is out of range", v), strings.TrimSpace(fmt.Sprintf("allowed are %d to %d %s", least, most, unit)))
		return def
	}
	return int(v)
}

// rate reads frames a second: a number, or a fraction such as 30000/1001.
func (m *mapping) rate(name string, def float64) float64 {
	least, most := m.key(name).least, m.key(name).most
	n := m.scalar(name, "a number of frames a second")
	if n == nil {
		return def
	}
	num, den, fraction := strings.Cut(n.Value, "/")
	v, err := strconv.ParseFloat(num, 64)
	if fraction && err == nil {
		var w float64
		w, err = strconv.ParseFloat(den, 64)
		v /= w
	}
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		m.fault(name, "expected a number of frames a second, found "+describe(n), "write a number such as 30, or a fraction such as 30000/1001")
		return def
	}
	if v < least || v > most {
		m.fault(name, n.Value+" is out of range", fmt.Sprintf("allowed are %g to %g frames a second", least, most))
		return def
	}
	return v
}

var bitrateText = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([kKmM]?)$`)

// bitrate reads bit/s: a number, or one with k or M behind it.
func (m *mapping) bitrate(name string, def int) int {
	least, most := m.key(name).least, m.key(name).most
	n := m.scalar(name, "a bitrate")
	if n == nil {
		return def
	}
	t := bitrateText.FindStringSubmatch(n.Value)
	if t == nil {
		m.fault(name, "expected a bitrate, found "+describe(n), "write bit/s with k or M, such as 800k or 2.5M")
		return def
	}
	v, err := strconv.ParseFloat(t[1], 64)
	switch t[2] {
	case "k", "K":
		v *= 1e3
	case "m", "M":
		v *= 1e6
	}
	if err != nil || v < least || v > most {
		remedy := fmt.Sprintf("allowed are %s to %s", FormatBitrate(int(least)), FormatBitrate(int(most)))
		if t[2] == "" && v*1000 >= least && v*1000 <= most {
			remedy = "the unit is bit/s: write " + t[1] + "k for kbit/s"
		}
		m.fault(name, n.Value+" is out of range", remedy)
		return def
	}
	return int(math.Round(v))
}

// FormatBitrate writes bit/s as the configuration does: 2.5M, 800k, 64123.
func FormatBitrate(bps int) string {
	switch {
	case bps >= 1e6 && bps%1e4 == 0:
		return strconv.FormatFloat(float64(bps)/1e6, 'f', -1, 64) + "M"
	case bps >= 1e3 && bps%1e2 == 0:
		return strconv.FormatFloat(float64(bps)/1e3, 'f', -1, 64) + "k"
	}
	return strconv.Itoa(bps)
}

func (m *mapping) duration(name string, def time.Duration) time.Duration {
	k := m.key(name)
	least, most := time.Duration(k.least*float64(time.Second)), time.Duration(k.most*float64(time.Second))
	n := m.scalar(name, "a duration")
	if n == nil {
		return def
	}
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		remedy := "write a number with its unit, such as 10s, 500ms or 2m"
		if _, err := strconv.ParseFloat(n.Value, 64); err == nil && n.Value != "0" {
			remedy = "add the unit: " + n.Value + "s for seconds"
		}
		m.fault(name, "expected a duration, found "+describe(n), remedy)
		return def
	}
	if v < least || v > most {
		m.fault(name, n.Value+" is out of range", fmt.Sprintf("allowed are %s to %s", formatDuration(least), formatDuration(most)))
		return def
	}
	return v
}

// formatDuration is the duration without the zero units that String adds.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// list reads a list of texts; a single text is a list of one.
func (m *mapping) list(name string) []*yaml.Node {
	n := m.value(name)
	if n == nil {
		return nil
	}
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	for _, it := range items {
		if it.Kind != yaml.ScalarNode || it.ShortTag() == "!!null" {
			m.d.fault(it, joinPath(m.path, name), "expected a list of texts, found "+describe(it), "write it as [one, two]")
			return nil
		}
	}
	return items
}

// hasControl tells whether a text can't stand on one line.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
