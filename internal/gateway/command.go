package gateway

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"gateway/internal/config"
	"gateway/internal/gst"
)

// GStreamerVersion is the version of the GStreamer library, such as "1.22.0".
func GStreamerVersion() string { return gst.Version() }

// Settings is a checked configuration.
type Settings struct{ conf *config.Gateway }

// Load reads the gateway's own configuration; a missing file at the default path
// ("" or DefaultConfig) means defaults. GATEWAY_ variables of environ override the
// file, pipelines and listen override both where they aren't empty. The error
// names every fault with its place and remedy.
func Load(path, pipelines, listen string, environ []string) (Settings, error) {
	var flags []config.Flag
	if pipelines != "" {
		flags = append(flags, config.Flag{Name: "-pipelines", Key: "pipelines", Value: pipelines})
	}
	if listen != "" {
		flags = append(flags, config.Flag{Name: "-listen", Key: "listen", Value: listen})
	}
	conf, err := config.LoadGateway(path, environ, flags...)
	return Settings{conf}, err
}

// DefaultConfig is where the configuration is looked for.
const DefaultConfig = config.DefaultPath

// Logger makes the logger that the configuration asks for.
func (s Settings) Logger(w io.Writer) *slog.Logger {
	c := s.conf.Log
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // config has checked it
	}
	options := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, options)
	if c.Format == "json" {
		h = slog.NewJSONHandler(w, options)
	}
	return slog.New(h).With("service", "gateway")
}

// Check loads pipeline files, all of the folder without names, compiles them
// against what is installed and prints a verdict a file. The error says how many
// have faults.
func (s Settings) Check(files []string, stdout io.Writer) error {
	if len(files) == 0 {
		found, err := filepath.Glob(filepath.Join(s.conf.Pipelines, "*.yaml"))
		if err != nil {
			return err
		}
		files = found
	}
	bad := 0
	for _, f := range files {
		c, err := config.LoadStream(f)
		if err == nil {
			_, err = config.Compile(c, gst.Registry{})
		}
		var absent *config.AbsentError
		switch {
		case errors.As(err, &absent):
			fmt.Fprintf(stdout, "%s: fine, but absent now: %v\n", f, err)
		case err != nil:
			bad++
			fmt.Fprintln(stdout, err)
		default:
			fmt.Fprintf(stdout, "%s: fine\n", f)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d files have faults", bad, len(files))
	}
	return nil
}

// Explain prints what a stream, given by its name or its file, compiles to here
// and now.
func (s Settings) Explain(name string, stdout io.Writer) error {
	path := name
	if !strings.HasSuffix(name, ".yaml") {
		path = filepath.Join(s.conf.Pipelines, name+".yaml")
	}
	c, err := config.LoadStream(path)
	if err != nil {
		return err
	}
	plan, err := config.Compile(c, gst.Registry{})
	if err != nil {
		return err
	}
	for _, note := range plan.Notes {
		fmt.Fprintln(stdout, "#", note)
	}
	for _, t := range plan.Tracks {
		fmt.Fprintf(stdout, "# track %s: %s %s\n", t.Name, t.Codec, t.Fmtp)
	}
	fmt.Fprintln(stdout, plan.Launch)
	return nil
}

// Healthcheck asks the gateway that this configuration starts whether it is ready.
func (s Settings) Healthcheck() error {
	host, port, err := net.SplitHostPort(s.conf.Listen)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "localhost"
	}
	client := http.Client{Timeout: 3 * time.Second}
	answer, err := client.Get("http://" + net.JoinHostPort(host, port) + "/readyz")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", answer.Status)
	}
	return nil
}
