// Command gateway captures a camera or a desktop, encodes it once and streams it
// to browsers over WebRTC. docs/ tells how it is used; `gateway help` is the short of it.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"gateway/internal/gateway"
)

// version is set at build time from the repository's tags.
var version = "unknown"

const usage = `usage: gateway [COMMAND] [FLAGS]

commands
  run             serve the streams of the pipelines folder (the default)
  check [-json] [-strict] [FILE…]
                  look for faults in pipeline files, without starting them;
                  -strict: warnings count too
  explain [-dot] NAME
                  print what a pipeline file compiles to on this machine; -dot: as
                  a graph for Graphviz
  devices [-json] [-yaml ID]
                  list cameras, displays, windows, sound sources and encoders;
                  -yaml: print a pipeline file for one of them
  token [-role viewer] [-room NAME]… [-stream NAME]… [-ttl 24h] [-name NAME] [-link] [-once]
                  make a token, by the gateway's own key: -role viewer, publisher, host
                  or admin; -room, -stream: patterns, without them all; -link: print the
                  address that opens with it; -once: one that the first who comes by it
                  uses up
  token -admin [-link]
                  print the admin's own token, which has no end
  token -revoke TOKEN|ID|-  or  -revoke-subject NAME
                  take a token back, or all of a subject that were made until now,
                  with the links that were made with them; -: read it from standard
                  input. A running gateway sends out who came by them
  token -revoked  list what was taken back
  token -hash     read a password from standard input, print it for auth.users
  watch [-rendition NAME] [-o FILE] [-for TIME] URL
                  watch the stream of a page's address (…/watch/NAME#token=…, …/room/ROOM)
                  and print what comes once a second; -o: write its video (.h264, .ivf;
                  - is standard output) or sound (.ogg)
  publish [-label camera] [-fps 30] [-rtp ADDR -codec vp8] URL [FILE|-]
                  publish H.264 (Annex B), IVF or Ogg Opus in real time into a room, or
                  RTP from a UDP address
                  both: -token TOKEN (or GATEWAY_TOKEN), -name NAME, -create, -insecure,
                  -ca FILE, -cert FILE -key FILE
  doctor [-json]  look for what keeps a gateway from working well on this machine: devices,
                  encoders, ports, clock, limits …, each with a verdict and a remedy
  bundle [FILE]   pack what a bug report needs, without secrets, into a .tar.gz
  healthcheck     ask a running gateway whether it is ready; for container health checks
  version         print versions
  help            print this

flags
  -config FILE    the gateway's own configuration   (default configs/gateway.yaml)
  -pipelines DIR  the pipeline files                (default from the configuration: pipelines/)
  -listen ADDR    where to serve                    (default from the configuration: 127.0.0.1:8080)

exit status: 0 fine, 1 a fault that is printed, 2 wrong usage
`

// errUsage is a fault of the command line; what to print was printed.
var errUsage = errors.New("wrong usage")

func main() {
	gateway.WorkerMain()
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

// run carries out one command line.
func run(args []string, stdout, stderr io.Writer) error {
	command := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	configPath := flags.String("config", gateway.DefaultConfig, "")
	pipelines := flags.String("pipelines", "", "")
	listen := flags.String("listen", "", "")
	var check gateway.CheckOptions
	var dot, devicesJSON, doctorJSON bool
	var deviceID string
	var token gateway.TokenOptions
	var watch watching
	var publish publishing
	switch command {
	case "watch":
		watch.flags(flags)
		flags.StringVar(&watch.rendition, "rendition", "", "")
		flags.StringVar(&watch.out, "o", "", "")
		flags.DurationVar(&watch.length, "for", 0, "")
	case "publish":
		publish.flags(flags)
		flags.StringVar(&publish.label, "label", "camera", "")
		flags.StringVar(&publish.title, "title", "", "")
		flags.Float64Var(&publish.fps, "fps", 30, "")
		flags.StringVar(&publish.rtp, "rtp", "", "")
		flags.StringVar(&publish.codec, "codec", "", "")
	case "check":
		flags.BoolVar(&check.JSON, "json", false, "")
		flags.BoolVar(&check.Strict, "strict", false, "")
	case "devices":
		flags.BoolVar(&devicesJSON, "json", false, "")
		flags.StringVar(&deviceID, "yaml", "", "")
	case "doctor":
		flags.BoolVar(&doctorJSON, "json", false, "")
	case "explain":
		flags.BoolVar(&dot, "dot", false, "")
	case "token":
		tokenFlags(flags, &token)
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return errUsage
	}

	switch command {
	case "watch":
		if flags.NArg() != 1 {
			fmt.Fprintln(stderr, "gateway: watch takes the address of one stream or room")
			return errUsage
		}
		return watch.run(flags.Arg(0), stdout, stderr)
	case "publish":
		if n := flags.NArg(); n == 0 || n > 2 || (n == 2) == (publish.rtp != "") || publish.fps <= 0 {
			fmt.Fprintln(stderr, "gateway: publish takes the address of a room, and a file or -rtp")
			return errUsage
		}
		return publish.run(flags.Arg(0), flags.Arg(1), stderr)
	case "help":
		fmt.Fprint(stdout, usage)
		return nil
	case "version":
		fmt.Fprintf(stdout, "gateway %s\nGStreamer %s\n", version, gateway.GStreamerVersion())
		return nil
	}
	settings, err := gateway.Load(*configPath, *pipelines, *listen, os.Environ())
	if command == "doctor" {
		if flags.NArg() > 0 {
			fmt.Fprintf(stderr, "gateway: doctor takes no argument %q\n", flags.Arg(0))
			return errUsage
		}
		return gateway.Doctor(context.Background(), settings, err, doctorJSON, stdout)
	}
	if command == "bundle" {
		if flags.NArg() > 1 {
			fmt.Fprintln(stderr, "gateway: bundle takes the name of one file")
			return errUsage
		}
		return pack(gateway.BundleOptions{Settings: settings, Broken: err, Version: version, Environ: os.Environ()}, flags.Arg(0), stdout, stderr)
	}
	if err != nil {
		return err
	}
	switch command {
	case "run":
		if flags.NArg() > 0 {
			fmt.Fprintf(stderr, "gateway: run takes no argument %q\n", flags.Arg(0))
			return errUsage
		}
		return serve(settings, stderr)
	case "check":
		return settings.Check(flags.Args(), check, stdout)
	case "explain":
		if flags.NArg() != 1 {
			fmt.Fprintln(stderr, "gateway: explain takes the name of one stream")
			return errUsage
		}
		return settings.Explain(context.Background(), flags.Arg(0), dot, stdout)
	case "devices":
		if flags.NArg() > 0 {
			fmt.Fprintf(stderr, "gateway: devices takes no argument %q\n", flags.Arg(0))
			return errUsage
		}
		return settings.Devices(context.Background(), devicesJSON, deviceID, stdout)
	case "token":
		if flags.NArg() > 0 {
			fmt.Fprintf(stderr, "gateway: token takes no argument %q\n", flags.Arg(0))
			return errUsage
		}
		return settings.Token(token, os.Stdin, stdout, stderr)
	case "healthcheck":
		return settings.Healthcheck()
	}
	fmt.Fprintf(stderr, "gateway: unknown command %q\n\n%s", command, usage)
	return errUsage
}

// pack writes a bundle to a file that isn't there yet; "": one with the time in its
// name, "-": standard output.
func pack(o gateway.BundleOptions, path string, stdout, stderr io.Writer) error {
	if path == "-" {
		return gateway.Bundle(context.Background(), o, stdout)
	}
	path = cmp.Or(path, "gateway-bundle-"+time.Now().Format("20060102-150405")+".tar.gz")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(gateway.Bundle(context.Background(), o, f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	fmt.Fprintln(stdout, path)
	fmt.Fprintln(stderr, "gateway: no secrets of the configuration are in it; names, addresses and the log are: look it through before you send it")
	return nil
}

func tokenFlags(flags *flag.FlagSet, t *gateway.TokenOptions) {
	list := func(into *[]string) func(string) error {
		return func(v string) error { *into = append(*into, v); return nil }
	}
	flags.StringVar(&t.Role, "role", "viewer", "")
	flags.Func("room", "", list(&t.Rooms))
	flags.Func("stream", "", list(&t.Streams))
	flags.DurationVar(&t.TTL, "ttl", 24*time.Hour, "")
	flags.StringVar(&t.Name, "name", "", "")
	flags.StringVar(&t.Subject, "subject", "", "")
	flags.BoolVar(&t.Create, "create", false, "")
	flags.BoolVar(&t.Link, "link", false, "")
	flags.BoolVar(&t.Once, "once", false, "")
	flags.BoolVar(&t.Admin, "admin", false, "")
	flags.BoolVar(&t.Hash, "hash", false, "")
	flags.StringVar(&t.Revoke, "revoke", "", "")
	flags.StringVar(&t.RevokeSubject, "revoke-subject", "", "")
	flags.BoolVar(&t.Revoked, "revoked", false, "")
}

// invite prints the address that opens as the admin. A log that others keep and
// read is not the place for its token: the journal is told where the token is.
func invite(g *gateway.Gateway, stderr io.Writer) {
	if file := g.AdminTokenFile(); file != "" && journaled() {
		fmt.Fprintf(stderr, "gateway: open %s/#token=… with the token in %s\n", g.URL(), file)
		return
	}
	fmt.Fprintf(stderr, "gateway: open %s%s\n", g.URL(), g.Invitation())
}

// journaled tells whether standard error goes to the journal (systemd.exec(5),
// JOURNAL_STREAM: its device and inode; children that are redirected inherit it).
func journaled() bool {
	var st syscall.Stat_t
	return syscall.Fstat(int(os.Stderr.Fd()), &st) == nil && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// serve runs the gateway until SIGINT or SIGTERM; a second signal ends it at once.
// SIGHUP reloads the pipeline files and the certificate.
func serve(settings gateway.Settings, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // a log that nobody reads any more doesn't end the gateway

	log := settings.Logger(stderr)
	gateway.LimitMemory(log)
	g, err := gateway.New(gateway.Options{Settings: settings, Version: version, Logger: log, Environ: os.Environ()})
	if err != nil {
		return err
	}
	g.KeepCrashes()
	os.Unsetenv("NOTIFY_SOCKET") // it isn't for the processes that this one starts
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	go func() {
		for {
			select {
			case <-hangup:
				g.Reload()
			case <-ctx.Done():
				return
			}
		}
	}()
	invite(g, stderr)
	if f := g.Fingerprint(); f != "" {
		fmt.Fprintf(stderr, "gateway: the browser asks once; its certificate has the SHA-256 fingerprint %s\n", f)
	}
	return g.Serve(ctx)
}
