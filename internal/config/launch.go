package config

import (
	"errors"
	"strconv"
	"strings"
)

// A launch text as far as the gateway must understand it: which elements there
// are, how they are chained and which properties they are given. GStreamer's own
// parser has the last word.

// LaunchKind is what a LaunchNode is.
type LaunchKind uint8

// The kinds of nodes.
const (
	LaunchElement LaunchKind = iota + 1
	LaunchCaps               // a caps filter: "video/x-raw,width=640"
	LaunchRef                // a reference: "t." or "t.src_0"
)

// LaunchNode is an element, a caps filter or a reference of a launch text.
type LaunchNode struct {
	Kind       LaunchKind
	Name       string // factory, caps or reference
	Props      []LaunchProp
	Start, End int  // bytes of the text that it takes
	Linked     bool // a "!" comes before it
}

// LaunchProp is an assignment to a property of an element.
type LaunchProp struct {
	Name, Value string // value without quotes
	Start, End  int    // bytes of the text, name included
}

// Prop returns the value of the last assignment to a property.
func (n *LaunchNode) Prop(name string) (string, bool) {
	for i := len(n.Props) - 1; i >= 0; i-- {
		if n.Props[i].Name == name {
			return n.Props[i].Value, true
		}
	}
	return "", false
}

var errUnbalanced = errors.New("a quote is opened and not closed")

// ParseLaunch splits a launch text into its nodes, in the order of the text. It
// fails only on what no pipeline can have.
func ParseLaunch(text string) ([]LaunchNode, error) {
	var nodes []LaunchNode
	linked := false
	i := 0
	for i < len(text) {
		c := text[i]
		switch {
		case isSpace(c) || c == '(' || c == ')':
			i++
			continue
		case c == '!':
			if linked || len(nodes) == 0 {
				return nil, errors.New("nothing comes before a \"!\"")
			}
			linked = true
			i++
			continue
		}
		start := i
		word, end, err := launchWord(text, i)
		if err != nil {
			return nil, err
		}
		i = end
		last := len(nodes) - 1
		switch name, value, ok := strings.Cut(word, "="); {
		case isCaps(word):
			// caps reach to the next link, spaces included
			for i < len(text) && text[i] != '!' {
				if text[i] == '"' || text[i] == '\'' {
					if i, err = skipQuoted(text, i); err != nil {
						return nil, err
					}
					continue
				}
				i++
			}
			end = start + len(strings.TrimRight(text[start:i], " \t\r\n"))
			nodes = append(nodes, LaunchNode{Kind: LaunchCaps, Name: text[start:end], Start: start, End: end, Linked: linked})
			linked = false
		case ok || nextIs(text, i, '='):
			if !ok { // "name = value"
				i = skipSpace(text, i) + 1
			}
			if value == "" {
				if j := skipSpace(text, i); j < len(text) && text[j] != '!' {
					if _, i, err = launchWord(text, j); err != nil {
						return nil, err
					}
					value = text[j:i]
				}
			}
			if last < 0 || linked || nodes[last].Kind != LaunchElement {
				return nil, errors.New("the property " + quote(name) + " belongs to no element")
			}
			nodes[last].Props = append(nodes[last].Props, LaunchProp{name, unquote(value), start, i})
			nodes[last].End = i
		case strings.Contains(word, "."):
			nodes = append(nodes, LaunchNode{Kind: LaunchRef, Name: word, Start: start, End: i, Linked: linked})
			linked = false
		default:
			nodes = append(nodes, LaunchNode{Kind: LaunchElement, Name: word, Start: start, End: i, Linked: linked})
			linked = false
		}
	}
	if linked {
		return nil, errors.New("nothing comes after the last \"!\"")
	}
	return nodes, nil
}

// launchWord reads to the next space or link that is not quoted. Behind an "="
// a link sign is part of the value, as GStreamer has it.
func launchWord(text string, i int) (word string, end int, err error) {
	start, value := i, false
	for i < len(text) && !isSpace(text[i]) {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"' || c == '\'':
			if i, err = skipQuoted(text, i); err != nil {
				return "", 0, err
			}
			continue
		case c == '=':
			value = true
		case (c == '!' || c == ')' || c == '(') && !value:
			return text[start:i], i, nil
		}
		i++
	}
	i = min(i, len(text))
	return text[start:i], i, nil
}

// skipQuoted returns the index behind the quoted text that begins at i.
func skipQuoted(text string, i int) (int, error) {
	q := text[i]
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case q:
			return i + 1, nil
		}
	}
	return 0, errUnbalanced
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func skipSpace(text string, i int) int {
	for i < len(text) && isSpace(text[i]) {
		i++
	}
	return i
}

func nextIs(text string, i int, c byte) bool {
	i = skipSpace(text, i)
	return i < len(text) && text[i] == c
}

// isCaps tells "video/x-raw,width=1" from an assignment such as "a=b/c".
func isCaps(word string) bool {
	slash := strings.IndexByte(word, '/')
	stop := strings.IndexAny(word, "=\"'")
	return slash > 0 && (stop < 0 || slash < stop)
}

// unquote is a value without its quotes and the backslashes that keep letters as
// they are.
func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		s = s[1 : len(s)-1]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// quoteLaunch is a property value as a launch text spells it: it stays one value
// whatever it holds, for GStreamer and for a shell.
func quoteLaunch(v string) string {
	plain := v != "" && strings.IndexFunc(v, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-_+./:,", r)
	}) < 0
	if plain {
		return v
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(v) + `"`
}

// capsField reads a field of a caps text: "1280" of "video/x-raw,width=1280", with
// or without a type in brackets. A range or a list is "".
func capsField(caps, field string) string {
	for part := range strings.SplitSeq(caps, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || strings.TrimSpace(name) != field {
			continue
		}
		value = unquote(strings.TrimSpace(value))
		if strings.HasPrefix(value, "(") {
			_, value, _ = strings.Cut(value, ")")
		}
		value = unquote(strings.TrimSpace(value))
		if strings.ContainsAny(value, "[{") {
			return ""
		}
		return value
	}
	return ""
}

func capsInt(caps, field string) int {
	n, _ := strconv.Atoi(capsField(caps, field))
	return max(n, 0)
}

// capsRate reads a framerate field; 0 if there is none.
func capsRate(caps string) float64 {
	num, den, ok := strings.Cut(capsField(caps, "framerate"), "/")
	n, err := strconv.ParseFloat(num, 64)
	if err != nil || n < 0 {
		return 0
	}
	if d, err := strconv.ParseFloat(den, 64); ok && err == nil && d > 0 {
		return n / d
	}
	return n
}

// setProps puts properties into the text of one element: what it already says
// is replaced, the rest is added.
func setProps(element string, names []string, values map[string]string) string {
	nodes, err := ParseLaunch(element)
	if err != nil || len(nodes) != 1 {
		return element
	}
	var b strings.Builder
	b.WriteString(nodes[0].Name)
	said := map[string]bool{}
	for _, p := range nodes[0].Props {
		v, replaced := values[p.Name]
		if !replaced {
			v = p.Value
		}
		said[p.Name] = true
		b.WriteString(" " + p.Name + "=" + quoteLaunch(v))
	}
	for _, n := range names {
		if !said[n] {
			b.WriteString(" " + n + "=" + quoteLaunch(values[n]))
		}
	}
	return b.String()
}
