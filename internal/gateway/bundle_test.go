package gateway

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/internal/auth"
	"gateway/internal/contain"
	"gateway/internal/worker"
)

// unpack reads a bundle: its files by their names.
func unpack(t *testing.T, o BundleOptions) map[string]string {
	t.Helper()
	var packed bytes.Buffer
	if err := Bundle(t.Context(), o, &packed); err != nil {
		t.Fatal(err)
	}
	plain, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for in := tar.NewReader(plain); ; {
		h, err := in.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(path.Clean(h.Name), "/")
		files[name] = string(text)
	}
}

// Every secret that there is was planted with a word of its own; none of them is in
// any file of the bundle.
func TestBundleHasNoSecrets(t *testing.T) {
	dir, pipelines := t.TempDir(), t.TempDir()
	conf := filepath.Join(dir, "gateway.yaml")
	hash, err := auth.HashPassword("planted-password")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "portal.key"), "planted-signing-secret-of-32-bytes-or-more")
	os.Chmod(filepath.Join(dir, "portal.key"), 0o600)
	write(t, conf, `
state: `+dir+`/state
auth:
  mode: jwt
  keys: [`+dir+`/portal.key]
  users: {anna: {password: "`+hash+`", role: host}}
ice:
  servers:
    - urls: ["turn:192.0.2.7:3478"]
      username: gateway
      credential: "planted credential"
`)
	write(t, filepath.Join(pipelines, "red.yaml"), small+"# it was rtsp://u:planted-comment@192.0.2.1/ before\n")
	write(t, filepath.Join(pipelines, "cam.yaml"), "source: rtspsrc location=rtsp://admin:planted%2Durl@127.0.0.1:1/ch1\nvideo: {codec: h264}\n")
	write(t, filepath.Join(pipelines, "bad.yaml"), "source: srtsrc uri=srt://127.0.0.1:1?passphrase=planted-query ! queue\nvideo: {codec: none}\npassword: planted-key\n")
	write(t, filepath.Join(pipelines, "torn.yaml"), "source: rtspsrc user-id=admin user-pw=\"planted property\"\n  video: [\ntoken: planted-torn\n")
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "state", lastCrashFile), "panic: rtsp://u:planted-crash@192.0.2.1\n\ngoroutine 1 [running]:\nmain.main()\n")
	g := startHouse(t, dir, pipelines)
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJwbGFudGVkIjoxfQ.cGxhbnRlZC1qd3Q"
	remembering(slog.New(slog.NewTextHandler(io.Discard, nil)), &g.recent).Error("source fails", "err", "can't open rtsp://admin:planted-url@192.0.2.1", "header", "Authorization: Bearer "+jwt,
		"url", "/watch/x?token=planted-token&x=1", "why", "TURN: planted credential was refused, password: planted-key")
	contain.Note(g.log, "request", "of rtsp://u:planted-panic@192.0.2.1")

	settings, err := Load(conf, pipelines, g.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, BundleOptions{Settings: settings, Version: "test", Environ: []string{
		"GATEWAY_ICE_SERVERS=turn:u:planted-variable@h", "SOMETHING=planted-else", "DISPLAY=:7",
	}})
	key, err := os.ReadFile(filepath.Join(dir, "state", "token-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{
		"planted", "argon2id", strings.Split(hash, "$")[5], g.auth.AdminToken(), strings.Split(string(key), "\n")[1], jwt, "cGxhbnRlZC1qd3Q",
	}
	for name, text := range files {
		for _, secret := range secrets {
			for line := range strings.Lines(text) {
				if strings.Contains(line, secret) {
					t.Errorf("%s has %q:\n%s", name, secret, line)
				}
			}
		}
	}
	for name, has := range map[string]string{
		"versions.txt": "gateway test", "gateway.yaml": "turn:192.0.2.7:3478", "pipelines/cam.yaml": "127.0.0.1:1/ch1", "explain/red.txt": "videotestsrc",
		"explain/red.dot": "digraph", "doctor.txt": "looked at", "devices.json": `"encoders"`, "plugins.json": "coreelements", "running.json": `"pid"`,
		"log.txt": "source fails", "metrics.txt": "gateway_panics_total", "crashes.txt": "goroutine 1 [running]", "missed.txt": "", "README.txt": "gateway bundle",
		"pipelines/torn.yaml": "user-id", "explain/bad.txt": "",
	} {
		if text, there := files[name]; !there || !strings.Contains(text, has) {
			t.Errorf("%s lacks %q:\n%s", name, has, text)
		}
	}
	if !strings.Contains(files["crashes.txt"], "TestBundleHasNoSecrets") {
		t.Errorf("the panic's stack isn't there:\n%s", files["crashes.txt"])
	}
	if t.Failed() {
		t.Log(slices.Sorted(maps.Keys(files)))
	}
}

// With a broken configuration and no running gateway there is still a bundle.
func TestBundleIsMadeOfWhatThereIs(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, conf, "lissen: 127.0.0.1:1\nauth: {users: {anna: {password: planted}}}\n")
	settings, broken := Load(conf, "", "", nil)
	files := unpack(t, BundleOptions{Settings: settings, Broken: broken, Version: "test"})
	if !strings.Contains(files["gateway.yaml"], "lissen") || !strings.Contains(files["doctor.txt"], "lissen") || strings.Contains(files["gateway.yaml"], "planted") {
		t.Errorf("%q", files)
	}
}

// What a process says when a fault ends it is there after the next start.
func TestLastCrashIsToldAfterTheNextStart(t *testing.T) {
	dir := t.TempDir()
	if c := lastCrash(dir); c != nil {
		t.Fatalf("%+v", c)
	}
	g := &Gateway{conf: mustLoad(t, dir).conf, log: slog.New(slog.DiscardHandler)}
	write(t, filepath.Join(dir, crashFile), "fatal error: out of luck\n\ngoroutine 7 [running]:\n")
	g.KeepCrashes()
	c := lastCrash(dir)
	if c == nil || c.What != "fatal error: out of luck" || !strings.Contains(c.Stack, "goroutine 7") || time.Since(c.At) > time.Hour {
		t.Errorf("%+v", c)
	}
	if text, err := os.ReadFile(filepath.Join(dir, crashFile)); err != nil || len(text) > 0 {
		t.Errorf("this run's is %q, %v", text, err)
	}
	g.KeepCrashes() // a start after a clean end
	if c := lastCrash(dir); c == nil {
		t.Error("it was forgotten")
	}
}

// What a pipeline's process said when it crashed was known to the gateway alone that had
// started it, and no more after its end.
func TestCrashOfAPipelineOutlastsTheGateway(t *testing.T) {
	dir := t.TempDir()
	settings := mustLoad(t, filepath.Join(dir, "state"))
	l := newLauncher(settings.conf, nil, slog.New(slog.DiscardHandler))
	at := time.Now().Round(time.Second)
	for _, stream := range []string{"first", "red"} {
		l.workers.Crashed(worker.Crash{
			Time: at, Stream: stream, Feed: "video", Reason: "crashed: SIGSEGV of rtsp://u:planted-reason@192.0.2.1",
			Words: strings.Repeat("a line before\n", maxCrash/10) + "rtsp://u:planted-words@192.0.2.1\ngoroutine 7 [syscall]:\nmain.main()\n",
		})
	}
	kept, err := os.ReadDir(settings.conf.State)
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v, %v", kept, err)
	}
	info, err := kept[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() > 2*maxCrash {
		t.Errorf("%v, %v, %d bytes", err, info.Mode(), info.Size())
	}
	text, err := os.ReadFile(filepath.Join(settings.conf.State, kept[0].Name()))
	if err != nil || strings.Contains(string(text), "planted") {
		t.Errorf("%v, or it has secrets", err)
	}
	var packed bytes.Buffer
	b := &bundle{BundleOptions: BundleOptions{Settings: settings}, tar: tar.NewWriter(&packed), at: at}
	if err := b.live(t.Context()); err != nil {
		t.Error(err)
	}
	for _, has := range []string{"crashes.txt", at.Format(time.RFC3339) + ": pipeline of red: crashed: SIGSEGV", "goroutine 7"} {
		if !strings.Contains(packed.String(), has) {
			t.Errorf("the bundle lacks %q", has)
		}
	}
	write(t, filepath.Join(settings.conf.State, pipelineCrashFile), `{"at":`)
	if c := lastPipelineCrash(settings.conf.State); c != nil {
		t.Errorf("%+v", c)
	}
}

func mustLoad(t *testing.T, state string) Settings {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, conf, "state: "+state+"\n")
	settings, err := Load(conf, "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return settings
}

func TestRecentLogIsBounded(t *testing.T) {
	var r recent
	log := remembering(slog.New(slog.DiscardHandler), &r)
	if log.Info("dropped"); len(r.all()) != 0 {
		t.Error("what the log doesn't take is kept")
	}
	log = remembering(slog.New(slog.NewTextHandler(io.Discard, nil)), &r)
	for i := range 20_000 {
		log.With("stream", "red").WithGroup("g").Info("a line that is long enough to fill the ring before the end", "i", i)
	}
	lines := r.all()
	if size := len(strings.Join(lines, "")); size > recentBytes || size < recentBytes/2 {
		t.Errorf("%d bytes are kept", size)
	}
	if last := lines[len(lines)-1]; !strings.Contains(last, "stream=red g.i=19999") {
		t.Error(last)
	}
}
