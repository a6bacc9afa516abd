// Package gateway wires the whole product together: streams from the pipelines
// folder, the WebRTC engine, signaling, pages, API and metrics on one port. It
// runs in process, so that tests can start the product as it is.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"gateway/internal/auth"
	"gateway/internal/bridge"
	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/https"
	"gateway/internal/room"
	"gateway/internal/rtc"
	"gateway/internal/signal"
)

// Options are what a gateway is started with.
type Options struct {
	Settings Settings
	Version  string // of the program, for logs and metrics
	Logger   *slog.Logger
	Environ  []string // as os.Environ has it: how to tell systemd (sd_notify(3)); nil: it isn't told
}

// Gateway is a running gateway.
type Gateway struct {
	conf     *config.Gateway
	log      *slog.Logger
	version  string
	listener net.Listener
	conns    *connections
	https    *https.Server // nil: HTTP
	server   *http.Server
	registry *prometheus.Registry
	engine   *rtc.Engine
	auth     *auth.Authority
	rooms    *room.Rooms
	bridges  []*bridge.Bridge
	signal   *signal.Server
	streams  *streams
	machine  *machine
	pictures snapshots
	systemd  supervisor
	strain   *strain
	recent   recent
	began    time.Time
	ready    atomic.Bool
}

// New opens the ports and loads the streams; Serve then answers. Files that don't
// hold a good stream are logged and left out. The caller calls Serve or Close.
func New(o Options) (*Gateway, error) {
	g := &Gateway{conf: o.Settings.conf, version: o.Version, began: time.Now()}
	g.log = remembering(o.Logger, &g.recent)
	g.systemd = newSupervisor(o.Environ, g.log)
	g.strain = newStrain(g.log)
	if g.conf.Isolation == config.IsolationNone {
		gst.Debug(g.log, g.conf.Log.GST)
		restrict(g.conf.Elements)
	}

	var err error
	if g.auth, err = auth.New(auth.Options{Config: &g.conf.Auth, State: g.conf.State, Logger: g.log}); err != nil {
		return nil, err
	}
	if g.listener, err = net.Listen("tcp", g.conf.Listen); err != nil {
		return nil, refused(g.conf.Listen, err)
	}
	g.registry = prometheus.NewRegistry()
	g.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	g.conns = g.newConnections()

	if err := g.startHTTPS(); err != nil {
		g.listener.Close()
		return nil, err
	}
	port := g.conf.ICE.UDPPort
	if port == 0 {
		port = g.listener.Addr().(*net.TCPAddr).Port
	}
	g.engine, err = rtc.New(rtc.Options{UDPPort: port, ICE: g.conf.ICE, Logger: g.log, Registerer: g.registry})
	if err != nil {
		g.stopHTTPS()
		g.listener.Close()
		return nil, taken(err, "udp", port)
	}

	table, err := encodersOf(g.conf)
	if err != nil {
		g.engine.Close()
		g.stopHTTPS()
		g.listener.Close()
		return nil, err
	}
	tellConfinement(g.conf, g.log)
	g.machine = newMachine(g.conf, g.log, func(line string) { g.log.Warn("GStreamer", "says", line) })
	g.streams = &streams{
		dir: filepath.Clean(g.conf.Pipelines), table: table, launcher: newLauncher(g.conf, g.machine, g.log),
		began: func(name string) { g.rooms.Began(name) }, removed: g.forget, log: g.log,
	}
	g.rooms = room.New(room.Options{
		Rooms: g.conf.Rooms, Default: g.conf.Room, Made: g.conf.Limits.Rooms, Pipelines: signal.Pipelines{Streams: g.streams, List: g.streams.names}, Logger: g.log,
	})
	if err := g.openBridges(); err != nil {
		g.closeBridges()
		g.engine.Close()
		g.stopHTTPS()
		g.listener.Close()
		return nil, err
	}
	g.streams.load()
	g.registry.MustRegister(collector{g.streams}, workerCollector{g.streams.launcher.workers}, roomCollector{g.rooms}, buildInfo(g.version))
	g.signal = signal.New(signal.Options{
		Streams: g.streams, Rooms: g.rooms, Authority: g.auth, RTC: g.engine, Config: g.conf, Paint: g.machine.Placeholder, Strained: g.strain.why, Logger: g.log, Registerer: g.registry,
	})
	g.server = &http.Server{
		Handler:           g.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second, // neither holds for a WebSocket: it sets its own
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	return g, nil
}

// Invitation is what is put behind [Gateway.URL] to come in as the admin: the
// page's path, with the token in the fragment, which browsers send to nobody.
func (g *Gateway) Invitation() string {
	if g.auth.Open() {
		return ""
	}
	return "/#token=" + g.auth.AdminToken()
}

// AdminTokenFile is where the admin's token is kept; "" where there is none.
func (g *Gateway) AdminTokenFile() string {
	if g.auth.Open() {
		return ""
	}
	return g.auth.AdminTokenFile()
}

// Addr is the address that HTTP listens on.
func (g *Gateway) Addr() net.Addr { return g.listener.Addr() }

// Serve answers until ctx is done, then shuts down: streams are closed, viewers
// told, all within the configured time. It returns the fault that ended it, if any.
func (g *Gateway) Serve(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- g.server.Serve(g.accepted()) }()
	defer g.followRevoked()()
	g.ready.Store(true)
	g.log.Info("gateway serves", "address", g.scheme()+"://"+g.listener.Addr().String(), "udp_port", g.engine.Port(),
		"version", g.version, "gstreamer", gst.Version(), "streams", len(g.streams.list()))
	g.systemd.tell("READY=1", "STATUS=serves "+g.URL())
	watching, unwatch := context.WithCancel(ctx)
	pulse := g.newPulse()
	var watch sync.WaitGroup
	watch.Go(func() { g.systemd.watch(watching, pulse.check) })
	defer watch.Wait()
	defer pulse.close()
	defer unwatch()
	select {
	case err := <-served:
		return errors.Join(err, g.Close())
	case <-ctx.Done():
	}
	err := g.Close()
	<-served
	return err
}

// Reload brings the streams in line with the files of the pipelines folder now,
// those included that were refused before, and reads the files of the certificate
// and of the keys of others, and what was revoked. It blocks until that is decided.
func (g *Gateway) Reload() {
	defer g.systemd.reloading()()
	g.auth.Reload()
	g.signal.Recheck()
	if g.https != nil {
		g.https.Reload()
	}
	g.machine.forget()
	g.streams.reload(true)
}

// Close ends everything, in the configured time at most.
func (g *Gateway) Close() error {
	g.ready.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), g.conf.Limits.ShutdownTimeout)
	defer cancel()
	g.log.Info("gateway stops")
	g.systemd.tell("STOPPING=1")
	done := make(chan error, 1)
	go func() {
		err := g.signal.Close(ctx)
		bridges := g.closeBridges()
		g.rooms.Close()
		var wait sync.WaitGroup
		var http, engine, streams, machine error
		wait.Go(func() { http = g.closeHTTP(ctx) })
		wait.Go(func() { engine = g.engine.Close() })
		wait.Go(func() { streams = g.streams.close() })
		wait.Go(func() { machine = g.machine.close() }) // a stream that is asking hears of it
		wait.Wait()
		done <- errors.Join(err, bridges, http, engine, streams, machine)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errors.New("shutdown: not everything stopped in time")
	}
}

// openBridges lets local programs into the rooms that have a socket for them.
func (g *Gateway) openBridges() error {
	for _, r := range g.conf.Rooms {
		if r.Socket == "" {
			continue
		}
		b, err := bridge.Listen(bridge.Options{Rooms: g.rooms, Room: r.Name, Path: r.Socket, Logger: g.log})
		if err != nil {
			return err
		}
		g.bridges = append(g.bridges, b)
	}
	return nil
}

func (g *Gateway) closeBridges() (err error) {
	for _, b := range g.bridges {
		err = errors.Join(err, b.Close())
	}
	return err
}

// forget is called when a stream has gone with its file.
func (g *Gateway) forget(stream string) {
	g.pictures.forget(stream)
	g.rooms.Ended(stream)
}

// closeHTTP lets requests end for a while, then cuts them off.
func (g *Gateway) closeHTTP(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := g.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = g.server.Close()
	}
	err = errors.Join(err, g.stopHTTPS())
	if e := g.listener.Close(); e != nil && !errors.Is(e, net.ErrClosed) { // where Serve was never called
		err = errors.Join(err, e)
	}
	return err
}
