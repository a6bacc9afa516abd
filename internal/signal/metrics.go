package signal

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts the conversation. Label values are codes, kinds and message
// types of ours, never what a client sent.
type metrics struct {
	sessions    *prometheus.GaugeVec   // kind
	joins       *prometheus.CounterVec // kind
	ends        *prometheus.CounterVec // kind, reason
	timeouts    *prometheus.CounterVec // kind
	refusals    *prometheus.CounterVec // code
	messages    *prometheus.CounterVec // direction, type
	resumes     *prometheus.CounterVec // result
	sockets     prometheus.Gauge
	slowSockets prometheus.Counter
	data        *prometheus.CounterVec   // what: in, out, dropped
	connect     *prometheus.HistogramVec // kind
	firstFrame  prometheus.Histogram
	decisions   *prometheus.CounterVec   // what
	changes     *prometheus.CounterVec   // reason
	estimate    *prometheus.HistogramVec // stream
	queue       *prometheus.HistogramVec // stream
	latency     *latencies
}

func newMetrics(r prometheus.Registerer, streams Streams) *metrics {
	auto := promauto.With(r) // makes them without registering when r is nil
	buckets := []float64{.02, .05, .1, .15, .2, .3, .5, .75, 1, 1.5, 2, 3, 5, 10, 30}
	return &metrics{
		sessions: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gateway_sessions", Help: "Watching sessions now, by how they signal.",
		}, []string{"kind"}),
		joins: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_joins_total", Help: "Sessions that were admitted.",
		}, []string{"kind"}),
		ends: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_session_ends_total", Help: "Sessions that ended, by reason.",
		}, []string{"kind", "reason"}),
		timeouts: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_negotiation_timeouts_total", Help: "Sessions that were not connected within their deadline.",
		}, []string{"kind"}),
		refusals: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_refusals_total", Help: "Messages and requests that were refused, by code.",
		}, []string{"code"}),
		messages: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_messages_total", Help: "WebSocket messages, by direction and type.",
		}, []string{"direction", "type"}),
		data: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_data_messages_total", Help: "Messages of data channels: from clients, to clients, and those that were not sent because a client was slow or has none.",
		}, []string{"what"}),
		resumes: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_resumes_total", Help: "Clients that came back to their session, by whether it was there.",
		}, []string{"result"}),
		sockets: auto.NewGauge(prometheus.GaugeOpts{
			Name: "gateway_sockets", Help: "WebSockets open now, joined or not.",
		}),
		slowSockets: auto.NewCounter(prometheus.CounterOpts{
			Name: "gateway_slow_sockets_total", Help: "WebSockets cut because they didn't read.",
		}),
		connect: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gateway_connect_seconds", Help: "From join to a connected transport.", Buckets: buckets,
		}, []string{"kind"}),
		firstFrame: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "gateway_first_frame_seconds", Help: "From the page's connecting to its first rendered frame, as pages report it.", Buckets: buckets,
		}),
		decisions: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_adaptations_total", Help: "Decisions on what a viewer is given: rendition, pause, resume.",
		}, []string{"what"}),
		changes: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "gateway_viewer_estimate_changes_total", Help: "Changes of what viewers' networks are thought to carry that are worth telling, by what showed it.",
		}, []string{"reason"}),
		estimate: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gateway_viewer_estimate_bps", Help: "What viewers' networks carry, in bit/s: at each change, and once a second.",
			Buckets: []float64{100e3, 200e3, 300e3, 500e3, 750e3, 1e6, 1.5e6, 2e6, 3e6, 5e6, 10e6, 20e6},
		}, []string{"stream"}),
		queue: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gateway_viewer_queue_seconds", Help: "How long packets wait on the way to viewers, at each estimate.",
			Buckets: []float64{.005, .01, .02, .05, .1, .2, .5, 1, 2},
		}, []string{"stream"}),
		latency: newLatencies(r, streams),
	}
}

// latencies are histograms of the stages that frames go through, by stream. Those
// of a stream that is gone go when they are collected next.
type latencies struct {
	*prometheus.HistogramVec // stream, stage
	streams                  Streams

	mu    sync.Mutex // guards names, and that an observation isn't made anew of a stream that goes
	names map[string]bool
}

func newLatencies(r prometheus.Registerer, streams Streams) *latencies {
	l := &latencies{streams: streams, names: make(map[string]bool)}
	l.HistogramVec = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "gateway_latency_seconds", Help: "What the stages from the source to the glass take, of frames that pages report while they are observed.",
		Buckets: []float64{.001, .002, .003, .005, .008, .012, .02, .03, .05, .08, .12, .2, .3, .5, 1, 2},
	}, []string{"stream", "stage"})
	if r != nil {
		r.MustRegister(l)
	}
	return l
}

// observe adds a frame of a stream.
func (l *latencies) observe(stream string, spent [stages]time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names[stream] = true
	for s, d := range spent {
		if d != unknown {
			l.WithLabelValues(stream, stageNames[s]).Observe(d.Seconds())
		}
	}
}

// Collect implements prometheus.Collector.
func (l *latencies) Collect(out chan<- prometheus.Metric) {
	l.mu.Lock()
	for name := range l.names {
		if _, ok := l.streams.Stream(name); !ok {
			delete(l.names, name)
			l.DeletePartialMatch(prometheus.Labels{"stream": name})
		}
	}
	l.mu.Unlock()
	l.HistogramVec.Collect(out)
}
