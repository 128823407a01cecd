package webhook

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Metrics of the admission server. A nil Metrics counts nothing.
type Metrics struct {
	admissions, validations *prometheus.CounterVec
}

// NewMetrics creates the metrics and registers them. It returns an error if one is
// registered already.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{admissions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "isthmus_admission_total",
		Help: "Reviews of pods, by profile (none when no profile matched), mode, outcome (patched, allowed, denied, error) and reason.",
	}, []string{"profile", "mode", "outcome", "reason"})}
	m.validations = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "isthmus_validation_total",
		Help: "Reviews of workload templates and namespaces, by kind (lower case), outcome (allowed, warned, denied, error) and reason (none when there is none).",
	}, []string{"kind", "outcome", "reason"})
	for _, c := range []prometheus.Collector{m.admissions, m.validations} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// countValidation counts a review of a workload or namespace.
func (m *Metrics) countValidation(kind, outcome string, reason policy.Reason) {
	if m == nil {
		return
	}
	if reason == "" {
		reason = "none"
	}
	m.validations.WithLabelValues(kind, outcome, string(reason)).Inc()
}

// countAdmission counts a review of a pod.
func (m *Metrics) countAdmission(result inject.Result, outcome string) {
	if m == nil {
		return
	}
	profile, mode := result.Profile, string(result.Mode)
	if profile == "" {
		profile = "none"
	}
	if mode == "" {
		mode = "none"
	}
	m.admissions.WithLabelValues(profile, mode, outcome, string(result.Reason)).Inc()
}
