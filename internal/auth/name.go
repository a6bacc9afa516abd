package auth

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxShown is how long a name is at most that others see, in bytes.
const MaxShown = 64

// Hides tells whether a character has no place in a name that others see: it would end
// the line, or turn around what stands next to it (Unicode Bidi_Control).
func Hides(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// shown is what others may see of a name that somebody else has written, such as an
// identity provider: it is cut and cleaned, since its bearer can't help it.
func shown(name string) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if Hides(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "")))
	if len(name) <= MaxShown {
		return name
	}
	end := MaxShown
	for !utf8.RuneStart(name[end]) {
		end--
	}
	return strings.TrimSpace(name[:end])
}
