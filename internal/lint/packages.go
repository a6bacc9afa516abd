package lint

import (
	_ "embed"
	"path"
	"slices"
	"strings"
	"sync"
)

var (
	//go:embed elements.txt
	elementsTXT string
	//go:embed elements-more.txt
	moreTXT string
)

// origin is where an element comes from.
type origin struct {
	name     string // a Debian package; with a space in it: words
	hardware bool   // it registers only where its hardware and driver are
}

func (o origin) debian() bool { return !strings.Contains(o.name, " ") }

func (o origin) words() string {
	if o.debian() {
		return "the package " + o.name
	}
	return o.name
}

type pattern struct {
	glob   string
	origin origin
}

var readOrigins = sync.OnceValues(func() (map[string]origin, []pattern) {
	known := map[string]origin{}
	var patterns []pattern
	name := ""
	for line := range strings.Lines(elementsTXT + moreTXT) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if !strings.HasPrefix(line, " ") {
			name = line
			continue
		}
		for _, element := range strings.Fields(line) {
			if strings.Contains(element, "*") {
				patterns = append(patterns, pattern{element, origin{name, true}})
			} else if _, twice := known[element]; !twice {
				known[element] = origin{name, false}
			}
		}
	}
	return known, patterns
})

// whence tells where an element comes from. It is not ok where that isn't known.
func whence(element string) (origin, bool) {
	known, patterns := readOrigins()
	if o, ok := known[element]; ok {
		return o, true
	}
	best := pattern{}
	for _, p := range patterns {
		if ok, _ := path.Match(p.glob, element); ok && len(p.glob) > len(best.glob) { // va*enc is not vaapi*enc
			best = p
		}
	}
	return best.origin, best.glob != ""
}

// knownElements are the names of elements that some package has.
func knownElements() []string {
	known, _ := readOrigins()
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
