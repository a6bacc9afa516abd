package gateway

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gateway/internal/auth"
	"gateway/internal/config"
	"gateway/internal/gst"
)

const (
	bundleTimeout = 3 * time.Minute
	maxBundled    = 8 << 20 // bytes of each of its files
)

// BundleOptions are what a bundle is made of.
type BundleOptions struct {
	Settings Settings
	Broken   error    // why there are no settings; the bundle then has what can be had without
	Version  string   // of this program
	Environ  []string // as os.Environ has it
}

// bundle is one that is being packed.
type bundle struct {
	BundleOptions
	redact config.Redactor
	tar    *tar.Writer
	name   string    // of its folder
	at     time.Time // of its files
	missed []string  // what couldn't be had, and why
}

// Bundle packs what a bug report needs into a .tar.gz: the configuration and pipeline
// files, what the pipelines compile to, plugins, devices, the doctor's findings, the
// latest log and the last crash with its stack, of the running gateway where there is
// one. No secret of the configuration or the state folder is in it, wherever it stands.
// What can't be had is listed in it, and is no error. It takes up to three minutes.
func Bundle(ctx context.Context, o BundleOptions, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, bundleTimeout)
	defer cancel()
	packed := gzip.NewWriter(out)
	now := time.Now()
	b := &bundle{BundleOptions: o, tar: tar.NewWriter(packed), name: "gateway-bundle-" + now.Format("20060102-150405"), at: now}
	b.learn()
	err := b.pack(ctx)
	return errors.Join(err, b.tar.Close(), packed.Close())
}

// pack writes the files. An error is one of writing.
func (b *bundle) pack(ctx context.Context) error {
	err := errors.Join(b.text("README.txt", bundleReadme), b.text("versions.txt", b.versions()), b.configuration())
	if b.Settings.conf != nil {
		err = errors.Join(err, b.explained(ctx), b.machine(ctx), b.live(ctx))
	}
	var doctor bytes.Buffer
	b.note("doctor", Doctor(ctx, b.Settings, b.Broken, false, &doctor))
	err = errors.Join(err, b.text("doctor.txt", doctor.String()), b.journal(ctx))
	return errors.Join(err, b.text("missed.txt", strings.Join(b.missed, "\n")+"\n"))
}

const bundleReadme = `What "gateway bundle" has found out, for a bug report. Passwords, tokens and keys of
the configuration and of the state folder were taken out of all files (…). Names of
cameras and rooms, addresses of the network and the log are in it: look it through before you send it.

versions.txt     programs and system
gateway.yaml     the configuration; pipelines/: the pipeline files
explain/         what each compiles to on this machine, as text and as a graph (Graphviz)
doctor.txt       the verdicts of gateway doctor
devices.json     what there is to capture, and the encoders; plugins.json: GStreamer's plugins
running.json     what the running gateway told; log.txt: its latest lines; metrics.txt
crashes.txt      the latest faults with their stacks
journal.txt      what the journal has of the unit gateway
missed.txt       what could not be had, and why
`

// learn has the redactor know every secret there is.
func (b *bundle) learn() {
	for _, entry := range b.Environ {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, config.EnvPrefix) {
			b.redact.Learn([]byte(name + ": " + value))
			b.redact.Learn([]byte(value))
		}
	}
	b.file(b.Settings.path)
	conf := b.Settings.conf
	if conf == nil {
		return
	}
	files, _ := config.ListFolder(conf.Pipelines) // told by the doctor
	for _, path := range append(files, conf.Encoders) {
		b.file(path)
	}
	for _, server := range conf.ICE.Servers { // also of the environment
		b.redact.Know(server.Credential)
	}
	if token, _, err := auth.ReadAdminToken(conf.State); err == nil {
		b.redact.Know(token)
	}
	for _, path := range append(slices.Clone(conf.Auth.Keys), conf.HTTPS.Key) { // secrets of one line; keys in PEM are known by their look
		if data, err := readSome(path); err == nil {
			b.redact.Know(strings.TrimSpace(string(data)))
		}
	}
}

// file learns from a file of ours.
func (b *bundle) file(path string) {
	if data, err := readSome(path); err == nil {
		b.redact.Learn(data)
	}
}

// readSome reads a file as far as a bundle takes it.
func readSome(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBundled))
}

// text writes a file without its secrets.
func (b *bundle) text(name, text string) error {
	text = b.redact.Redact(text[:min(len(text), maxBundled)])
	header := &tar.Header{Name: b.name + "/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: b.at, Typeflag: tar.TypeReg}
	if err := b.tar.WriteHeader(header); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if _, err := io.WriteString(b.tar, text); err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	return nil
}

// json writes a value.
func (b *bundle) json(name string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	b.note(name, err)
	return b.text(name, string(text)+"\n")
}

// note keeps in mind what couldn't be had.
func (b *bundle) note(what string, err error) {
	if err != nil {
		b.missed = append(b.missed, what+": "+err.Error())
	}
}

// versions tells what runs here. Of variables only names are told, but for the few
// that say where sessions and plugins are.
func (b *bundle) versions() string {
	var t strings.Builder
	fmt.Fprintf(&t, "gateway %s\nGStreamer %s\n%s %s/%s, %d processors\n", b.Version, gst.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		fmt.Fprintf(&t, "%s %s %s\n", unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]))
	}
	if release, err := os.ReadFile("/etc/os-release"); err == nil {
		t.Write(release)
	}
	t.WriteString("\nenvironment\n")
	for _, entry := range slices.Sorted(slices.Values(b.Environ)) {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case strings.HasPrefix(name, "GST_"), slices.Contains([]string{"DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "XAUTHORITY", "LANG", "GOMEMLIMIT", "GOMAXPROCS"}, name):
			fmt.Fprintf(&t, "%s=%s\n", name, value)
		case strings.HasPrefix(name, config.EnvPrefix):
			fmt.Fprintf(&t, "%s is set\n", name)
		}
	}
	return t.String()
}

// configuration writes the files that people write.
func (b *bundle) configuration() (failed error) {
	put := func(path, name string) {
		data, err := readSome(path)
		b.note(name, err)
		if err == nil {
			failed = errors.Join(failed, b.text(name, string(data)))
		}
	}
	put(b.Settings.path, "gateway.yaml")
	conf := b.Settings.conf
	if conf == nil {
		return failed
	}
	if conf.Encoders != "" {
		put(conf.Encoders, "encoders.yaml")
	}
	files, err := config.ListFolder(conf.Pipelines)
	b.note("pipelines", err)
	for _, path := range files {
		put(path, "pipelines/"+filepath.Base(path))
	}
	return failed
}

// explained writes what the pipelines compile to.
func (b *bundle) explained(ctx context.Context) (failed error) {
	files, _ := config.ListFolder(b.Settings.conf.Pipelines)
	for _, path := range files {
		for ending, dot := range map[string]bool{".txt": false, ".dot": true} {
			name := "explain/" + strings.TrimSuffix(filepath.Base(path), ".yaml") + ending
			if ctx.Err() != nil {
				b.note(name, ctx.Err())
				continue
			}
			var text bytes.Buffer
			b.note(name, b.Settings.Explain(ctx, path, dot, &text))
			failed = errors.Join(failed, b.text(name, text.String()))
		}
	}
	return failed
}

// machine writes what GStreamer has and finds here.
func (b *bundle) machine(ctx context.Context) error {
	var found bytes.Buffer
	b.note("devices", b.Settings.Devices(ctx, true, "", &found))
	plugins, err := b.Settings.plugins(ctx)
	b.note("plugins", err)
	return errors.Join(b.text("devices.json", found.String()), b.json("plugins.json", plugins))
}

// live writes what the running gateway tells; without one, what it has left behind.
func (b *bundle) live(ctx context.Context) error {
	answer, _, err := b.Settings.ask(ctx)
	if err != nil {
		b.note("running gateway", err)
		return b.text("crashes.txt", crashText(leftCrashes(b.Settings.conf.State)))
	}
	log, crashes := answer.Log, answer.Crashes
	answer.Log, answer.Crashes = nil, nil
	failed := errors.Join(b.json("running.json", answer), b.text("log.txt", strings.Join(log, "")), b.text("crashes.txt", crashText(crashes)))
	metrics, err := b.Settings.metrics(ctx)
	b.note("metrics", err)
	return errors.Join(failed, b.text("metrics.txt", metrics))
}

// crashText is faults with their stacks.
func crashText(all []fault) string {
	if len(all) == 0 {
		return "none is known\n"
	}
	var t strings.Builder
	for _, c := range all {
		fmt.Fprintf(&t, "%s: %s: %s\n%s\n\n", c.At.Format(time.RFC3339), c.Where, c.What, c.Stack)
	}
	return t.String()
}

// metrics reads the running gateway's.
func (s Settings) metrics(ctx context.Context) (string, error) {
	client, base, err := s.own(10 * time.Second)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
	if err != nil {
		return "", err
	}
	if token, err := s.ownToken(); err == nil {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxBundled))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	return string(text), err
}

// journal writes what the journal has of the service.
func (b *bundle) journal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	text, err := exec.CommandContext(ctx, "journalctl", "--unit=gateway", "--lines=3000", "--no-pager", "--output=short-iso").Output()
	b.note("journal", err)
	return b.text("journal.txt", string(text))
}
