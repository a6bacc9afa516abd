package config

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// secretName is how the names of properties, keys and parameters end whose values are
// secrets.
const secretName = `(?:password|passwd|passphrase|secret|credential|token|user-pw|api-?key|key)`

var (
	userInfo = regexp.MustCompile(`(://)[^/@\s"]+@`)
	secrets  = regexp.MustCompile(`(?i)\b((?:[a-z_-]*` + secretName + `|user-id)\s*=\s*)("[^"]*"|[^\s&]+)`)
	webToken = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`) // RFC 7519
	bearer   = regexp.MustCompile(`(?i)\b((?:bearer|basic|digest)\s+)[A-Za-z0-9._~+/=-]{8,}`)
	privates = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)`)
)

// Redact returns launch text, or an error text that may repeat it, without the
// user names, passwords and keys that sources are given, and without tokens. What
// leaves the machine goes through it.
func Redact(text string) string {
	text = privates.ReplaceAllString(text, "…")
	text = userInfo.ReplaceAllString(text, "$1…@")
	text = secrets.ReplaceAllString(text, "$1…")
	text = bearer.ReplaceAllString(text, "$1…")
	return webToken.ReplaceAllString(text, "…")
}

var (
	secretKey = regexp.MustCompile(`(?i)` + secretName + `$`)
	keyed     = regexp.MustCompile(`(?i)(["']?\b[a-z_-]*` + secretName + `["']?\s*:\s+|"[a-z_-]*` + secretName + `"\s*:\s*)("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,}\]#]+)`)
	inURL     = regexp.MustCompile(`://([^/@\s"]+)@`)
	assigned  = regexp.MustCompile(`(?i)\b[a-z_-]*` + secretName + `\s*=\s*("[^"]*"|[^\s&]+)`)
)

// shortestSecret is how long a secret has to be for its text to be looked for
// everywhere: a shorter one is found by chance.
const shortestSecret = 4

// Redactor takes secrets out of texts: those that it knows wherever they stand, and
// others by how they are written. The zero value knows none.
type Redactor struct{ known []string }

// Know has a secret be found in every text, in the shapes that URLs and shells give it.
func (r *Redactor) Know(secret string) {
	for _, shape := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), strings.ReplaceAll(secret, `"`, `\"`)} {
		if len(shape) >= shortestSecret && !slices.Contains(r.known, shape) {
			r.known = append(r.known, shape)
		}
	}
	slices.SortFunc(r.known, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // none hides a part of another
}

// Learn knows the secrets of a YAML file: the values of keys that are called so, the
// users and passwords of URLs, the properties of launch text. What isn't YAML is read
// line by line.
func (r *Redactor) Learn(text []byte) {
	r.learn(string(text))
	var top yaml.Node
	if yaml.Unmarshal(text, &top) == nil {
		r.walk(&top, false)
	}
}

// walk learns from a node; secret: a key above it is called so.
func (r *Redactor) walk(n *yaml.Node, secret bool) {
	switch n.Kind {
	case yaml.ScalarNode:
		if secret && (n.Tag == "!!str" || len(n.Value) > shortestSecret) {
			for line := range strings.Lines(n.Value) { // as a block has it
				r.Know(strings.TrimSpace(line))
			}
		}
		r.learn(n.Value)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			r.walk(n.Content[i+1], secret || secretKey.MatchString(n.Content[i].Value))
		}
	default:
		for _, c := range n.Content {
			r.walk(c, secret)
		}
	}
}

// learn knows the secrets of any text by how they are written.
func (r *Redactor) learn(text string) {
	for _, found := range inURL.FindAllStringSubmatch(text, -1) {
		_, password, _ := strings.Cut(found[1], ":") // a name alone, such as admin, stands everywhere
		for _, part := range []string{found[1], password} {
			r.Know(part)
			if plain, err := url.PathUnescape(part); err == nil {
				r.Know(plain)
			}
		}
	}
	for _, found := range assigned.FindAllStringSubmatch(text, -1) {
		r.Know(strings.Trim(found[1], `"`))
	}
}

// Redact returns a text without its secrets.
func (r *Redactor) Redact(text string) string {
	for _, secret := range r.known {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return keyed.ReplaceAllString(Redact(text), "$1…")
}
