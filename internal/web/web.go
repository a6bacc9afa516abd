// Package web serves the gateway's own pages and the player module that other
// pages embed. It hides where the files are (in the binary), how browsers cache
// them, and what the pages are allowed to do (their Content-Security-Policy).
// It starts no goroutines.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed static
var static embed.FS

// types are the content types of what is embedded; the system's own table may
// be missing or wrong.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// policy is what every page may do: its own scripts, styles and requests,
// nothing from elsewhere, and of inline scripts only the one whose hash is given.
const policy = "default-src 'none'; script-src 'self'%s; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; " +
	"media-src 'self' blob: mediastream:; base-uri 'none'; form-action 'none'; frame-ancestors %s"

const (
	nobody    = "'none'" // may frame the list of streams, or a room
	everybody = "*"      // may frame the page of one stream
)

// What a page may use of what can be captured (Permissions-Policy).
const (
	nothing = "camera=(), display-capture=(), microphone=()"
	capture = "camera=(self), display-capture=(self), microphone=(self)" // to publish it
)

// file is one embedded file as it goes out.
type file struct {
	mediaType string
	body      []byte
	zipped    []byte // gzip, nil where it isn't smaller
	tag       string // hash of body, without quotes
}

func newFile(name string, body []byte) *file {
	sum := sha256.Sum256(body)
	f := &file{mediaType: types[path.Ext(name)], body: body, tag: hex.EncodeToString(sum[:8])}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is valid
	z.Write(body)                                         // a bytes.Buffer takes everything
	z.Close()
	if b.Len() < len(body) {
		f.zipped = b.Bytes()
	}
	return f
}

// serve answers a GET or HEAD with the file, or 304 when the client has it.
func (f *file) serve(w http.ResponseWriter, r *http.Request, status int) {
	h := w.Header()
	body, tag := f.body, `"`+f.tag+`"`
	if f.zipped != nil {
		h.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			h.Set("Content-Encoding", "gzip")
			body, tag = f.zipped, `"`+f.tag+`-gzip"`
		}
	}
	h.Set("Content-Type", f.mediaType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	if status == http.StatusOK {
		h.Set("ETag", tag)
		if matches(r.Header.Get("If-None-Match"), tag) {
			h.Del("Content-Type")
			h.Del("Content-Encoding")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body) // a client that has gone needs no answer
	}
}

// matches tells whether an If-None-Match header lists the tag (RFC 9110 §13.1.2,
// weak comparison).
func matches(header, tag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == tag || candidate == "*" {
			return true
		}
	}
	return false
}

// acceptsGzip tells whether an Accept-Encoding header allows gzip by name.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, quality, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		value, ok := strings.CutPrefix(strings.ReplaceAll(quality, " ", ""), "q=")
		q, err := strconv.ParseFloat(value, 64)
		return !ok || err != nil || q > 0
	}
	return false
}

// site is everything embedded, ready to go out.
type site struct {
	assets   map[string]*file // by name below assets/
	index    *file
	watch    *file
	room     *file
	early    string // the watch page's inline script as a policy names it: " 'sha256-…'"
	notFound []byte // a page with {root} and {assets} still in it: it is shown at any depth
	version  string // hash of all assets: pages name them by it, so that browsers may keep them
}

var load = sync.OnceValue(func() *site {
	s := &site{assets: map[string]*file{}}
	all := sha256.New()
	entries, err := fs.ReadDir(static, "static/assets")
	if err != nil {
		panic("web: " + err.Error()) // the folder is embedded
	}
	for _, entry := range entries { // sorted by name
		body := read("assets/" + entry.Name())
		f := newFile(entry.Name(), body)
		if f.mediaType == "" {
			panic("web: no content type for " + entry.Name())
		}
		s.assets[entry.Name()] = f
		fmt.Fprintf(all, "%s %s\n", entry.Name(), f.tag)
	}
	s.version = "v-" + hex.EncodeToString(all.Sum(nil)[:6])
	s.index = newFile("index.html", s.fill(read("index.html"), "./"))
	early := bytes.TrimSpace(read("early.js"))
	sum := sha256.Sum256(early)
	s.early = " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	watch := bytes.Replace(read("watch.html"), []byte("{early}"), early, 1)
	s.watch = newFile("watch.html", s.fill(watch, "../"))
	s.room = newFile("room.html", s.fill(read("room.html"), "../"))
	s.notFound = read("notfound.html")
	return s
})

func read(name string) []byte {
	body, err := static.ReadFile("static/" + name)
	if err != nil {
		panic("web: " + err.Error()) // the file is embedded
	}
	return body
}

// fill writes into a page how to come from it to the root. The addresses are
// relative, so that the pages also work under a path of a reverse proxy.
func (s *site) fill(page []byte, root string) []byte {
	page = bytes.ReplaceAll(page, []byte("{root}"), []byte(root))
	return bytes.ReplaceAll(page, []byte("{assets}"), []byte(root+"assets/"+s.version+"/"))
}

// Handler serves the pages and the player module:
//
//   - / lists the streams
//   - /watch/{name} plays one; it may be framed by any page
//   - /room/{name} is a room: it may use camera, microphone and screen, and may not be framed
//   - /assets/{file} is for embedding: always revalidated, readable from any origin
//   - /assets/{version}/{file} is what the pages themselves name: kept by browsers for good
//
// Anything else is a 404 page. The handler doesn't know which streams there
// are: the page of one that doesn't exist says so itself.
func Handler() http.Handler {
	s := load()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { s.page(w, r, s.index, "", nobody, nothing) })
	mux.HandleFunc("GET /watch/{name}", func(w http.ResponseWriter, r *http.Request) { s.page(w, r, s.watch, s.early, everybody, nothing) })
	mux.HandleFunc("GET /room/{name}", func(w http.ResponseWriter, r *http.Request) { s.page(w, r, s.room, "", nobody, capture) })
	mux.HandleFunc("GET /assets/{file}", s.asset)
	mux.HandleFunc("GET /assets/{version}/{file}", s.asset)
	mux.HandleFunc("/", s.missing)
	return mux
}

// page answers with a page that the given ancestors may frame and that may use
// the given features of the browser.
func (s *site) page(w http.ResponseWriter, r *http.Request, f *file, inline, ancestors, features string) {
	protect(w.Header(), inline, ancestors, features)
	w.Header().Set("Cache-Control", "no-cache")
	f.serve(w, r, http.StatusOK)
}

func protect(h http.Header, inline, ancestors, features string) {
	h.Set("Content-Security-Policy", fmt.Sprintf(policy, inline, ancestors))
	h.Set("Permissions-Policy", features+", geolocation=(), payment=(), usb=()")
}

func (s *site) asset(w http.ResponseWriter, r *http.Request) {
	f, ok := s.assets[r.PathValue("file")]
	version := r.PathValue("version")
	if !ok || (version != "" && !strings.HasPrefix(version, "v-")) {
		s.missing(w, r)
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*") // modules of another origin are loaded with CORS; nothing here is secret
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Cache-Control", "no-cache")
	if version == s.version {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} // a page of another version is answered too, but must ask again
	f.serve(w, r, http.StatusOK)
}

// missing answers what isn't there: 404, or 405 where only the method is wrong.
func (s *site) missing(w http.ResponseWriter, r *http.Request) {
	protect(w.Header(), "", nobody, nothing)
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	root := "./" + strings.Repeat("../", max(0, strings.Count(r.URL.EscapedPath(), "/")-1))
	page := &file{mediaType: types[".html"], body: s.fill(s.notFound, root)}
	page.serve(w, r, http.StatusNotFound)
}
