package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

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

	mu     sync.Mutex       // guards below
	seen   string           // the plugins that facts are about
	fatal  map[string]grief // by question and argument
	griefs time.Duration    // apart; what comes sooner is the same one's, told by another who asked
}

// mostFatal is how often in a row a process may die or hang over a question about what is
// installed before that counts as not installed.
const mostFatal = 3

// newMachine asks children of this process, whose words go to says, or this process
// if that is what conf says. The caller closes it.
func newMachine(conf *config.Gateway, log *slog.Logger, says func(line string)) *machine {
	m := &machine{conf: conf, log: log, fatal: make(map[string]grief), griefs: 10 * time.Second}
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
		m.mu.Lock()
		m.clear()
		m.mu.Unlock()
		a.Renew()
	}
}

// began is told which plugins a process sees.
func (m *machine) began(plugins string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen != plugins {
		m.clear()
		m.seen = plugins
	}
}

// clear forgets what was answered. The caller holds mu.
func (m *machine) clear() {
	m.facts.Clear()
	clear(m.fatal)
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

// errUntold says that it couldn't be asked what is installed here or works. That is no
// fault of what it was asked for, and may be otherwise a moment later.
var errUntold = errors.New("what this machine has can't be told now")

// inquiry is what is asked on behalf of one who wants to know much, and gives up with
// ctx. config.Registry and lint.Facts have no word for what can't be told: whoever asks by them
// looks at err when done, and what was made of the answers counts only without one. After
// the first such question none is asked any more. It is used by one goroutine.
type inquiry struct {
	*machine
	ctx context.Context
	err error // errUntold, and why; nil: all was told
}

func (m *machine) inquire(ctx context.Context) *inquiry { return &inquiry{machine: m, ctx: ctx} }

// tell asks a question, unless one before couldn't be asked.
func tell[R any](q *inquiry, question string, argument any) (answer R, err error) {
	if q.err != nil {
		return answer, q.err
	}
	answer, err = asking[R](q.ctx, q.machine, question, argument)
	q.note(question, err)
	return answer, err
}

// note keeps an error that says nothing of what was asked.
func (q *inquiry) note(question string, err error) {
	if err != nil && (errors.Is(err, worker.ErrUnasked) || q.ctx.Err() != nil) {
		q.fail(question, err)
	}
}

func (q *inquiry) fail(question string, err error) {
	if q.err == nil {
		q.err = fmt.Errorf("%w: %s: %w", errUntold, question, err)
	}
}

// fact asks what stays the same as long as the plugins do. What a process dies or hangs
// over isn't told either, until it has done so again and again.
func fact[R any](q *inquiry, question, argument string) (answer R) {
	m := q.machine
	key := question + " " + argument
	if known, ok := m.facts.Load(key); ok {
		return known.(R)
	}
	answer, err := tell[R](q, question, argument)
	switch {
	case err == nil:
		m.facts.Store(key, answer)
	case q.err != nil:
	case m.isFatal(key, err):
		m.log.Warn("it counts as not installed: the processes that were asked came to grief over it", "question", question, "argument", argument, "err", err)
		m.facts.Store(key, answer)
	default:
		q.fail(key, err)
	}
	return answer
}

// isFatal notes that a process came to grief over a question, and tells whether that
// was so too often.
func (m *machine) isFatal(key string, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.fatal[key]
	if now := time.Now(); !errors.Is(err, worker.ErrHangs) && (g.often == 0 || now.Sub(g.at) >= m.griefs) {
		g = grief{g.often + 1, now}
		m.fatal[key] = g
	}
	return g.often >= mostFatal
}

// grief is how often in a row a process came to grief over a question, and when it did last.
type grief struct {
	often int
	at    time.Time
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
func (q *inquiry) Installed(factory string) bool { return fact[bool](q, askInstalled, factory) }

// Formats implements config.Registry.
func (q *inquiry) Formats(source string) ([]config.Format, error) {
	return tell[[]config.Format](q, askFormats, source)
}

// Try implements config.Registry.
func (q *inquiry) Try(row config.Encoder, launch string, width, height int, fps float64) error {
	_, err := q.Trial(row, launch, width, height, fps)
	return err
}

// Trial implements lint.Trial.
func (q *inquiry) Trial(row config.Encoder, launch string, width, height int, fps float64) (float64, error) {
	if q.err != nil {
		return 0, q.err
	}
	reached, err := q.machine.Trial(row, launch, width, height, fps)
	q.note(askEncode+" "+row.Name, err)
	return reached, err
}

// Elements implements lint.Facts.
func (q *inquiry) Elements() []string { return fact[[]string](q, askElements, "") }

// Element implements lint.Facts.
func (q *inquiry) Element(factory string) (config.Element, bool) {
	e := fact[described](q, askElement, factory)
	return e.Element, e.OK
}

// Accepts implements lint.Facts.
func (q *inquiry) Accepts(factory, property, value string) bool {
	ok, err := tell[bool](q, askAccepts, setting{factory, property, value})
	return ok || err != nil // what nobody can tell isn't a fault of the file's
}

// CapsFields implements lint.Facts.
func (q *inquiry) CapsFields(mediaType string) []string {
	return fact[[]string](q, askCapsFields, mediaType)
}

// Link implements lint.Facts.
func (q *inquiry) Link(chain []string) *config.LinkFault {
	fault, _ := tell[*config.LinkFault](q, askLink, chain)
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
		Hangs: func(err error) bool { return errors.Is(err, gst.ErrStuck) },
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
