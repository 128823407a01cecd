package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
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

// controllerFlags are the flags of the controller. The chart sets them.
type controllerFlags struct {
	serverFlags
	issuer             cmmeta.IssuerReference
	leaderElect        bool
	rootsNamespace     string
	caTTL, propagation time.Duration
	scanInterval       time.Duration
	checkInterval      time.Duration
	restarts           restartFlags
}

// restartFlags are those about restarts of stale workloads.
type restartFlags struct {
	enabled         bool
	timeout, settle time.Duration
}

func newControllerCommand() *cobra.Command {
	f := &controllerFlags{}
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Maintain the certificate Secrets of opted-in namespaces",
		Long: "Maintain, for every opted-in namespace, the Secret with the certificate of its edges: key, certificate\n" +
			"and roots are verified, renewed after a third of the lifetime, and always written together. The controller\n" +
			"also maintains the webhook's own certificate authority.\n" +
			"The Helm chart runs two replicas with leader election; run this command yourself only for development.",
		Example: "  isthmus controller --namespace isthmus-system --ca-secret isthmus-webhook-ca\n" +
			"  isthmus controller --kubeconfig ./kubeconfig --leader-elect=false --settings settings.yaml",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	f.add(flags)
	flags.StringVar(&f.rootsNamespace, "roots-namespace", "", "namespace of the ConfigMap with the root certificates of the mesh (default: --istio-namespace, else istio-system)")
	flags.StringVar(&f.issuer.Name, "cert-manager-issuer", "", "issuer for the source cert-manager; if empty, that source is not available")
	flags.StringVar(&f.issuer.Kind, "cert-manager-issuer-kind", "Issuer", "kind of the issuer: Issuer (in the namespace of the edge) or ClusterIssuer")
	flags.StringVar(&f.issuer.Group, "cert-manager-issuer-group", "cert-manager.io", "API group of the issuer")
	flags.BoolVar(&f.leaderElect, "leader-elect", true, "work only while holding the Lease "+controller.Name)
	flags.DurationVar(&f.caTTL, "ca-ttl", serving.DefaultCATTL, "lifetime of the webhook's CA")
	flags.DurationVar(&f.propagation, "propagation-delay", serving.DefaultPropagationDelay, "how long a new CA of the webhook is distributed before it signs certificates")
	flags.DurationVar(&f.scanInterval, "survey-interval", controller.DefaultScanInterval, "how often the pods of an opted-in namespace are scanned for edges that are not injected")
	flags.DurationVar(&f.checkInterval, "look-interval", controller.DefaultCheckInterval, "how often a Secret is checked while nothing is due; increases automatically with more than 300 Secrets")
	flags.BoolVar(&f.restarts.enabled, "restart-stale", false, "restart stale workloads that ask for it with "+policy.RestartKey+`: "true", one at a time`)
	flags.DurationVar(&f.restarts.timeout, "restart-timeout", restart.DefaultTimeout, "how long such a workload may take to roll out before an Event reports it; the others keep waiting")
	flags.DurationVar(&f.restarts.settle, "restart-settle", restart.DefaultSettle, "how long every replica of the webhook must have served a template before anything is restarted for it")
	return cmd
}

func (f *controllerFlags) check() error {
	switch {
	case f.namespace == "" && (f.leaderElect || f.caSecret != ""):
		return usagef("--namespace is empty and POD_NAMESPACE is not set: want the namespace of the Lease %s", controller.Name)
	case f.scanInterval <= 0 || f.checkInterval <= 0:
		return usagef("--survey-interval %s and --look-interval %s: want positive durations", f.scanInterval, f.checkInterval)
	case f.restarts.enabled && f.namespace == "":
		return usagef("--restart-stale without --namespace, and POD_NAMESPACE is not set: want the namespace of the ConfigMap %s", restart.ConfigMapName)
	case f.restarts.timeout <= 0 || f.restarts.settle <= 0:
		return usagef("--restart-timeout %s and --restart-settle %s: want positive durations", f.restarts.timeout, f.restarts.settle)
	}
	return f.serverFlags.check()
}

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
	mgr, err := f.manager(config, log)
	if err != nil {
		return err
	}
	if err := f.addAll(mgr, options, log); err != nil {
		return err
	}
	return mgr.Start(cmd.Context())
}

func (f *controllerFlags) manager(config *rest.Config, log logr.Logger) (manager.Manager, error) {
	cached, err := controller.CacheOptions()
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
		Kube: c.kube, Namespaces: controller.Namespaces(mgr.GetClient(), options.Settings), Engine: engine, Events: recorder, Ready: m.ready,
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
	watcher, err := f.watcher(kube, explicit, log)
	if err != nil {
		return m, err
	}
	if watcher != nil {
		m.settings, m.injector, shared = watcher.Mesh, watcher.Injector, watcher.SharedMesh
		if err := mgr.Add(watcher); err != nil {
			return m, err
		}
	}
	m.roots, err = mesh.NewRoots(mesh.RootsOptions{
		Client: kube, Namespace: cmp.Or(f.rootsNamespace, f.istioNamespace, mesh.DefaultNamespace), Log: log.WithName("roots"),
		Mesh: shared,
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
	ca, err := istioca.New(istioca.Options{Client: c.kube, Roots: roots.Roots, Log: log.WithName("istio-ca")})
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
