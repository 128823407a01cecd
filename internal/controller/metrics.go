package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The states of isthmus_edge_pods.
const (
	stateInjected = "injected"
	stateMissing  = "missing"
	stateStale    = "stale"
)

// controllerMetrics are the controller's metrics. Only the leader has values in
// them.
type controllerMetrics struct {
	notAfter, notBefore, renewAfter *prometheus.GaugeVec
	rootNotAfter                    prometheus.Gauge
	publishes                       *prometheus.CounterVec
	lastSuccess                     prometheus.Gauge
	rejections                      *prometheus.CounterVec
	edgePods, fileReaders           *prometheus.GaugeVec
	repairs                         prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer) (*controllerMetrics, error) {
	labels := []string{"namespace", "secret", "spiffe_id", "source"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	m := &controllerMetrics{
		notAfter:   gauge("isthmus_certificate_not_after_timestamp_seconds", "End of the validity of the certificate in a Secret."),
		notBefore:  gauge("isthmus_certificate_not_before_timestamp_seconds", "Beginning of the validity of the certificate in a Secret."),
		renewAfter: gauge("isthmus_certificate_renew_after_timestamp_seconds", "When the certificate in a Secret is due to be renewed."),
		rootNotAfter: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_root_not_after_timestamp_seconds", Help: "End of the validity of the mesh's root that expires first.",
		}),
		publishes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_publish_total", Help: "Attempts to put a bundle into a Secret, by result.",
		}, []string{"result"}),
		lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_publish_last_success_timestamp_seconds", Help: "When a bundle was last put into a Secret.",
		}),
		rejections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_bundle_rejected_total", Help: "Keys and certificates that were rejected, by reason.",
		}, []string{"reason"}),
		edgePods: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_edge_pods", Help: "Edge pods of opted-in namespaces: injected, missing the injection, or with a stale template.",
		}, []string{"namespace", "mode", "state"}),
		fileReaders: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_edge_file_readers", Help: "Edge pods that read their certificate from the agent's files, not from the Secret.",
		}, []string{"namespace"}),
		repairs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "isthmus_secret_repair_duration_seconds",
			Help:    "Time from the notice that a Secret was deleted or changed by somebody else until it was written again.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
		}),
	}
	for _, c := range []prometheus.Collector{
		m.notAfter, m.notBefore, m.renewAfter, m.rootNotAfter, m.publishes, m.lastSuccess, m.rejections, m.edgePods, m.fileReaders, m.repairs,
	} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	// Prometheus computes no rate for a series that does not exist yet.
	for _, result := range publish.Results() {
		m.publishes.WithLabelValues(string(result))
	}
	for _, reason := range certs.Reasons() {
		m.rejections.WithLabelValues(string(reason))
	}
	return m, nil
}

// setSecret updates the gauges of a Secret. While the Secret holds no valid bundle,
// the gauges keep their last values, so that alerts on expiry still fire.
func (m *controllerMetrics) setSecret(t publish.Target, s publish.Observation) {
	if s.State != publish.Good {
		return
	}
	labels := labelsOf(t)
	m.notAfter.With(labels).Set(seconds(s.Bundle.NotAfter()))
	m.notBefore.With(labels).Set(seconds(s.Bundle.NotBefore()))
	m.renewAfter.With(labels).Set(seconds(s.RenewAfter))
	m.rootNotAfter.Set(seconds(s.Bundle.RootNotAfter()))
}

func (m *controllerMetrics) deleteSecret(t publish.Target) {
	labels := labelsOf(t)
	m.notAfter.Delete(labels)
	m.notBefore.Delete(labels)
	m.renewAfter.Delete(labels)
}

func labelsOf(t publish.Target) prometheus.Labels {
	return prometheus.Labels{"namespace": t.Namespace, "secret": t.Name, "spiffe_id": t.ID.String(), "source": t.Source}
}

// deleteNamespace deletes the gauges of a namespace.
func (m *controllerMetrics) deleteNamespace(namespace string) {
	labels := prometheus.Labels{"namespace": namespace}
	for _, v := range []*prometheus.GaugeVec{m.notAfter, m.notBefore, m.renewAfter, m.edgePods, m.fileReaders} {
		v.DeletePartialMatch(labels)
	}
}

func (m *controllerMetrics) countResult(result publish.Result) {
	m.publishes.WithLabelValues(string(result)).Inc()
}

func (m *controllerMetrics) countRejection(reason certs.Reason) {
	m.rejections.WithLabelValues(string(reason)).Inc()
}

func (m *controllerMetrics) observeRepair(d time.Duration) { m.repairs.Observe(d.Seconds()) }

func (m *controllerMetrics) setLastSuccess(now time.Time) { m.lastSuccess.Set(seconds(now)) }

// setEdgePods updates isthmus_edge_pods and isthmus_edge_file_readers of a namespace.
func (m *controllerMetrics) setEdgePods(s *namespaceState) {
	injected := map[policy.Mode]int{}
	readers := 0
	for _, c := range s.claims {
		injected[c.mode]++
		if c.options.Delivery == policy.DeliveryFiles {
			readers++
		}
	}
	if readers == 0 {
		m.fileReaders.DeleteLabelValues(s.name)
	} else {
		m.fileReaders.WithLabelValues(s.name).Set(float64(readers))
	}
	stale := map[policy.Mode]int{}
	for _, p := range s.stale {
		stale[p.Mode]++
	}
	for _, mode := range policy.Modes() {
		for state, n := range map[string]int{
			stateInjected: max(injected[mode]-stale[mode], 0), stateMissing: s.missing[mode], stateStale: stale[mode],
		} {
			labels := prometheus.Labels{"namespace": s.name, "mode": string(mode), "state": state}
			if n == 0 {
				m.edgePods.Delete(labels)
				continue
			}
			m.edgePods.With(labels).Set(float64(n))
		}
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
