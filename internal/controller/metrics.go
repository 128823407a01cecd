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

// meters are the controller's metrics. Only the leader has values in them.
type meters struct {
	notAfter, notBefore, renewAfter *prometheus.GaugeVec
	rootNotAfter                    prometheus.Gauge
	publishes                       *prometheus.CounterVec
	lastSuccess                     prometheus.Gauge
	rejections                      *prometheus.CounterVec
	edgePods                        *prometheus.GaugeVec
	restarts                        *prometheus.CounterVec
	restartQueue                    *prometheus.GaugeVec
}

func newMeters(registerer prometheus.Registerer) (*meters, error) {
	of := []string{"namespace", "secret", "spiffe_id", "source"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, of)
	}
	m := &meters{
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
			Name: "isthmus_bundle_rejected_total", Help: "Keys and certificates that were no bundle, by reason.",
		}, []string{"reason"}),
		edgePods: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_edge_pods", Help: "Edge pods of opted-in namespaces: injected, missing the injection, or with a stale template.",
		}, []string{"namespace", "mode", "state"}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_restarts_total", Help: "Restarts of stale workloads, by what became of them.",
		}, []string{"result"}),
		restartQueue: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_restart_queue", Help: "Stale workloads that ask for a restart: waiting, rolling, or stopped, which keeps the others waiting.",
		}, []string{"state"}),
	}
	for _, c := range []prometheus.Collector{
		m.notAfter, m.notBefore, m.renewAfter, m.rootNotAfter, m.publishes, m.lastSuccess, m.rejections, m.edgePods, m.restarts, m.restartQueue,
	} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	// A rate of something that never happened is no data; a zero is.
	for _, result := range publish.Results() {
		m.publishes.WithLabelValues(string(result))
	}
	for _, reason := range certs.Reasons() {
		m.rejections.WithLabelValues(string(reason))
	}
	return m, nil
}

// secret brings the gauges of a Secret up to date with what stands there.
func (m *meters) secret(t publish.Target, s publish.Observation) {
	if s.State != publish.Good {
		return // the last good values stand, and run out
	}
	of := labelsOf(t)
	m.notAfter.With(of).Set(seconds(s.Bundle.NotAfter()))
	m.notBefore.With(of).Set(seconds(s.Bundle.NotBefore()))
	m.renewAfter.With(of).Set(seconds(s.RenewAfter))
	m.rootNotAfter.Set(seconds(s.Bundle.RootNotAfter()))
}

func (m *meters) dropSecret(t publish.Target) {
	of := labelsOf(t)
	m.notAfter.Delete(of)
	m.notBefore.Delete(of)
	m.renewAfter.Delete(of)
}

func labelsOf(t publish.Target) prometheus.Labels {
	return prometheus.Labels{"namespace": t.Namespace, "secret": t.Name, "spiffe_id": t.ID.String(), "source": t.Source}
}

// forget drops everything of a namespace.
func (m *meters) forget(namespace string) {
	of := prometheus.Labels{"namespace": namespace}
	for _, v := range []*prometheus.GaugeVec{m.notAfter, m.notBefore, m.renewAfter, m.edgePods} {
		v.DeletePartialMatch(of)
	}
}

func (m *meters) publish(result publish.Result) { m.publishes.WithLabelValues(string(result)).Inc() }

func (m *meters) published(now time.Time) { m.lastSuccess.Set(seconds(now)) }

func (m *meters) reject(err error) {
	if reason := certs.ReasonOf(err); reason != "" {
		m.rejections.WithLabelValues(string(reason)).Inc()
	}
}

// count brings isthmus_edge_pods of a namespace up to date.
func (r *reconciler) count(p *place) {
	injected := map[policy.Mode]int{}
	for _, c := range p.claims {
		injected[c.mode]++
	}
	old := map[policy.Mode]int{}
	for _, s := range p.stale {
		old[s.mode]++
	}
	for _, mode := range policy.Modes() {
		for state, n := range map[string]int{
			stateInjected: max(injected[mode]-old[mode], 0), stateMissing: p.missing[mode], stateStale: old[mode],
		} {
			of := prometheus.Labels{"namespace": p.namespace, "mode": string(mode), "state": state}
			if n == 0 {
				r.metrics.edgePods.Delete(of)
				continue
			}
			r.metrics.edgePods.With(of).Set(float64(n))
		}
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
