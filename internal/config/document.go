package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFile is the most bytes that a configuration file may have. The largest
// sensible one is a few KiB; the limit bounds what a hostile one can cost.
const maxFile = 64 << 10

// position is where a value is, for findings that are made after decoding.
type position struct{ line, column int }

// document collects the findings of one file.
type document struct {
	file    string
	schema  *schema
	errs    Errors
	origins map[*yaml.Node]string // values that came from a variable or flag, and its name
	at      map[string]position   // key path → position of its value
}

// readFile reads a regular file of at most maxFile bytes.
func readFile(path string) ([]byte, *Error) {
	fault := func(message, remedy string) *Error {
		return &Error{File: path, Message: message, Remedy: remedy, Severity: Fault}
	}
	// a FIFO or a device would block or never end: ask before opening
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fault("the file does not exist", "check the name")
	case err != nil:
		return nil, fault(bare(err), "make it readable for the gateway's user")
	case !info.Mode().IsRegular():
		return nil, fault("this is not a regular file", "name a YAML file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault(bare(err), "make it readable for the gateway's user")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fault(bare(err), "")
	}
	return data, nil
}

// bare is an error of package os without the path, which the finding has.
func bare(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// parse reads data as one YAML document and returns its top mapping, or nil
// after it has recorded why there is none. An empty document is nil too, without
// a finding.
func (d *document) parse(data []byte) *yaml.Node {
	top := d.root(data)
	if top != nil && top.Kind != yaml.MappingNode {
		d.fault(top, "", "expected keys and values, found "+describe(top), "begin with a line such as \"title: Front door\"")
		return nil
	}
	return top
}

// root is parse for a document of any shape.
func (d *document) root(data []byte) (top *yaml.Node) {
	if len(data) > maxFile {
		d.fault(nil, "", fmt.Sprintf("the file is larger than %d KiB", maxFile>>10), "shorten it")
		return nil
	}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc, next yaml.Node
	if err := decode(dec, &doc); err == io.EOF {
		return nil
	} else if err != nil {
		d.syntax(err, data)
		return nil
	}
	switch err := decode(dec, &next); {
	case err == nil:
		d.fault(&next, "", "a second YAML document begins here", "keep one document a file")
		return nil
	case err != io.EOF:
		d.syntax(err, data)
		return nil
	}
	if len(doc.Content) == 0 {
		return nil
	}
	if top = doc.Content[0]; top.Kind == yaml.ScalarNode && top.ShortTag() == "!!null" {
		return nil
	}
	return top
}

// decode is Decode, with a panic of the YAML library turned into an error: the
// library recovers only from its own.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: cannot be read: %v", r)
		}
	}()
	return dec.Decode(n)
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// syntax records a syntax error with what the YAML library tells: a line at most.
func (d *document) syntax(err error, data []byte) {
	f := &Error{File: d.file, Line: 1, Severity: Fault, Remedy: "check indentation, colons and quotes there"}
	m := syntaxLine.FindStringSubmatch(strings.ReplaceAll(err.Error(), "\n", " "))
	if m == nil {
		f.Message = "not YAML: " + err.Error()
		d.errs = append(d.errs, f)
		return
	}
	if n, err := strconv.Atoi(m[1]); err == nil {
		f.Line = n
	}
	f.Message = "not YAML: " + m[2]
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	f.Line = min(f.Line, len(lines))
	for i := max(f.Line-2, 0); i < min(f.Line+1, len(lines)); i++ {
		if indent := lines[i][:len(lines[i])-len(strings.TrimLeft(lines[i], " \t"))]; strings.Contains(indent, "\t") {
			f.Line, f.Column = i+1, strings.IndexByte(indent, '\t')+1
			f.Remedy = "YAML is indented with spaces, not tabs"
			break
		}
	}
	if strings.Contains(m[2], "UTF-8") {
		f.Remedy = "save the file as UTF-8"
	}
	if strings.Contains(m[2], "mapping values are not allowed") {
		f.Remedy = "put a text that holds \": \" in quotes, and check the indentation"
	}
	if strings.Contains(m[2], "unexpected end of stream") {
		f.Remedy = "close the quote that is opened there or above"
	}
	d.errs = append(d.errs, f)
}

// fault records a finding at n, or for the whole file if n is nil.
func (d *document) fault(n *yaml.Node, key, message, remedy string) {
	e := &Error{File: d.file, Key: key, Message: message, Remedy: remedy, Severity: Fault}
	if n != nil {
		if origin, ok := d.origins[n]; ok {
			e.File = origin
		} else {
			e.Line, e.Column = n.Line, n.Column
		}
	}
	d.errs = append(d.errs, e)
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "the truth value " + n.Value
	case "!!int", "!!float":
		return "the number " + n.Value
	}
	return "the text " + quote(n.Value)
}

// quote is a value as a finding shows it: short, on one line.
func quote(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return strconv.Quote(s)
}

// mapping is a YAML mapping whose keys were checked against the schema. The zero
// node is an absent mapping: every key has its default.
type mapping struct {
	d      *document
	path   string
	node   *yaml.Node // nil: absent
	values map[string]*yaml.Node
}

// mapping checks the keys of n. Values are checked when they are asked for.
func (d *document) mapping(n *yaml.Node, path string) *mapping {
	m := &mapping{d: d, path: path, node: n, values: map[string]*yaml.Node{}}
	if n == nil {
		return m
	}
	if n.Kind != yaml.MappingNode {
		remedy := "indent its keys below it"
		if n.ShortTag() == "!!null" {
			remedy += ", or remove it"
		}
		d.fault(n, path, "expected keys and values, found "+describe(n), remedy)
		m.node = nil
		return m
	}
	known := d.schema.children(path)
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.fault(k, path, "a key must be a word, found "+describe(k), "write it as \"key: value\"")
			continue
		}
		name, full := k.Value, joinPath(path, k.Value)
		if k.ShortTag() == "!!merge" {
			d.fault(k, path, "merge keys are not supported", "write the keys out")
			continue
		}
		if line, ok := first[name]; ok {
			d.fault(k, full, fmt.Sprintf("the key was already given in line %d", line), "remove one of them")
			continue
		}
		first[name] = k.Line
		if !slices.Contains(known, name) {
			d.unknown(k, path, known)
			continue
		}
		if v.Kind == yaml.AliasNode {
			d.fault(v, full, "aliases are not supported", "write the value out")
			v = &yaml.Node{} // given, but unusable: no second finding
		}
		m.values[name] = v
		if _, fromFlag := d.origins[v]; !fromFlag {
			d.at[full] = position{v.Line, v.Column}
		}
	}
	return m
}

// unknown records a key that the schema doesn't have, with the nearest it has.
func (d *document) unknown(k *yaml.Node, path string, known []string) {
	full := joinPath(path, k.Value)
	if meanwhile, ok := d.schema.later[full]; ok {
		d.fault(k, full, "not supported yet", meanwhile)
		return
	}
	if near := nearest(k.Value, known); near != "" {
		d.fault(k, full, "unknown key", "did you mean "+joinPath(path, near)+"?")
		return
	}
	for _, other := range d.schema.keys { // right word, wrong place
		if _, name := splitPath(other.path); name == k.Value {
			d.fault(k, full, "unknown key", "did you mean "+other.path+"?")
			return
		}
	}
	d.fault(k, full, "unknown key", "known here: "+strings.Join(known, ", "))
}

// value returns the node of a key, or nil if it isn't given. A name that the
// schema lacks is a mistake of this package.
func (m *mapping) value(name string) *yaml.Node {
	if !slices.Contains(m.d.schema.children(m.path), name) {
		panic("config: " + joinPath(m.path, name) + " is not in the schema")
	}
	v := m.values[name]
	if v != nil && v.Kind == 0 {
		return nil
	}
	return v
}

func (m *mapping) has(name string) bool { return m.values[name] != nil }

func (m *mapping) fault(name, message, remedy string) {
	n := m.values[name]
	if n == nil {
		n = m.node
	}
	m.d.fault(n, joinPath(m.path, name), message, remedy)
}
