package restart

import "github.com/prometheus/client_golang/prometheus"

// The results of isthmus_restarts_total.
const (
	resultStarted   = "started"
	resultCompleted = "completed"
	// resultStuck: the rollout was not complete in time.
	resultStuck = "stuck"
	// resultFailed: the new pods are stale again, or are not injected.
	resultFailed = "failed"
	// resultRefused: the workload asks for a restart that would not help.
	resultRefused = "refused"
	// resultReleased: the rollout was not observed to its end, because the workload is
	// gone or no longer requests a restart.
	resultReleased = "released"
)

func results() []string {
	return []string{resultStarted, resultCompleted, resultStuck, resultFailed, resultRefused, resultReleased}
}

// queueState is a state of isthmus_restart_queue.
type queueState string

const (
	queueWaiting queueState = "waiting"
	queueRolling queueState = "rolling"
	queueStopped queueState = "stopped"
	// queueIdle: nothing is being restarted.
	queueIdle queueState = ""
)

// restartMetrics are the metrics of restarts. Only the leader has values in them.
type restartMetrics struct {
	restarts *prometheus.CounterVec
	queue    *prometheus.GaugeVec
}

func newMetrics(registerer prometheus.Registerer) (*restartMetrics, error) {
	m := &restartMetrics{
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_restarts_total", Help: "Restarts of stale workloads, by result.",
		}, []string{"result"}),
		queue: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_restart_queue", Help: "Stale workloads that ask for a restart: waiting, rolling, or stopped, which keeps the others waiting.",
		}, []string{"state"}),
	}
	for _, c := range []prometheus.Collector{m.restarts, m.queue} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	// Prometheus computes no rate for a series that does not exist yet.
	for _, result := range results() {
		m.restarts.WithLabelValues(result)
	}
	return m, nil
}

func (m *restartMetrics) count(result string) { m.restarts.WithLabelValues(result).Inc() }

// setQueue updates isthmus_restart_queue. state is that of the workload that is
// being restarted.
func (m *restartMetrics) setQueue(waiting int, state queueState) {
	counts := map[queueState]int{queueWaiting: waiting, queueRolling: 0, queueStopped: 0}
	if state != queueIdle {
		counts[state] = 1
	}
	for s, n := range counts {
		m.queue.WithLabelValues(string(s)).Set(float64(n))
	}
}
