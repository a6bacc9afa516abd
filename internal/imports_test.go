// Package internal_test holds the packages of this module to their table of
// imports: which may import which, and where the field's own libraries may be
// seen.
package internal_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is the table in docs/design.md §3: what a package may import
// besides the standard library and the general libraries. A name without a dot
// is an internal package; a library stands for everything under its path.
var mayImport = map[string][]string{
	"media":   {"github.com/pion/rtp"},
	"device":  {},
	"config":  {"media", "device", "gopkg.in/yaml.v3"},
	"gst":     {"media", "config", "device", "github.com/go-gst/go-gst", "github.com/go-gst/go-glib", "github.com/pion/rtp", "github.com/jezek/xgb"},
	"lint":    {"media", "config"},
	"worker":  {"media", "config"},
	"adapt":   {"media"},
	"contain": {},
	"stream":  {"media", "config", "adapt"},
	"rtc":     {"media", "config", "adapt", "contain", "github.com/pion"},
	"room":    {"media", "config", "auth", "stream"},
	"https":   {"config"},
	"bridge":  {"auth", "contain", "room"},
	"auth":    {"config", "github.com/golang-jwt/jwt"},
	"signal":  {"media", "config", "adapt", "contain", "room", "stream", "rtc", "auth", "github.com/gorilla/websocket"},
	"control": {"media", "github.com/jezek/xgb"},
	"record":  {"media", "config", "stream"},
	"web":     {},
	"gateway": {
		"media", "config", "contain", "device", "gst", "lint", "worker", "adapt", "stream", "rtc", "room", "auth", "bridge", "https", "signal", "control", "record", "web",
	},
	"cmd/gateway": {"gateway", "gateway/client", "github.com/pion"},
}

// general are the libraries that any package may import where they serve.
var general = []string{
	"github.com/prometheus",
	"go.opentelemetry.io",
	"github.com/fsnotify/fsnotify",
	"golang.org/x",
}

// cgo may stand in these packages only.
var cgo = []string{"gst"}

// Types of these libraries may stand in the exported signatures of showsTypes
// only, so that a library can be changed without touching anything else.
var (
	hidden     = []string{"github.com/go-gst", "github.com/pion", "github.com/gorilla"}
	showsTypes = []string{"gst", "rtc", "signal"}
)

func TestPackagesImportOnlyWhatTheTableAllows(t *testing.T) {
	for _, p := range load(t) {
		for _, fault := range importFaults(p) {
			t.Error(fault)
		}
	}
}

func TestExportedSignaturesHideTheLibraries(t *testing.T) {
	for _, p := range load(t) {
		for _, fault := range signatureFaults(p) {
			t.Error(fault)
		}
	}
}

func TestImportRulesFindWhatTheyForbid(t *testing.T) {
	p := &goPackage{name: "stream", fset: token.NewFileSet()}
	f, err := parser.ParseFile(p.fset, "stream.go", `package stream

import (
	"C"
	"errors"

	"gateway/internal/media"
	"gateway/internal/rtc"
	xyz "github.com/go-gst/go-gst/gst"
	"github.com/pion/webrtc/v4"
	"github.com/someone/unheard-of"
	"golang.org/x/sys/unix"
)

type Good struct {
	Track media.Track
	pipe  *xyz.Pipeline
}

func (g *Good) fine(p *xyz.Pipeline) {}

type Bad struct{ Pipelines map[string][]*xyz.Pipeline }

func (b *Bad) Peer() (func(webrtc.ICECandidate), error) { return nil, errors.ErrUnsupported }

type Alias = webrtc.PeerConnection

var API = webrtc.NewAPI()

type Sender interface{ Send(<-chan *webrtc.RTPSender) }

func Later() { _ = func() *xyz.Pipeline { return nil } }
`, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.files = []*ast.File{f}
	check(t, importFaults(p), `"C"`, "gateway/internal/rtc", "github.com/go-gst/go-gst/gst", "github.com/pion/webrtc/v4", "github.com/someone/unheard-of")
	check(t, signatureFaults(p), "Bad shows xyz.Pipeline", "Peer shows webrtc.ICECandidate", "Alias shows webrtc.PeerConnection", "API shows webrtc.NewAPI", "Sender shows webrtc.RTPSender")
}

// check tells whether there is exactly one fault for each of the wanted words, in their order.
func check(t *testing.T, faults []error, want ...string) {
	t.Helper()
	ok := len(faults) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.Contains(faults[i].Error(), want[i])
	}
	if !ok {
		t.Errorf("got\n%v\nwant faults with %q", errors.Join(faults...), want)
	}
}

// goPackage is one package of this module without its tests.
type goPackage struct {
	name  string // under internal/; "cmd/gateway"
	fset  *token.FileSet
	files []*ast.File
}

// load parses every package under internal/ and cmd/.
func load(t *testing.T) []*goPackage {
	t.Helper()
	fset := token.NewFileSet()
	packages := make(map[string]*goPackage)
	visit := func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "testdata" {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(file)), "../")
		if packages[name] == nil {
			packages[name] = &goPackage{name: name, fset: fset}
		}
		packages[name].files = append(packages[name].files, f)
		return nil
	}
	for _, root := range []string{".", "../cmd"} {
		if err := filepath.WalkDir(root, visit); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if len(packages) == 0 {
		t.Fatal("no packages found")
	}
	var all []*goPackage
	for _, p := range packages {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *goPackage) int { return strings.Compare(a.name, b.name) })
	return all
}

// row is the package's name in the table: a package inside another one (such as
// gst/internal/x) obeys the row of the outer one.
func (p *goPackage) row() string {
	if _, ok := mayImport[p.name]; ok {
		return p.name
	}
	first, _, _ := strings.Cut(p.name, "/")
	return first
}

func importFaults(p *goPackage) []error {
	var faults []error
	allowed, ok := mayImport[p.row()]
	if !ok {
		return []error{fmt.Errorf("internal/%s has no row in the table of docs/design.md §3 and in mayImport", p.name)}
	}
	for _, f := range p.files {
		for _, spec := range f.Imports {
			imported := importPath(spec)
			if !importAllowed(p.row(), imported, allowed) {
				faults = append(faults, fmt.Errorf("%s: package %s may not import %q", p.fset.Position(spec.Pos()), p.name, imported))
			}
		}
	}
	return faults
}

func importAllowed(row, imported string, allowed []string) bool {
	if imported == "C" {
		return slices.Contains(cgo, row)
	}
	if inner, ok := strings.CutPrefix(imported, "gateway/internal/"); ok {
		first, _, _ := strings.Cut(inner, "/")
		return first == row || slices.Contains(allowed, first)
	}
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") { // the standard library; nothing outside internal/ may be imported
		return first != "gateway" || slices.Contains(allowed, imported)
	}
	return under(imported, general) || under(imported, allowed)
}

// under tells whether an import path is one of the roots or below one.
func under(imported string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return imported == root || strings.HasPrefix(imported, root+"/")
	})
}

func importPath(spec *ast.ImportSpec) string {
	s, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic(err) // the parser has read it as a string
	}
	return s
}

// signatureFaults finds the exported declarations that name a type of a hidden
// library. It reads syntax only: a type that is inferred from a function of
// another package of this module is seen where that function is declared.
func signatureFaults(p *goPackage) []error {
	if slices.Contains(showsTypes, p.row()) {
		return nil
	}
	var faults []error
	for _, f := range p.files {
		names := hiddenNames(f)
		if len(names) == 0 {
			continue
		}
		look := func(what string, nodes ...ast.Node) {
			for _, n := range nodes {
				if shown := firstShown(n, names); shown != nil {
					faults = append(faults, fmt.Errorf("%s: exported %s shows %s", p.fset.Position(shown.Pos()), what, selector(shown)))
				}
			}
		}
		for _, decl := range f.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Name.IsExported() && receiverExported(decl) {
					look(decl.Name.Name, decl.Type)
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						if spec.Name.IsExported() {
							look(spec.Name.Name, spec.Type)
						}
					case *ast.ValueSpec:
						if slices.ContainsFunc(spec.Names, (*ast.Ident).IsExported) {
							look(spec.Names[0].Name, valueTypes(spec)...)
						}
					}
				}
			}
		}
	}
	return faults
}

// valueTypes is what tells a variable's type: its type, else its values.
func valueTypes(spec *ast.ValueSpec) []ast.Node {
	if spec.Type != nil {
		return []ast.Node{spec.Type}
	}
	var nodes []ast.Node
	for _, v := range spec.Values {
		nodes = append(nodes, v)
	}
	return nodes
}

func receiverExported(decl *ast.FuncDecl) bool {
	if decl.Recv == nil || len(decl.Recv.List) == 0 {
		return true
	}
	exported := false
	ast.Inspect(decl.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && !exported {
			exported = id.IsExported()
			return false
		}
		return true
	})
	return exported
}

// firstShown is the first place below n where a hidden library's name is seen
// from outside: not in unexported fields and not in function bodies.
func firstShown(n ast.Node, names map[string]bool) *ast.SelectorExpr {
	var shown *ast.SelectorExpr
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BlockStmt:
			return false
		case *ast.StructType:
			for _, field := range n.Fields.List {
				if len(field.Names) > 0 && !slices.ContainsFunc(field.Names, (*ast.Ident).IsExported) {
					continue
				}
				if s := firstShown(field.Type, names); s != nil && shown == nil {
					shown = s
				}
			}
			return false
		case *ast.SelectorExpr:
			if id, ok := n.X.(*ast.Ident); ok && names[id.Name] && shown == nil {
				shown = n
			}
		}
		return shown == nil
	})
	return shown
}

func selector(s *ast.SelectorExpr) string {
	return s.X.(*ast.Ident).Name + "." + s.Sel.Name // firstShown yields no others
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// hiddenNames are the names by which a file knows the hidden libraries.
func hiddenNames(f *ast.File) map[string]bool {
	names := make(map[string]bool)
	for _, spec := range f.Imports {
		imported := importPath(spec)
		if !under(imported, hidden) {
			continue
		}
		if majorVersion.MatchString(path.Base(imported)) {
			imported = path.Dir(imported)
		}
		name := path.Base(imported)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = true
	}
	return names
}
