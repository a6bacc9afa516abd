package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"gateway/internal/contain"
	"gateway/internal/gst"
	"gateway/internal/media"
	"gateway/internal/stream"
)

var (
	trackLabels = []string{"stream", "track"}

	descState    = prometheus.NewDesc("gateway_stream_state", "1 for the state that the stream is in.", []string{"stream", "state"}, nil)
	descViewers  = prometheus.NewDesc("gateway_stream_viewers", "Subscribers of the stream's busiest track.", []string{"stream"}, nil)
	descRestarts = prometheus.NewDesc("gateway_stream_restarts_total", "Pipelines that ended by themselves and were started again.", []string{"stream"}, nil)

	descFrames    = prometheus.NewDesc("gateway_track_frames_total", "Frames that the pipeline yielded.", trackLabels, nil)
	descKeyframes = prometheus.NewDesc("gateway_track_keyframes_total", "Keyframes among them.", trackLabels, nil)
	descStandIns  = prometheus.NewDesc("gateway_track_placeholders_total", "Pictures that viewers were sent in place of those of a source that was away.", trackLabels, nil)
	descPackets   = prometheus.NewDesc("gateway_track_packets_total", "RTP packets that the pipeline yielded.", trackLabels, nil)
	descBytes     = prometheus.NewDesc("gateway_track_bytes_total", "Their payload bytes.", trackLabels, nil)
	descRequests  = prometheus.NewDesc("gateway_track_keyframe_requests_total", "Keyframes asked of the encoder.", trackLabels, nil)
	descGaps      = prometheus.NewDesc("gateway_track_gaps_total", "Losses inside the pipeline: samples that were not taken in time or not readable.", trackLabels, nil)
	descDropped   = prometheus.NewDesc("gateway_track_dropped_packets_total", "Packets that viewers skipped because they fell behind.", trackLabels, nil)
	descSlow      = prometheus.NewDesc("gateway_track_dropped_frames_total", "Captured frames that the encoder was too slow for.", trackLabels, nil)
	descPipeline  = prometheus.NewDesc("gateway_track_pipeline_seconds_total", "Time from capture to packets, summed over the frames: divided by them, what conversion, encoder and payloader take.", trackLabels, nil)
	descTarget    = prometheus.NewDesc("gateway_encoder_target_bps", "Bitrate that the encoder is told, in bit/s.", trackLabels, nil)
	descLevel     = prometheus.NewDesc("gateway_encoder_level", "How far the picture is reduced: 0 is as configured.", trackLabels, nil)
	descDecisions = prometheus.NewDesc("gateway_encoder_decisions_total", "Decisions about the encoder, by what they changed.", append(trackLabels, "what"), nil)
	descPanics    = prometheus.NewDesc("gateway_panics_total", "Panics that ended the connection on which they happened, and nothing else.", []string{"where"}, nil)
	descBuffers   = prometheus.NewDesc("gateway_buffers", "Packet buffers in use.", nil, nil)
)

// collector reads the streams' own counts when it is asked.
type collector struct{ streams *streams }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descState, descViewers, descRestarts, descFrames, descKeyframes, descStandIns,
		descPackets, descBytes, descRequests, descGaps, descDropped, descSlow, descPipeline, descTarget, descLevel, descDecisions, descPanics, descBuffers} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descBuffers, float64(media.LiveBuffers()))
	for where, n := range contain.Counts() {
		count(descPanics, n, where)
	}
	for _, s := range c.streams.list() {
		i := s.Info()
		for _, state := range []stream.State{stream.Idle, stream.Starting, stream.Live, stream.Restarting, stream.Absent, stream.Ended, stream.Closed} {
			v := 0.0
			if state == i.State {
				v = 1
			}
			gauge(descState, v, i.Name, string(state))
		}
		gauge(descViewers, float64(i.Viewers), i.Name)
		count(descRestarts, uint64(i.Restarts), i.Name)
		for _, t := range i.Tracks {
			if a := t.Adaptation; a != nil {
				gauge(descTarget, float64(a.Target), i.Name, t.Name)
				gauge(descLevel, float64(a.Level), i.Name, t.Name)
				for what, n := range a.Counts {
					count(descDecisions, n, i.Name, t.Name, what)
				}
			}
		}
		for track, n := range s.Counts() {
			count(descFrames, n.Frames, i.Name, track)
			count(descKeyframes, n.Keyframes, i.Name, track)
			count(descStandIns, n.Placeholders, i.Name, track)
			count(descPackets, n.Packets, i.Name, track)
			count(descBytes, n.Bytes, i.Name, track)
			count(descRequests, n.KeyframeRequests, i.Name, track)
			count(descGaps, n.Gaps, i.Name, track)
			count(descDropped, n.Dropped, i.Name, track)
			count(descSlow, n.DroppedFrames, i.Name, track)
			out <- prometheus.MustNewConstMetric(descPipeline, prometheus.CounterValue, n.PipelineTime.Seconds(), i.Name, track)
		}
	}
}

// buildInfo is the usual constant gauge that names the version.
func buildInfo(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gateway_build_info", Help: "1, labelled with versions.",
		ConstLabels: prometheus.Labels{"version": version, "gstreamer": gst.Version()},
	})
	g.Set(1)
	return g
}
