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

// Certificate is where the server's certificate comes from.
type Certificate interface {
	manager.Runnable
	// GetCertificate returns the certificate to serve with.
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Ready is nil when an API server would accept the certificate.
	Ready() error
}

// Mesh is where the settings of the mesh come from.
type Mesh interface {
	manager.Runnable
	// Ready is nil when the settings have been read once.
	Ready() error
}

// ServerOptions are what a Server is made of.
type ServerOptions struct {
	// Config says how to reach the API server. Required.
	Config *rest.Config
	// Host and Port to serve reviews on. Default: all addresses, 10250.
	Host string
	Port int
	// HealthAddress serves /healthz and /readyz. Default :8081.
	HealthAddress string
	// MetricsAddress serves /metrics; "0" serves none. Default :8080.
	MetricsAddress string
	// ShutdownDelay is how long the server goes on after it was told to stop,
	// no longer ready, so that nobody is sent to a closed door. Default 0.
	ShutdownDelay time.Duration
	// Engine decides. Required.
	Engine *inject.Engine
	// Certificate to serve with. Required.
	Certificate Certificate
	// Mesh is run beside the server. Optional.
	Mesh Mesh
	// Log gets the lines of the server.
	Log logr.Logger
}

// Serve answers reviews until ctx ends, and then until those that are under way
// are answered.
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
	// It is not run: it measures, and front is what listens.
	hooks := webhook.NewServer(webhook.Options{Port: o.Port})
	room := NewRoom()
	namespaces := &ClusterNamespaces{Cache: mgr.GetCache(), Live: newFew(mgr.GetAPIReader())}
	for path, labelled := range map[string]bool{NamespacePath: true, PodPath: false} {
		hooks.Register(path, sendAway(&stopping, &Handler{
			Engine: o.Engine, Namespaces: namespaces, Room: room, Metrics: counters, Log: o.Log, Labelled: labelled,
		}))
	}
	validator := &Validator{Engine: o.Engine, Namespaces: namespaces, Room: room, Metrics: counters, Log: o.Log}
	for _, path := range []string{WorkloadPath, ValidateNamespacePath} {
		hooks.Register(path, sendAway(&stopping, validator))
	}
	front, err := newFront(o, hooks.WebhookMux())
	if err != nil {
		return err
	}
	runnables := []manager.Runnable{o.Certificate, front}
	if o.Mesh != nil {
		runnables = append(runnables, o.Mesh)
	}
	for _, r := range runnables {
		if err := mgr.Add(r); err != nil {
			return fmt.Errorf("add to manager: %w", err)
		}
	}

	// The cache is filled from the start: the first review must not wait for it.
	if _, err := mgr.GetCache().GetInformer(ctx, NamespaceMetadata(), cache.BlockUntilSynced(false)); err != nil {
		return fmt.Errorf("watch namespaces: %w", err)
	}
	ready := func(r *http.Request) error { return readiness(r, o, mgr, &stopping) }
	ports := Ports{
		HealthAddress: cmp.Or(o.HealthAddress, ":8081"), MetricsAddress: cmp.Or(o.MetricsAddress, ":8080"),
		Ready: map[string]healthz.Checker{"isthmus": ready}, Metrics: metrics.Registry, Log: o.Log,
	}
	if err := ports.AddTo(mgr); err != nil {
		return err
	}

	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() {
		<-ctx.Done()
		stopping.Store(true)
		o.Log.Info("stopping: not ready any more, reviews are answered until the delay is over", "delay", o.ShutdownDelay.String())
		select {
		case <-time.After(o.ShutdownDelay):
		case <-running.Done():
		}
		stop()
	}()
	return mgr.Start(running)
}

// sendAway has clients open a new connection for their next review once the
// server stops. A connection that is kept is closed at the end while it is idle,
// and a review that is sent at that moment is lost: API servers keep theirs, and
// do not try a POST again.
func sendAway(stopping *atomic.Bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// readiness says the first thing that is missing.
func readiness(r *http.Request, o ServerOptions, mgr manager.Manager, stopping *atomic.Bool) error {
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
		return errors.New("namespaces: the cache is not filled yet")
	}
	return nil
}

func newManager(o ServerOptions) (manager.Manager, error) {
	grace := time.Minute
	mgr, err := manager.New(o.Config, manager.Options{
		Logger: o.Log,
		// Ports serves both.
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress:  "0",
		GracefulShutdownTimeout: &grace,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			NamespaceMetadata(): {Transform: TrimNamespace},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("make manager: %w", err)
	}
	return mgr, nil
}
