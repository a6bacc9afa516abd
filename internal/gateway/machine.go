package gateway

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"

	"gateway/internal/config"
	"gateway/internal/device"
	"gateway/internal/gst"
	"gateway/internal/media"
	"gateway/internal/worker"
)

// asker has questions answered, in another process or in this one.
type asker interface {
	Ask(ctx context.Context, question string, argument, answer any) error
}

// machine tells what this machine has and what of it works: it asks another process,
// which initializes GStreamer, and remembers what doesn't change.
type machine struct {
	*gst.Trials
	asker asker
	conf  *config.Gateway
	log   *slog.Logger

	facts sync.Map // question and argument → answer, as long as the plugins are the same
	mu    sync.Mutex
	seen  string // the plugins that facts are about
}

// newMachine asks children of this process, whose words go to says, or this process
// if that is what conf says. The caller closes it.
func newMachine(conf *config.Gateway, log *slog.Logger, says func(line string)) *machine {
	m := &machine{conf: conf, log: log}
	m.Trials = gst.NewTrials(func(text string) (float64, error) { return asking[float64](context.Background(), m, askEncode, text) })
	if conf.Isolation == config.IsolationNone {
		m.asker = answers()
		return m
	}
	o := worker.AskOptions{Words: says, Began: m.began, Logger: log, Env: childEnv(conf)}
	if conf.Confine.Enabled {
		o.Confine = func() *worker.Confinement { return worker.ProbeNeeds(conf.Confine.Paths) }
	}
	m.asker = worker.NewAsker(o)
	return m
}

// close ends what was started to be asked.
func (m *machine) close() error {
	if a, ok := m.asker.(*worker.Asker); ok {
		return a.Close()
	}
	return nil
}

// renew has what comes be asked of another process: the one that there is may not
// open what came after it (landlock(7): rules are about files, not about names).
func (m *machine) renew() {
	if a, ok := m.asker.(*worker.Asker); ok {
		a.Renew()
	}
}

// forget has everything asked anew, of a process that sees what is installed now.
func (m *machine) forget() {
	if a, ok := m.asker.(*worker.Asker); ok {
		m.facts.Clear()
		a.Renew()
	}
}

// began is told which plugins a process sees.
func (m *machine) began(plugins string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen != plugins {
		m.facts.Clear()
		m.seen = plugins
	}
}

// asking asks one question. What can't be asked is logged, for callers that can't tell it.
func asking[R any](ctx context.Context, m *machine, question string, argument any) (R, error) {
	var answer R
	err := m.asker.Ask(ctx, question, argument, &answer)
	if died := (*worker.DeathError)(nil); errors.As(err, &died) {
		m.log.Warn("asking GStreamer", "question", question, "argument", argument, "err", err)
	}
	return answer, err
}

// fact asks what stays the same as long as the plugins do.
func fact[R any](m *machine, question, argument string) R {
	key := question + " " + argument
	if known, ok := m.facts.Load(key); ok {
		return known.(R)
	}
	answer, err := asking[R](context.Background(), m, question, argument)
	if err == nil {
		m.facts.Store(key, answer)
	}
	return answer
}

// The questions, as they are called on the wire.
const (
	askInstalled   = "installed"
	askElements    = "elements"
	askElement     = "element"
	askAccepts     = "accepts"
	askCapsFields  = "caps fields"
	askLink        = "link"
	askFormats     = "formats"
	askEncode      = "encode"
	askDevices     = "devices"
	askAwait       = "await devices"
	askPlugins     = "plugins"
	askNegotiate   = "negotiate"
	askSnapshot    = "snapshot"
	askPlaceholder = "placeholder"
)

// described is an element, if there is one.
type described struct {
	Element config.Element
	OK      bool
}

// setting is a property's value in a launch text.
type setting struct{ Factory, Property, Value string }

// negotiated is what came of a launch text that was run for a moment, with the
// error that ended it half way.
type negotiated struct {
	Links []gst.Negotiated
	Dot   string
	Error string
}

// keyframe is one to decode.
type keyframe struct {
	Codec    media.Codec
	Payloads [][]byte
	Width    int // pixels, at most
}

// Installed implements config.Registry.
func (m *machine) Installed(factory string) bool { return fact[bool](m, askInstalled, factory) }

// Formats implements config.Registry.
func (m *machine) Formats(source string) ([]config.Format, error) {
	return asking[[]config.Format](context.Background(), m, askFormats, source)
}

// Elements implements lint.Facts.
func (m *machine) Elements() []string { return fact[[]string](m, askElements, "") }

// Element implements lint.Facts.
func (m *machine) Element(factory string) (config.Element, bool) {
	e := fact[described](m, askElement, factory)
	return e.Element, e.OK
}

// Accepts implements lint.Facts.
func (m *machine) Accepts(factory, property, value string) bool {
	ok, _ := asking[bool](context.Background(), m, askAccepts, setting{factory, property, value})
	return ok
}

// CapsFields implements lint.Facts.
func (m *machine) CapsFields(mediaType string) []string {
	return fact[[]string](m, askCapsFields, mediaType)
}

// Link implements lint.Facts.
func (m *machine) Link(chain []string) *config.LinkFault {
	fault, _ := asking[*config.LinkFault](context.Background(), m, askLink, chain)
	return fault
}

// devices is gst.FindDevices.
func (m *machine) devices(ctx context.Context) (*gst.Devices, error) {
	found, err := asking[*gst.Devices](ctx, m, askDevices, nil)
	if err != nil {
		return nil, err
	}
	for i := range found.Cameras { // a process that is confined sees no others
		if c := &found.Cameras[i]; c.Problem == gst.Busy {
			c.Problem += ": it is held by " + device.HeldBy(c.Device)
		}
	}
	return found, nil
}

// plugins is gst.Registry's Plugins.
func (m *machine) plugins(ctx context.Context) ([]gst.Plugin, error) {
	return asking[[]gst.Plugin](ctx, m, askPlugins, nil)
}

// await is gst.AwaitDevices.
func (m *machine) await(ctx context.Context, known []string) ([]string, error) {
	return asking[[]string](ctx, m, askAwait, known)
}

// negotiate is gst.Registry's Negotiate, in a process that may do what the pipeline needs.
func (m *machine) negotiate(ctx context.Context, launch string) ([]gst.Negotiated, string, error) {
	var n negotiated
	var err error
	if a, ok := m.asker.(*worker.Asker); ok && m.conf.Confine.Enabled {
		err = a.AskApart(ctx, worker.Needs([]string{launch}, m.conf.Confine.Paths), askNegotiate, launch, &n)
	} else {
		err = m.asker.Ask(ctx, askNegotiate, launch, &n)
	}
	if err == nil && n.Error != "" {
		err = errors.New(n.Error)
	}
	return n.Links, n.Dot, err
}

// snapshot is gst.Snapshot.
func (m *machine) snapshot(ctx context.Context, codec media.Codec, payloads [][]byte, width int) ([]byte, error) {
	return asking[[]byte](ctx, m, askSnapshot, keyframe{codec, payloads, width})
}

// Placeholder implements stream.Launcher.
func (m *machine) Placeholder(ctx context.Context, p *config.Placeholder) ([][][]byte, error) {
	return asking[[][][]byte](ctx, m, askPlaceholder, p)
}

// answers answers what a machine asks, by this process's GStreamer.
func answers() *worker.Answers {
	r := gst.NewRegistry()
	type none = struct{}
	return &worker.Answers{
		Begin: func() string {
			plugins := gst.Signature()
			restrict(config.ElementsOf(os.Environ()))
			return plugins
		},
		Sound: func() bool { return gst.Hanging() == 0 },
		Questions: map[string]worker.Answerer{
			askInstalled: worker.Answer(func(_ context.Context, f string) (bool, error) { return r.Installed(f), nil }),
			askElements:  worker.Answer(func(context.Context, string) ([]string, error) { return r.Elements(), nil }),
			askElement: worker.Answer(func(_ context.Context, f string) (d described, err error) {
				d.Element, d.OK = r.Element(f)
				return d, nil
			}),
			askAccepts: worker.Answer(func(_ context.Context, s setting) (bool, error) {
				return r.Accepts(s.Factory, s.Property, s.Value), nil
			}),
			askCapsFields: worker.Answer(func(_ context.Context, t string) ([]string, error) { return r.CapsFields(t), nil }),
			askLink:       worker.Answer(func(_ context.Context, chain []string) (*config.LinkFault, error) { return r.Link(chain), nil }),
			askFormats:    worker.Answer(func(_ context.Context, source string) ([]config.Format, error) { return r.Formats(source) }),
			askEncode:     worker.Answer(func(_ context.Context, text string) (float64, error) { return gst.Encode(text) }),
			askPlugins:    worker.Answer(func(context.Context, *none) ([]gst.Plugin, error) { return gst.NewRegistry().Plugins(), nil }),
			askDevices:    worker.Answer(func(ctx context.Context, _ *none) (*gst.Devices, error) { return gst.FindDevices(ctx), nil }),
			askAwait:      worker.Answer(gst.AwaitDevices),
			askNegotiate: worker.Answer(func(ctx context.Context, launch string) (n negotiated, _ error) {
				var err error
				if n.Links, n.Dot, err = r.Negotiate(ctx, launch); err != nil {
					n.Error = err.Error()
				}
				return n, nil
			}),
			askSnapshot: worker.Answer(func(ctx context.Context, k keyframe) ([]byte, error) {
				return gst.Snapshot(ctx, k.Codec, k.Payloads, k.Width)
			}),
			askPlaceholder: worker.Answer(func(ctx context.Context, p config.Placeholder) ([][][]byte, error) {
				ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
				defer cancel()
				return gst.Placeholder(ctx, &p)
			}),
		},
	}
}
