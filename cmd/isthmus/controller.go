package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-mesh/isthmus/internal/certs/certmanager"
	"github.com/isthmus-mesh/isthmus/internal/certs/istioca"
	"github.com/isthmus-mesh/isthmus/internal/certs/mirror"
	"github.com/isthmus-mesh/isthmus/internal/controller"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/mesh"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/internal/restart"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
	"github.com/isthmus-mesh/isthmus/webhook/serving"
)

// run starts the controller, and everything that runs beside it, and blocks until the
// command's context ends.
func (f *controllerFlags) run(cmd *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	log, options, config, err := f.setUp(cmd)
	if err != nil {
		return err
	}
	// Enough to write new roots into 5,000 Secrets within two minutes, with a read and a
	// write for each. The API server's priority and fairness limits the requests too.
	config.QPS, config.Burst = 100, 200
	// The live heap is small and long-lived, so collecting at one and a half times its
	// size instead of twice costs little time. See make bench-scale.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	mgr, err := f.manager(config, options.Settings, log)
	if err != nil {
		return err
	}
	if err := f.addAll(mgr, options, log); err != nil {
		return err
	}
	return mgr.Start(cmd.Context())
}

func (f *controllerFlags) manager(config *rest.Config, settings inject.Settings, log logr.Logger) (manager.Manager, error) {
	cached, err := controller.CacheOptions(settings.ControllerNamespaces...)
	if err != nil {
		return nil, err
	}
	return manager.New(config, manager.Options{
		Cache:  cached,
		Client: client.Options{Cache: &client.CacheOptions{}},
		// webhook.HealthAndMetrics serves both.
		Logger: log, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		LeaderElection: f.leaderElect, LeaderElectionID: controller.Name, LeaderElectionNamespace: f.namespace,
		LeaderElectionReleaseOnCancel: true,
	})
}

// clients are the clients of the API server.
type clients struct {
	kube    kubernetes.Interface
	dynamic dynamic.Interface
	secrets *publish.Client
}

func newClients(mgr manager.Manager) (c clients, err error) {
	if c.kube, err = kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient()); err != nil {
		return c, fmt.Errorf("create client: %w", err)
	}
	if c.dynamic, err = dynamic.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient()); err != nil {
		return c, fmt.Errorf("create client: %w", err)
	}
	if c.secrets, err = publish.NewClient(mgr.GetConfig()); err != nil {
		return c, fmt.Errorf("create client: %w", err)
	}
	return c, nil
}

// addAll adds the controller to the manager, with the watchers that it reads from and
// the rotation of the webhook's certificate authority.
func (f *controllerFlags) addAll(mgr manager.Manager, options inject.Options, log logr.Logger) error {
	c, err := newClients(mgr)
	if err != nil {
		return err
	}
	m, err := f.addMeshWatchers(mgr, c.kube, options.Settings.Mesh, log)
	if err != nil {
		return err
	}
	monitoring := webhook.HealthAndMetrics{
		HealthAddress: f.healthAddress, MetricsAddress: f.metricsAddress, Metrics: metrics.Registry, Log: log,
		Ready: map[string]healthz.Checker{"ping": healthz.Ping, "mesh": func(*http.Request) error { return m.ready() }},
	}
	if err := monitoring.AddTo(mgr); err != nil {
		return err
	}
	if err := f.addCARotation(mgr, c.kube, log); err != nil {
		return err
	}
	options.Mesh, options.Injector = m.settings, m.injector
	engine, err := inject.New(options)
	if err != nil {
		return err
	}
	sources, err := f.sources(c, m.roots, log)
	if err != nil {
		return err
	}
	recorder := events.NewRecorder(func(ctx context.Context, event *eventsv1.Event) error {
		return mgr.GetClient().Create(ctx, event)
	}, controller.Name, mgr.GetLogger().WithName(controller.Name))
	if err := mgr.Add(recorder); err != nil {
		return err
	}
	reportStale, err := f.addRestarter(mgr, restart.Options{
		Kube: c.kube, ReadNamespace: controller.NewNamespaceReader(mgr.GetClient(), options.Settings), Engine: engine, Events: recorder, Ready: m.ready,
	})
	if err != nil {
		return err
	}
	return controller.Add(mgr, controller.Options{
		Settings: options.Settings, Engine: engine, Mesh: m.settings, Roots: m.roots, Ready: m.ready,
		Secrets: c.secrets, Dynamic: c.dynamic, Sources: sources, Events: recorder,
		Registerer: metrics.Registry, ScanInterval: f.scanInterval, CheckInterval: f.checkInterval,
		ReportStale: reportStale,
	})
}

// addRestarter adds what restarts stale workloads. It returns the function that the
// controller reports stale pods to; nil when restarts are off.
func (f *controllerFlags) addRestarter(mgr manager.Manager, o restart.Options) (func(namespace string, pods []controller.StalePod), error) {
	if !f.restarts.enabled {
		return nil, nil
	}
	o.Pods, o.Registerer, o.Log = mgr.GetAPIReader(), metrics.Registry, mgr.GetLogger().WithName(controller.Name)
	o.Namespace, o.Timeout, o.Settle = f.namespace, f.restarts.timeout, f.restarts.settle
	restarter, err := restart.New(o)
	if err != nil {
		return nil, err
	}
	report := func(namespace string, pods []controller.StalePod) {
		list := make([]restart.StalePod, len(pods))
		for i, pod := range pods {
			list[i] = restart.StalePod(pod)
		}
		restarter.Report(namespace, list)
	}
	return report, mgr.Add(restarter)
}

// watchedMesh is the mesh as the watchers of the manager see it.
type watchedMesh struct {
	settings func(revision string) (patches.Mesh, error)
	// injector is nil if the discovery is disabled.
	injector func(revision string) (inject.Injector, error)
	roots    *mesh.Roots
	ready    func() error
}

// addMeshWatchers adds the watchers of the mesh's settings and roots to the manager.
// The readiness of the controller waits for both.
func (f *controllerFlags) addMeshWatchers(mgr manager.Manager, kube kubernetes.Interface, explicit patches.Mesh, log logr.Logger) (watchedMesh, error) {
	static := explicit.WithDefaults()
	m := watchedMesh{settings: func(string) (patches.Mesh, error) { return static, nil }}
	shared := func() (patches.Mesh, error) { return static, nil }
	var extra func() ([]*x509.Certificate, error)
	watcher, err := f.watcher(kube, explicit, log)
	if err != nil {
		return m, err
	}
	if watcher != nil {
		m.settings, m.injector, shared, extra = watcher.Mesh, watcher.Injector, watcher.SharedMesh, watcher.ExtraRoots
		if err := mgr.Add(watcher); err != nil {
			return m, err
		}
	}
	m.roots, err = mesh.NewRoots(mesh.RootsOptions{
		Client: kube, Namespace: cmp.Or(f.rootsNamespace, f.istioNamespace, mesh.DefaultNamespace), Log: log.WithName("roots"),
		Mesh: shared, Extra: extra,
	})
	if err != nil {
		return m, err
	}
	m.ready = func() error {
		if !m.roots.HasSynced() {
			return errors.New("the root certificates of the mesh have not been read yet")
		}
		if watcher != nil {
			return watcher.Ready()
		}
		return nil
	}
	return m, mgr.Add(m.roots)
}

// addCARotation makes the leader rotate the webhook's CA and caBundle, if --ca-secret
// is set.
func (f *controllerFlags) addCARotation(mgr manager.Manager, kube kubernetes.Interface, log logr.Logger) error {
	if f.caSecret == "" {
		return nil
	}
	rotator, err := serving.NewRotator(serving.Options{
		Client: kube, Namespace: f.namespace, SecretName: f.caSecret, ConfigurationName: f.configuration,
		CATTL: f.caTTL, PropagationDelay: f.propagation, Log: log.WithName("serving"),
	})
	if err != nil {
		return err
	}
	return mgr.Add(rotator)
}

// sources creates the sources of certificates.
func (f *controllerFlags) sources(c clients, roots *mesh.Roots, log logr.Logger) (map[policy.Source]controller.Source, error) {
	ca, err := istioca.New(istioca.Options{Client: c.kube, Roots: roots.Published, Log: log.WithName("istio-ca")})
	if err != nil {
		return nil, err
	}
	issued, err := certmanager.New(certmanager.Options{Dynamic: c.dynamic, Secrets: c.secrets, Issuer: f.issuer})
	if err != nil {
		return nil, err
	}
	return map[policy.Source]controller.Source{
		policy.IstioCA: ca, policy.CertManager: issued, policy.Mirror: &mirror.Mirror{Secrets: c.secrets},
	}, nil
}
