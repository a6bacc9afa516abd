package gateway

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gateway/internal/stream"
)

// listing is what /api/streams says.
type listing struct {
	Streams  []stream.Info
	Problems []string
}

// awaitListing asks until the streams are as a test wants them.
func awaitListing(t *testing.T, url, what string, good func(listing) bool) listing {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		var l listing
		_, body := get(t, url+"/api/streams")
		if err := json.Unmarshal(body, &l); err != nil {
			t.Fatal(err)
		}
		if good(l) {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s; %s", what, body)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (l listing) title(name string) string {
	for _, s := range l.Streams {
		if s.Name == name {
			return s.Title
		}
	}
	return "(none)"
}

func titled(title string) string { return "title: " + title + small }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestStreamsFollowTheirFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "one.yaml"), titled("first"))
	url := startIn(t, dir)
	is := func(name, title string) func(listing) bool {
		return func(l listing) bool { return l.title(name) == title }
	}
	awaitListing(t, url, "the file of the start", is("one", "first"))

	write(t, filepath.Join(dir, "one.yaml"), titled("written over"))
	awaitListing(t, url, "a file written over", is("one", "written over"))

	write(t, filepath.Join(dir, ".one.yaml.swp"), titled("renamed"))
	if err := os.Rename(filepath.Join(dir, ".one.yaml.swp"), filepath.Join(dir, "one.yaml")); err != nil {
		t.Fatal(err)
	}
	awaitListing(t, url, "a file renamed over another", is("one", "renamed"))

	write(t, filepath.Join(dir, "two.yaml"), titled("new"))
	awaitListing(t, url, "a new file", is("two", "new"))

	write(t, filepath.Join(dir, "one.yaml"), "title: broken\nsauce: x\n")
	l := awaitListing(t, url, "the findings of a broken edit", func(l listing) bool { // a file that is being written is empty for a moment
		return strings.Contains(strings.Join(l.Problems, "\n"), "one.yaml:2:1: sauce")
	})
	if l.title("one") != "renamed" {
		t.Errorf("%+v", l)
	}
	if r := l.Streams[0].Reload; r == nil || r.OK || len(r.Findings) == 0 {
		t.Errorf("reload %+v", r)
	}
	write(t, filepath.Join(dir, "one.yaml"), titled("mended"))
	awaitListing(t, url, "the mended file", func(l listing) bool { return l.title("one") == "mended" && len(l.Problems) == 0 })

	if err := os.Remove(filepath.Join(dir, "two.yaml")); err != nil {
		t.Fatal(err)
	}
	awaitListing(t, url, "the end of a removed file's stream", is("two", "(none)"))
}

// Kubernetes swaps a symlink to a folder in which all files are new.
func TestConfigMapIsFollowed(t *testing.T) {
	dir := t.TempDir()
	publish := func(generation, title string) {
		if err := os.Mkdir(filepath.Join(dir, generation), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, generation, "one.yaml"), titled(title))
		if err := os.Symlink(generation, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	publish("..1", "first")
	if err := os.Symlink("..data/one.yaml", filepath.Join(dir, "one.yaml")); err != nil {
		t.Fatal(err)
	}
	url := startIn(t, dir)
	awaitListing(t, url, "the first generation", func(l listing) bool { return l.title("one") == "first" })
	publish("..2", "second")
	awaitListing(t, url, "the second generation", func(l listing) bool { return l.title("one") == "second" })
}

// A folder that is itself a symlink is exchanged as a whole.
func TestExchangedFolderIsFollowed(t *testing.T) {
	dir := t.TempDir()
	for _, generation := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, generation), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, generation, "one.yaml"), titled(generation))
	}
	link := filepath.Join(dir, "current")
	if err := os.Symlink("a", link); err != nil {
		t.Fatal(err)
	}
	url := startIn(t, link)
	awaitListing(t, url, "the first folder", func(l listing) bool { return l.title("one") == "a" })
	if err := os.Symlink("b", link+".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+".tmp", link); err != nil {
		t.Fatal(err)
	}
	awaitListing(t, url, "the second folder", func(l listing) bool { return l.title("one") == "b" })
	// and what changes in it is seen without waiting for the next look
	write(t, filepath.Join(link, "one.yaml"), titled("b edited"))
	awaitListing(t, url, "an edit in the second folder", func(l listing) bool { return l.title("one") == "b edited" })
}

func TestReloadByRequest(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "one.yaml"), titled("first"))
	url := startIn(t, dir)
	write(t, filepath.Join(dir, "one.yaml"), "sauce: x\n")
	post := func(header ...string) (*http.Response, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/api/reload", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var said struct{ Streams []outcome }
		if answer.StatusCode == http.StatusOK {
			if err := json.NewDecoder(answer.Body).Decode(&said); err != nil {
				t.Fatal(err)
			}
		}
		text := ""
		for _, o := range said.Streams {
			text += o.Name + ": " + o.Message + strings.Join(o.Findings, " ")
			if o.OK {
				t.Errorf("a broken file was taken: %+v", o)
			}
		}
		return answer, text
	}
	for range 2 { // a second time too, though the file hasn't changed since
		if answer, said := post(); answer.StatusCode != http.StatusOK || !strings.Contains(said, "sauce") {
			t.Errorf("%s: %q", answer.Status, said)
		}
	}
	for _, header := range [][]string{{"Origin", "http://elsewhere.example"}, {"Sec-Fetch-Site", "cross-site"}} {
		if answer, _ := post(header...); answer.StatusCode != http.StatusForbidden {
			t.Errorf("%v: %s", header, answer.Status)
		}
	}
}

// The stream of a file that isn't played in a loop ends with it, and an edit plays
// it again.
func TestFilePlayedOnceEnds(t *testing.T) {
	clip := filepath.Join(t.TempDir(), "clip.mkv")
	record := exec.CommandContext(t.Context(), "gst-launch-1.0", "-q", "videotestsrc", "num-buffers=15", "!", "video/x-raw,width=160,height=120",
		"!", "vp8enc", "deadline=1", "!", "matroskamux", "!", "filesink", "location="+clip)
	if out, err := record.CombinedOutput(); err != nil {
		t.Fatalf("gst-launch-1.0 (package gstreamer1.0-tools): %v\n%s", err, out)
	}
	dir := t.TempDir()
	text := "source: filesrc location=" + clip + "\nloop: false\non_demand: false\nvideo: {codec: vp8, encoder: "
	write(t, filepath.Join(dir, "one.yaml"), text+"auto}\n")
	url := startIn(t, dir)
	frames := func() uint64 {
		_, body := get(t, url+"/metrics")
		for line := range strings.Lines(string(body)) {
			if value, is := strings.CutPrefix(line, `gateway_track_frames_total{stream="one",track="video"} `); is {
				n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
		return 0
	}
	ended := func(l listing) bool { return l.Streams[0].State == stream.Ended }
	l := awaitListing(t, url, "the end of the file", ended)
	if one := l.Streams[0]; one.Reason != "the file has ended" || one.Restarts != 0 || one.LastError != "" {
		t.Errorf("%+v", one)
	}
	first := frames()
	if first == 0 {
		t.Error("the file wasn't played")
	}
	write(t, filepath.Join(dir, "one.yaml"), "title: again\n"+text+"copy}\n")
	awaitListing(t, url, "the end of the second time", func(l listing) bool { return ended(l) && l.title("one") == "again" && frames() > first })
}
