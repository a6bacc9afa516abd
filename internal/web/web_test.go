package web

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func get(t *testing.T, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPagesAllowOnlyTheirOwnScriptsAndStyles(t *testing.T) {
	for _, c := range []struct {
		path      string
		status    int
		ancestors string
	}{
		{"/", 200, "'none'"},
		{"/watch/test", 200, "*"},
		{"/watch/T%C3%BCr%20vorn", 200, "*"},
		{"/room/meeting", 200, "'none'"},
		{"/nothing/here", 404, "'none'"},
	} {
		res := get(t, c.path)
		if res.StatusCode != c.status {
			t.Errorf("%s: status %d, want %d", c.path, res.StatusCode, c.status)
		}
		directives := strings.Split(res.Header.Get("Content-Security-Policy"), "; ")
		for _, want := range []string{
			"default-src 'none'", "script-src 'self'" + inlineScript(t, res), "style-src 'self'", "connect-src 'self'", "img-src 'self' data: blob:",
			"base-uri 'none'", "form-action 'none'", "frame-ancestors " + c.ancestors,
		} {
			if !slices.Contains(directives, want) {
				t.Errorf("%s: the policy lacks %q: %q", c.path, want, directives)
			}
		}
		for name, want := range map[string]string{
			"Content-Type":           "text/html; charset=utf-8",
			"X-Content-Type-Options": "nosniff",
			"Referrer-Policy":        "no-referrer",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", c.path, name, got, want)
			}
		}
		camera := "camera=()"
		if strings.HasPrefix(c.path, "/room/") {
			camera = "camera=(self)"
		}
		if got := res.Header.Get("Permissions-Policy"); !strings.Contains(got, camera) {
			t.Errorf("%s: Permissions-Policy is %q, want %s", c.path, got, camera)
		}
	}
}

// inlineScript is how a policy names the page's inline script, empty without one.
func inlineScript(t *testing.T, res *http.Response) string {
	script := regexp.MustCompile(`(?s)<script>(.*?)</script>`).FindStringSubmatch(body(t, res))
	if script == nil {
		return ""
	}
	sum := sha256.Sum256([]byte(script[1]))
	return " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// The policy would refuse it, and a refusal shows only in a browser's console.
func TestNothingElseIsInline(t *testing.T) {
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(?:[^>]*)>(?:[^<{]|\{[^e])`)
	data := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|setAttribute\('style'|\beval\(`)
	err := fs.WalkDir(static, "static", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(static, name)
		if err != nil {
			return err
		}
		if found := inline.Find(text); path.Ext(name) == ".html" && found != nil {
			t.Errorf("%s: %q is inline", name, found)
		}
		if found := data.Find(text); path.Ext(name) == ".js" && found != nil {
			t.Errorf("%s: %q makes elements from text", name, found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryAddressInAPageLeadsSomewhere(t *testing.T) {
	reference := regexp.MustCompile(`(?:href|src)="([^"#]+)"`)
	for _, page := range []string{"/", "/watch/test", "/room/test", "/a/b/c/missing"} {
		for _, m := range reference.FindAllStringSubmatch(body(t, get(t, page)), -1) {
			target := path.Join(path.Dir(page), m[1])
			if strings.HasPrefix(target, "/api/") {
				continue // the gateway's own
			}
			if res := get(t, target); res.StatusCode != 200 {
				t.Errorf("%s: %s: status %d", page, m[1], res.StatusCode)
			}
		}
	}
}

func TestModulesImportWhatIsThere(t *testing.T) {
	imported := regexp.MustCompile(`(?:from|import) '(\.[^']+)'`)
	for name, f := range load().assets {
		for _, m := range imported.FindAllSubmatch(f.body, -1) {
			if module := path.Base(string(m[1])); load().assets[module] == nil {
				t.Errorf("%s imports %s, which is missing", name, module)
			}
		}
	}
}

// The time to the first frame counts from the navigation: a module that is
// found only when another one was read costs a round trip.
func TestPagesPreloadEveryModule(t *testing.T) {
	imported := regexp.MustCompile(`from '\./([^']+)'|import '\./([^']+)'`)
	for address, first := range map[string]string{"/watch/test": "watch.js", "/room/test": "room-page.js", "/": "home.js"} {
		page := body(t, get(t, address))
		seen := map[string]bool{}
		var follow func(name string)
		follow = func(name string) {
			if seen[name] {
				return
			}
			seen[name] = true
			if !strings.Contains(page, "/"+name+`"`) {
				t.Errorf("%s doesn't name %s", address, name)
			}
			for _, m := range imported.FindAllStringSubmatch(string(load().assets[name].body), -1) {
				follow(m[1] + m[2])
			}
		}
		follow(first)
	}
}

func TestAssetsHaveTypesAndCanBeEmbedded(t *testing.T) {
	for file, want := range map[string]string{
		"player.js": "text/javascript; charset=utf-8",
		"page.css":  "text/css; charset=utf-8",
		"icon.svg":  "image/svg+xml",
	} {
		res := get(t, "/assets/"+file)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != want {
			t.Errorf("%s: status %d, type %q, want %q", file, res.StatusCode, res.Header.Get("Content-Type"), want)
		}
		if res.Header.Get("Access-Control-Allow-Origin") != "*" || res.Header.Get("Cross-Origin-Resource-Policy") != "cross-origin" {
			t.Errorf("%s can't be loaded from another origin", file)
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s may be sniffed", file)
		}
	}
}

func TestAssetIsKeptByVersionAndRevalidatedWithout(t *testing.T) {
	version := load().version
	for target, want := range map[string]string{
		"/assets/player.js":                    "no-cache",
		"/assets/" + version + "/player.js":    "public, max-age=31536000, immutable",
		"/assets/v-000000000000/player.js":     "no-cache", // a page that was open while the gateway was updated
		"/":                                    "no-cache",
		"/watch/test":                          "no-cache",
		"/assets/" + version + "/elsewhere.js": "no-store",
	} {
		if got := get(t, target).Header.Get("Cache-Control"); got != want {
			t.Errorf("%s: Cache-Control %q, want %q", target, got, want)
		}
	}
}

func TestUnchangedFileIsNotSentAgain(t *testing.T) {
	for _, target := range []string{"/", "/watch/test", "/assets/player.js"} {
		for _, encoding := range []string{"", "gzip"} {
			tag := get(t, target, "Accept-Encoding", encoding).Header.Get("ETag")
			if tag == "" {
				t.Fatalf("%s: no ETag", target)
			}
			for _, header := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
				res := get(t, target, "Accept-Encoding", encoding, "If-None-Match", header)
				if res.StatusCode != http.StatusNotModified || body(t, res) != "" {
					t.Errorf("%s: If-None-Match %s: status %d", target, header, res.StatusCode)
				}
			}
			if res := get(t, target, "If-None-Match", `"other"`); res.StatusCode != 200 {
				t.Errorf("%s: another tag: status %d", target, res.StatusCode)
			}
		}
	}
}

func TestCompressedOnlyForWhoAsks(t *testing.T) {
	plain := get(t, "/assets/player.js")
	zipped := get(t, "/assets/player.js", "Accept-Encoding", "br, gzip")
	if plain.Header.Get("Content-Encoding") != "" || zipped.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("encodings %q and %q", plain.Header.Get("Content-Encoding"), zipped.Header.Get("Content-Encoding"))
	}
	if plain.Header.Get("ETag") == zipped.Header.Get("ETag") {
		t.Error("both encodings have one ETag")
	}
	if zipped.Header.Get("Vary") != "Accept-Encoding" {
		t.Error("caches are not told of the encodings")
	}
	z, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != body(t, plain) {
		t.Error("the compressed file is another one")
	}
	if res := get(t, "/assets/player.js", "Accept-Encoding", "gzip;q=0, br"); res.Header.Get("Content-Encoding") != "" {
		t.Error("gzip was sent to who refuses it")
	}
}

func TestNothingOutsideTheAssetsIsServed(t *testing.T) {
	for _, target := range []string{
		"/assets/", "/assets", "/assets/../web.go", "/assets/%2e%2e/index.html", "/assets/..%2findex.html", "/assets/v-1/..%2f..%2fweb.go",
		"/static/index.html", "/index.html", "/watch.html", "/web.go", "/assets/v-1/", "/assets/%00", "/assets/other/player.js",
		"/watch/", "/watch", "/watch/a/b", "/.git/config", "/favicon.ico",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path, r.RequestURI = target, target
		if u, err := r.URL.Parse("http://gateway.example" + target); err == nil {
			r.URL = u
		}
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, r)
		res := w.Result()
		if location := res.Header.Get("Location"); location != "" { // the mux cleans a path by redirecting
			res = get(t, location)
		}
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", target, res.StatusCode)
		}
	}
}

func TestMissingPageLooksLikeTheOthersAtAnyDepth(t *testing.T) {
	for target, root := range map[string]string{"/x": "./", "/x/y": "./../", "/x/y/z%2fq": "./../../"} {
		res := get(t, target)
		text := body(t, res)
		if res.StatusCode != 404 || !strings.Contains(text, `href="`+root+"assets/"+load().version+`/page.css"`) {
			t.Errorf("%s: status %d, its style sheet isn't below %q", target, res.StatusCode, root)
		}
		if strings.Contains(text, target) {
			t.Errorf("%s: the page repeats the address", target)
		}
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, httptest.NewRequest(method, "/watch/test", nil))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: status %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, httptest.NewRequest("HEAD", "/", nil))
	if w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") == "0" {
		t.Errorf("HEAD: status %d, %d bytes", w.Code, w.Body.Len())
	}
}
