package webhook

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// Certificate is the source of the serving certificate.
type Certificate interface {
	manager.Runnable
	// GetCertificate returns the certificate to serve with.
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Ready returns nil if an API server would accept the certificate.
	Ready() error
}

// Mesh is the source of the mesh settings.
type Mesh interface {
	manager.Runnable
	// Ready returns nil once the settings have been read.
	Ready() error
}

// ServerOptions configure Serve.
type ServerOptions struct {
	// Config is the client configuration for the API server. Required.
	Config *rest.Config
	// Host is the address to serve reviews on. Default: all addresses.
	Host string
	// Port is the port to serve reviews on. Default 10250.
	Port int
	// HealthAddress serves /healthz and /readyz. Default :8081.
	HealthAddress string
	// MetricsAddress serves /metrics; "0" disables it. Default :8080.
	MetricsAddress string
	// ShutdownDelay is how long the server still answers reviews after ctx ends,
	// without being ready, until its endpoint is removed from the Service. Default 0.
	ShutdownDelay time.Duration
	// Engine decides and edits. Required.
	Engine *inject.Engine
	// Certificate is the source of the serving certificate. Required.
	Certificate Certificate
	// Mesh runs beside the server. Optional.
	Mesh Mesh
	// Log is the logger of the server.
	Log logr.Logger
}

// Serve answers reviews until ctx ends and ShutdownDelay is over, and then finishes
// the reviews in flight. It returns an error if the server cannot start or fails.
func Serve(ctx context.Context, o ServerOptions) error {
	if o.Port == 0 {
		o.Port = 10250
	}
	mgr, err := newManager(o)
	if err != nil {
		return err
	}
	counters, err := NewMetrics(metrics.Registry)
	if err != nil {
		return err
	}
	var stopping atomic.Bool
	listener, err := newReviewListener(o, newReviewMux(o, mgr, counters, &stopping))
	if err != nil {
		return err
	}
	runnables := []manager.Runnable{o.Certificate, listener}
	if o.Mesh != nil {
		runnables = append(runnables, o.Mesh)
	}
	for _, r := range runnables {
		if err := mgr.Add(r); err != nil {
			return fmt.Errorf("add to manager: %w", err)
		}
	}

	// The cache fills from the start, so that the first review does not wait for it.
	if _, err := mgr.GetCache().GetInformer(ctx, NamespaceMetadata(), cache.BlockUntilSynced(false)); err != nil {
		return fmt.Errorf("watch namespaces: %w", err)
	}
	ready := func(r *http.Request) error { return checkReady(r, o, mgr, &stopping) }
	monitoring := HealthAndMetrics{
		HealthAddress: cmp.Or(o.HealthAddress, ":8081"), MetricsAddress: cmp.Or(o.MetricsAddress, ":8080"),
		Ready: map[string]healthz.Checker{"isthmus": ready}, Metrics: metrics.Registry, Log: o.Log,
	}
	if err := monitoring.AddTo(mgr); err != nil {
		return err
	}

	return run(ctx, mgr, o, &stopping)
}

// newReviewMux returns the handler for the paths of all webhooks.
func newReviewMux(o ServerOptions, mgr manager.Manager, counters *Metrics, stopping *atomic.Bool) *http.ServeMux {
	// controller-runtime's server never runs: it adds its metrics to the handlers,
	// which the listener serves.
	instrumented := webhook.NewServer(webhook.Options{Port: o.Port})
	memory := NewMemoryBudget()
	namespaces := &ClusterNamespaces{Cache: mgr.GetCache(), Live: newLimitedReader(mgr.GetAPIReader())}
	for path, labelled := range map[string]bool{NamespacePath: true, PodPath: false} {
		instrumented.Register(path, closeConnectionsWhen(stopping, &Handler{
			Engine: o.Engine, Namespaces: namespaces, Memory: memory, Metrics: counters, Log: o.Log, Labelled: labelled,
		}))
	}
	validator := &Validator{Engine: o.Engine, Namespaces: namespaces, Memory: memory, Metrics: counters, Log: o.Log}
	for _, path := range []string{WorkloadPath, ValidateNamespacePath} {
		instrumented.Register(path, closeConnectionsWhen(stopping, validator))
	}
	return instrumented.WebhookMux()
}

// run runs the manager until ShutdownDelay after the end of ctx. In between it sets
// stopping.
func run(ctx context.Context, mgr manager.Manager, o ServerOptions, stopping *atomic.Bool) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() {
		<-ctx.Done()
		stopping.Store(true)
		o.Log.Info("stopping: no longer ready, reviews are answered until the delay is over", "delay", o.ShutdownDelay.String())
		select {
		case <-time.After(o.ShutdownDelay):
		case <-running.Done():
		}
		stop()
	}()
	return mgr.Start(running)
}

// closeConnectionsWhen makes clients open a new connection for their next review once
// the server is stopping. The server closes idle connections at its end, and a review
// that a client sends at that moment is lost: API servers reuse connections, and do
// not retry a POST.
func closeConnectionsWhen(stopping *atomic.Bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// checkReady returns an error for the first thing that is not ready.
func checkReady(r *http.Request, o ServerOptions, mgr manager.Manager, stopping *atomic.Bool) error {
	if stopping.Load() {
		return errors.New("stopping")
	}
	if err := o.Certificate.Ready(); err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}
	if o.Mesh != nil {
		if err := o.Mesh.Ready(); err != nil {
			return fmt.Errorf("mesh settings: %w", err)
		}
	}
	informer, err := mgr.GetCache().GetInformer(r.Context(), NamespaceMetadata(), cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("namespaces: %w", err)
	}
	if !informer.HasSynced() {
		return errors.New("namespaces: the cache has not synced yet")
	}
	return nil
}

func newManager(o ServerOptions) (manager.Manager, error) {
	grace := time.Minute
	mgr, err := manager.New(o.Config, manager.Options{
		Logger: o.Log,
		// HealthAndMetrics serves both.
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress:  "0",
		GracefulShutdownTimeout: &grace,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			NamespaceMetadata(): {Transform: TrimNamespace},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("create manager: %w", err)
	}
	return mgr, nil
}
