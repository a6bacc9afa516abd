package gateway

import (
	"cmp"
	"context"
	"log/slog"
	"os"

	"gateway/internal/config"
	"gateway/internal/gst"
	"gateway/internal/stream"
	"gateway/internal/worker"
)

// launcher runs pipelines, each in a process of its own or all in this one.
type launcher struct {
	*machine
	workers *worker.Launcher
	conf    *config.Gateway // where a pipeline runs that doesn't say
	log     *slog.Logger
}

func newLauncher(conf *config.Gateway, m *machine, log *slog.Logger) launcher {
	var confine func(texts []string) *worker.Confinement
	if conf.Confine.Enabled {
		confine = func(texts []string) *worker.Confinement { return worker.Needs(texts, conf.Confine.Paths) }
	}
	workers := worker.NewLauncher(log, childEnv(conf), confine)
	workers.Crashed = func(c worker.Crash) {
		if err := keepPipelineCrash(conf.State, pipelineFault(c)); err != nil {
			log.Warn("crash of a pipeline's process not kept", "err", err)
		}
	}
	return launcher{machine: m, workers: workers, conf: conf, log: log}
}

// Compile implements stream.Launcher. It is errUntold where this machine couldn't be asked.
func (l launcher) Compile(ctx context.Context, c *config.Stream) (*config.Plan, error) {
	q := l.machine.inquire(ctx)
	plan, err := config.Compile(c, q)
	if q.err != nil {
		return nil, q.err
	}
	return plan, err
}

// Blame implements stream.Launcher.
func (l launcher) Blame(b *config.Branch, err error) {
	if b.Encoder != "" {
		l.machine.Blame(b.Encoder, err)
	}
}

// Launch implements stream.Launcher.
func (l launcher) Launch(ctx context.Context, name string, feed *config.Feed, sink stream.Sink) (stream.Pipeline, error) {
	if cmp.Or(feed.Isolation, l.conf.Isolation) == config.IsolationNone {
		return launch(ctx, name, feed, sink, l.log.With("stream", name))
	}
	if hosts := hostsOf(feed.Capture); len(hosts) > 0 {
		sink = &lookingUp{Sink: sink, hosts: hosts}
	}
	p, err := l.workers.Launch(ctx, name, feed, *cmp.Or(feed.Worker, &l.conf.Worker), sink)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// launch runs a pipeline in this process.
func launch(ctx context.Context, name string, feed *config.Feed, sink worker.Sink, log *slog.Logger) (worker.Running, error) {
	p, err := gst.Launch(ctx, name, feed, sink, log)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// tellConfinement logs what the children of this process are kept from, and what not.
func tellConfinement(conf *config.Gateway, log *slog.Logger) {
	if conf.Isolation == config.IsolationNone {
		return
	}
	if !conf.Confine.Enabled {
		log.Warn("the processes of pipelines are not confined: confine.enabled is false")
		return
	}
	has, missing := worker.Confined()
	log.Info("the processes of pipelines are confined", "by", has)
	for _, m := range missing {
		log.Warn("the processes of pipelines are confined less than they should be", "missing", m)
	}
}

// encodersOf loads the table of encoders, for pipelines that may have what the
// configuration allows.
func encodersOf(conf *config.Gateway) (*config.Encoders, error) {
	table, err := config.LoadEncoders(conf.Encoders)
	if err != nil {
		return nil, err
	}
	return table.Allowing(conf.Elements), nil
}

// restrict has no elements in this process but those that are allowed, whatever text
// asks for them.
func restrict(e config.Elements) { gst.Restrict(e.Forbids) }

// childEnv is what the environment of this process's children has beside its own.
func childEnv(conf *config.Gateway) []string {
	env := []string{"GST_DEBUG_NO_COLOR=1", conf.Elements.Env()}
	if conf.Log.GST != "" {
		env = append(env, "GST_DEBUG="+conf.Log.GST)
	}
	return env
}

// WorkerMain is the whole program where a gateway has started it as the process of a
// pipeline, or to answer questions: it doesn't return then. Every program that runs a [Gateway] calls it
// before it looks at its arguments.
func WorkerMain() {
	if len(os.Args) < 2 || os.Args[1] != worker.Argument {
		return
	}
	gst.TellCrashes()
	if len(os.Args) > 2 && os.Args[2] == worker.AskArgument {
		os.Exit(answers().Serve())
	}
	os.Exit(worker.Serve(worker.Host{
		Init: func(log *slog.Logger) {
			gst.Debug(log, "")
			restrict(config.ElementsOf(os.Environ()))
		},
		Launch: launch,
	}))
}
