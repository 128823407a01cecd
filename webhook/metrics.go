package webhook

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// Metrics of the admission server. A nil Metrics counts nothing.
type Metrics struct {
	admissions *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{admissions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "isthmus_admission_total",
		Help: "Reviews of pods, by profile (none when no profile matched), mode, outcome (patched, allowed, denied, error) and reason.",
	}, []string{"profile", "mode", "outcome", "reason"})}
	if err := r.Register(m.admissions); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

func (m *Metrics) count(result inject.Result, outcome string) {
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
