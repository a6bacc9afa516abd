package rtc

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the engine's counters. They count whether or not they are exported.
type metrics struct {
	viewers       *prometheus.GaugeVec
	ended         *prometheus.CounterVec
	failed        *prometheus.CounterVec
	connect       prometheus.Histogram
	connected     *prometheus.CounterVec
	packets       prometheus.Counter
	bytes         prometheus.Counter
	unsent        prometheus.Counter
	retransmitted prometheus.Counter
	refused       prometheus.Counter
	nacks         prometheus.Counter
	plis          prometheus.Counter
	firs          prometheus.Counter
	feedbacks     prometheus.Counter
	badFeedbacks  prometheus.Counter
	switches      prometheus.Counter
	probes        prometheus.Counter
	probed        prometheus.Counter
	sends         prometheus.Counter
	gsoMessages   prometheus.Counter
	gsoPackets    prometheus.Counter
	otherPackets  prometheus.Counter
	fallbacks     *prometheus.CounterVec
	stuck         prometheus.Counter
	dropped       prometheus.Counter

	publishers      *prometheus.GaugeVec
	publishersEnded *prometheus.CounterVec
	received        prometheus.Counter
	receivedBytes   prometheus.Counter
	nacked          prometheus.Counter
	repaired        prometheus.Counter
	lost            prometheus.Counter
	plisSent        prometheus.Counter
	depth           *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	var all []prometheus.Collector
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "gateway", Subsystem: "rtc", Name: name, Help: help})
		all = append(all, c)
		return c
	}
	byReason := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "gateway", Subsystem: "rtc", Name: name, Help: help}, []string{"reason"})
		all = append(all, c)
		return c
	}
	sent := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "gateway", Subsystem: "rtc", Name: "datagrams_sent_total",
		Help: "Datagrams of media that the kernel took, by how: gso (cut up by the kernel or the network card) or alone.",
	}, []string{"how"})
	fallbacks := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "gateway", Subsystem: "rtc", Name: "send_fallbacks_total",
		Help: "Ways to send that were given up for good, by for whom (socket, viewer) and what is left (mmsg, single).",
	}, []string{"scope", "to"})
	connected := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "gateway", Subsystem: "rtc", Name: "connected_total",
		Help: "Viewers that were connected, by the gateway's side of ICE: full, or lite (ice.lite).",
	}, []string{"ice"})
	all = append(all, sent, fallbacks, connected)
	m := &metrics{
		viewers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "gateway", Subsystem: "rtc", Name: "viewers", Help: "Viewers by the state of their connection.",
		}, []string{"state"}),
		ended:  byReason("viewers_ended_total", "Viewers that ended, by reason."),
		failed: byReason("negotiations_failed_total", "Offers, answers and connections that failed, by reason."),
		connect: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "gateway", Subsystem: "rtc", Name: "connect_seconds",
			Help:    "Time from the first offer to the established connection.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		connected:     connected,
		packets:       counter("packets_sent_total", "RTP packets sent, without retransmissions."),
		bytes:         counter("payload_bytes_sent_total", "Payload bytes of these packets."),
		unsent:        counter("packets_unsent_total", "Of the packets sent, those that found no way: ICE had no candidate pair just then, or its local address was gone."),
		retransmitted: counter("packets_retransmitted_total", "RTP packets sent again after a NACK."),
		refused:       counter("retransmissions_refused_total", "Packets asked for by NACK that were not sent again: unknown, asked twice within a round trip, or over the limit."),
		nacks:         counter("nacks_received_total", "NACK messages received."),
		plis:          counter("plis_received_total", "Picture loss indications received."),
		firs:          counter("firs_received_total", "Full intra requests received, with repeats."),
		sends:         counter("send_calls_total", "System calls that sent media."),
		gsoMessages:   counter("gso_messages_total", "Messages that were cut up into several datagrams."),
		gsoPackets:    sent.WithLabelValues("gso"),
		otherPackets:  sent.WithLabelValues("alone"),
		fallbacks:     fallbacks,
		dropped:       counter("control_dropped_total", "Datagrams other than media (STUN, DTLS, RTCP) that were dropped, for the network card had no room."),
		stuck:         counter("send_stuck_total", "Times that a network card took nothing for 20 ms; what was due was dropped."),
		feedbacks:     counter("transport_feedbacks_received_total", "Transport-wide congestion control feedback messages received."),
		badFeedbacks:  counter("transport_feedbacks_refused_total", "Of these, those that were malformed or told of packets that were never sent."),
		switches:      counter("switches_total", "Encodings that a viewer's track began or went on with."),
		probes:        counter("probes_total", "Probes for more bandwidth that were sent."),
		publishers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "gateway", Subsystem: "rtc", Name: "publishers", Help: "Publishers by the state of their connection.",
		}, []string{"state"}),
		publishersEnded: byReason("publishers_ended_total", "Publishers that ended, by reason."),
		received:        counter("packets_received_total", "RTP packets received of publishers, without repairs and duplicates."),
		receivedBytes:   counter("payload_bytes_received_total", "Payload bytes of these packets."),
		nacked:          counter("nacked_packets_total", "Packets that publishers were asked for by NACK, each time counted."),
		repaired:        counter("packets_repaired_total", "Missing packets of publishers that came again in time."),
		lost:            counter("packets_lost_total", "Missing packets of publishers that were given up."),
		plisSent:        counter("plis_sent_total", "Keyframes that publishers were asked for."),
		depth: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "gateway", Subsystem: "rtc", Name: "jitter_buffer_depth_seconds",
			Help:    "How long a missing packet of a publisher is waited for, of each of its streams each second, by kind of media.",
			Buckets: []float64{.02, .03, .05, .075, .1, .15, .2, .3, .4, .5},
		}, []string{"kind"}),
		probed: counter("packets_probed_total", "RTP packets that were sent again for these probes."),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range append(all, m.viewers, m.connect, m.publishers, m.depth) {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// reasons name an error in a metric.
var reasons = []struct {
	err  error
	name string
}{
	{errForeign, "hostile"},
	{errNonsense, "hostile"},
	{ErrConnectTimeout, "timeout"},
	{ErrConnectionLost, "connection-lost"},
	{ErrNeedsFullICE, "needs-full-ice"},
	{ErrLeft, "left"},
	{ErrNotReceiving, "not-receiving"},
	{ErrBadSDP, "bad-sdp"},
	{ErrNoCodec, "no-codec"},
	{ErrDeclined, "declined"},
	{ErrBadState, "bad-state"},
	{ErrClosed, "closed"},
}

func reason(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	return "internal"
}
