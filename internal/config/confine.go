package config

import "path/filepath"

// Confine is what the processes of pipelines may do.
type Confine struct {
	Enabled bool     // they may do what their pipelines need, as far as the kernel can hold them to it; default true
	Paths   []string // files, folders and devices that they may use beside those; absolute
}

var confineKeys = []key{
	{path: "confine", kind: ofSection, meaning: "what the processes of pipelines are kept from"},
	{path: "confine.enabled", kind: ofFlag, def: "true", meaning: "they may use the devices and files that their pipelines name, beside the system's libraries and settings, and no others; sockets of IP and of other programs only if their elements need them; they start no programs and get no privileges. As far as the kernel can: Landlock, seccomp"},
	{path: "confine.paths", kind: ofTexts, def: "[]", example: "[/dev/bus/usb, /srv/overlays]", meaning: "files, folders, devices and sockets of other programs that they may use, and write, beside those"},
}

// readConfine reads the section.
func readConfine(m *mapping) Confine {
	c := Confine{Enabled: m.boolean("enabled", true)}
	for _, n := range m.list("paths") {
		if !filepath.IsAbs(n.Value) {
			m.d.fault(n, "confine.paths", quote(n.Value)+" is not an absolute path", "write it from / on, such as /dev/bus/usb")
			continue
		}
		c.Paths = append(c.Paths, filepath.Clean(n.Value))
	}
	return c
}
