package gateway

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"gateway/internal/auth"
	"gateway/internal/config"
	"gateway/internal/gst"
)

// GStreamerVersion is the version of the GStreamer library, such as "1.22.0".
func GStreamerVersion() string { return gst.Version() }

// Settings is a checked configuration.
type Settings struct {
	conf *config.Gateway
	path string // of the file that it was read from
}

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
	return Settings{conf, cmp.Or(path, DefaultConfig)}, err
}

// machine is what the commands ask; what it says otherwise goes to standard error.
// The caller closes it.
func (s Settings) machine() *machine {
	return newMachine(s.conf, s.Logger(os.Stderr), func(line string) { fmt.Fprintln(os.Stderr, line) })
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

// Healthcheck asks the gateway that this configuration starts whether it is ready.
func (s Settings) Healthcheck() error {
	client, base, err := s.own(3 * time.Second)
	if err != nil {
		return err
	}
	answer, err := client.Get(base + "/readyz")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", answer.Status)
	}
	return nil
}

// own is a client of the gateway that these settings start, and its address as this
// machine reaches it, without a slash at its end.
func (s Settings) own(timeout time.Duration) (client *http.Client, base string, err error) {
	host, port, err := net.SplitHostPort(s.conf.Listen)
	if err != nil {
		return nil, "", err
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "localhost"
	}
	scheme, transport := "http", &http.Transport{DisableKeepAlives: true}
	if s.conf.HTTPS.On() {
		scheme = "https"
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // it asks itself, by a name that the certificate needn't have
		if len(s.conf.HTTPS.ACME.Domains) > 0 {
			transport.TLSClientConfig.ServerName = s.conf.HTTPS.ACME.Domains[0]
		}
	}
	return &http.Client{Timeout: timeout, Transport: transport}, scheme + "://" + net.JoinHostPort(host, port), nil
}

// ownToken is the admin's token, to be shown to the gateway that runs with these
// settings: not if it can't be read, nor if somebody else's program has the port.
func (s Settings) ownToken() (string, error) {
	token, owner, err := auth.ReadAdminToken(s.conf.State)
	if err != nil {
		return "", errors.New("this user can't read the admin's token")
	}
	_, text, err := net.SplitHostPort(s.conf.Listen)
	if err != nil {
		return "", err
	}
	port, err := net.LookupPort("tcp", text)
	if err != nil {
		return "", err
	}
	if strangers(port, owner) {
		return "", fmt.Errorf("another user's program has TCP port %d: it isn't shown the admin's token", port)
	}
	return token, nil
}
