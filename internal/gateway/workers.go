package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"gateway/internal/worker"
)

var (
	descWorkerMemory  = prometheus.NewDesc("gateway_worker_memory_bytes", "Memory (RSS) of the pipelines' processes.", []string{"stream", "feed"}, nil)
	descWorkerCPU     = prometheus.NewDesc("gateway_worker_cpu_seconds_total", "CPU time that the processes of a stream's pipelines have used.", []string{"stream"}, nil)
	descWorkerHeld    = prometheus.NewDesc("gateway_worker_held", "Processes of pipelines that were killed and haven't ended: a driver holds them.", []string{"stream", "feed"}, nil)
	descWorkerCrashes = prometheus.NewDesc("gateway_worker_crashes_total", "Processes of pipelines that ended otherwise than they were asked to.", []string{"stream"}, nil)
)

// workerCollector reads what the pipelines' processes use when it is asked.
type workerCollector struct{ workers *worker.Launcher }

// Describe implements prometheus.Collector.
func (c workerCollector) Describe(out chan<- *prometheus.Desc) {
	out <- descWorkerMemory
	out <- descWorkerCPU
	out <- descWorkerHeld
	out <- descWorkerCrashes
}

// Collect implements prometheus.Collector.
func (c workerCollector) Collect(out chan<- prometheus.Metric) {
	type feed struct{ stream, feed string }
	memory, held := make(map[feed]uint64), make(map[feed]int) // an edit has two processes of a feed for a moment
	for _, p := range c.workers.Processes() {
		f := feed{p.Stream, p.Feed}
		memory[f] += p.RSS
		if p.Held {
			held[f]++
		}
	}
	for f, rss := range memory {
		out <- prometheus.MustNewConstMetric(descWorkerMemory, prometheus.GaugeValue, float64(rss), f.stream, f.feed)
		out <- prometheus.MustNewConstMetric(descWorkerHeld, prometheus.GaugeValue, float64(held[f]), f.stream, f.feed)
	}
	for stream, spent := range c.workers.Spent() {
		out <- prometheus.MustNewConstMetric(descWorkerCPU, prometheus.CounterValue, spent.Seconds(), stream)
	}
	for stream, n := range c.workers.Crashes() {
		out <- prometheus.MustNewConstMetric(descWorkerCrashes, prometheus.CounterValue, float64(n), stream)
	}
}
