package webhook

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// maxScrapes are the metrics pages that are made at once.
const maxScrapes = 4

// Ports are those of probes and metrics, without TLS, bounded as the one for reviews
// is: controller-runtime's own keep whatever connects.
type Ports struct {
	// HealthAddress serves /healthz and /readyz. Required.
	HealthAddress string
	// MetricsAddress serves /metrics; "0" serves none. Required.
	MetricsAddress string
	// Ready are the checks of /readyz by their names, which everybody may read; why
	// one fails is in the log alone.
	Ready map[string]healthz.Checker
	// Metrics are what /metrics gathers. Required.
	Metrics prometheus.Gatherer
	// Log gets the lines of the servers.
	Log logr.Logger
}

// AddTo has a manager serve them, from its start to its end.
func (p Ports) AddTo(mgr manager.Manager) error {
	if err := p.add(mgr, "probes", p.HealthAddress, p.probes()); err != nil {
		return err
	}
	if p.MetricsAddress == "0" {
		return nil
	}
	metrics := http.NewServeMux()
	metrics.Handle("/metrics", promhttp.HandlerFor(p.Metrics, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: maxScrapes}))
	return p.add(mgr, "metrics", p.MetricsAddress, metrics)
}

// probes answers for all checks together. A check has no path of its own:
// controller-runtime answers there with the error's text.
func (p Ports) probes() http.Handler {
	probes := http.NewServeMux()
	for path, handler := range map[string]http.Handler{
		"/healthz": &healthz.Handler{Checks: map[string]healthz.Checker{"ping": healthz.Ping}},
		"/readyz":  &healthz.Handler{Checks: p.Ready},
	} {
		probes.Handle(path, http.StripPrefix(path, handler))
	}
	return probes
}

func (p Ports) add(mgr manager.Manager, name, address string, handler http.Handler) error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for %s: %w", name, err)
	}
	return mgr.Add(bounded(name, listener, handler, maxPlain, p.Log))
}
