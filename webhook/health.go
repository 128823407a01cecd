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

// maxScrapes limits the concurrent requests for /metrics.
const maxScrapes = 4

// HealthAndMetrics serves probes and metrics, without TLS. It limits connections as
// the listener for reviews does; the servers of controller-runtime have no limit.
type HealthAndMetrics struct {
	// HealthAddress serves /healthz and /readyz. Required.
	HealthAddress string
	// MetricsAddress serves /metrics; "0" disables it. Required.
	MetricsAddress string
	// Ready maps the names of the checks of /readyz to the checks. Every client can
	// read the names; the reason of a failure is only logged.
	Ready map[string]healthz.Checker
	// Metrics are served on /metrics. Required.
	Metrics prometheus.Gatherer
	// Log is the logger of the servers.
	Log logr.Logger
}

// AddTo adds the servers to a manager.
func (h HealthAndMetrics) AddTo(mgr manager.Manager) error {
	if err := h.addServer(mgr, "probes", h.HealthAddress, h.probeHandler()); err != nil {
		return err
	}
	if h.MetricsAddress == "0" {
		return nil
	}
	metrics := http.NewServeMux()
	metrics.Handle("/metrics", promhttp.HandlerFor(h.Metrics, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: maxScrapes}))
	return h.addServer(mgr, "metrics", h.MetricsAddress, metrics)
}

// probeHandler serves all checks under one path. A single check has no path:
// controller-runtime would answer there with the text of the error.
func (h HealthAndMetrics) probeHandler() http.Handler {
	probes := http.NewServeMux()
	for path, handler := range map[string]http.Handler{
		"/healthz": &healthz.Handler{Checks: map[string]healthz.Checker{"ping": healthz.Ping}},
		"/readyz":  &healthz.Handler{Checks: h.Ready},
	} {
		probes.Handle(path, http.StripPrefix(path, handler))
	}
	return probes
}

func (h HealthAndMetrics) addServer(mgr manager.Manager, name, address string, handler http.Handler) error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for %s: %w", name, err)
	}
	return mgr.Add(limitConnections(name, listener, handler, maxMonitoringConnections, h.Log))
}
