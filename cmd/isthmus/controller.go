package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
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
	"github.com/isthmus-mesh/isthmus/internal/mesh"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
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
	survey, look       time.Duration
}

func newControllerCommand() *cobra.Command {
	f := &controllerFlags{}
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Keep the Secrets of injected edges true",
		Long: "Keep, for every opted-in namespace, the Secret with the certificate of its edges: issued, checked,\n" +
			"renewed at a third of its life, and never torn. It also keeps the webhook's own certificate authority.\n" +
			"The chart runs two of it, of which one leads; by hand it is of use for development.",
		Example: "  isthmus controller --namespace isthmus-system --ca-secret isthmus-webhook-ca\n" +
			"  isthmus controller --kubeconfig ./kubeconfig --leader-elect=false --settings settings.yaml",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	f.add(flags)
	flags.StringVar(&f.rootsNamespace, "roots-namespace", "", "namespace whose ConfigMap holds the roots of the mesh (default: --istio-namespace, else istio-system)")
	flags.StringVar(&f.issuer.Name, "cert-manager-issuer", "", "issuer of the source cert-manager; empty makes that source unavailable")
	flags.StringVar(&f.issuer.Kind, "cert-manager-issuer-kind", "Issuer", "kind of the issuer: Issuer, in the edge's own namespace, or ClusterIssuer")
	flags.StringVar(&f.issuer.Group, "cert-manager-issuer-group", "cert-manager.io", "API group of the issuer")
	flags.BoolVar(&f.leaderElect, "leader-elect", true, "work only while holding the Lease "+controller.Name)
	flags.DurationVar(&f.caTTL, "ca-ttl", serving.DefaultCATTL, "lifetime of the webhook's CA")
	flags.DurationVar(&f.propagation, "propagation-delay", serving.DefaultPropagationDelay, "how long a new CA of the webhook is trusted before it signs")
	flags.DurationVar(&f.survey, "survey-interval", controller.DefaultSurveyEvery, "how often the pods of an opted-in namespace are listed, to find those that miss the injection")
	flags.DurationVar(&f.look, "look-interval", controller.DefaultLookEvery, "how often a Secret is read while nothing is due; longer by itself with more than 300 Secrets")
	return cmd
}

func (f *controllerFlags) check() error {
	switch {
	case f.namespace == "" && (f.leaderElect || f.caSecret != ""):
		return usagef("--namespace is empty and POD_NAMESPACE is not set: want the namespace of the Lease %s", controller.Name)
	case f.survey <= 0 || f.look <= 0:
		return usagef("--survey-interval %s and --look-interval %s: want positive durations", f.survey, f.look)
	}
	return f.serverFlags.check()
}

func (f *controllerFlags) run(cmd *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	log := f.logger(cmd)
	options, err := engineOptions(f.settings, f.profiles)
	if err != nil {
		return err
	}
	config, err := f.restConfig()
	if err != nil {
		return err
	}
	// Enough to have new roots in 5,000 Secrets within two minutes (a read and a
	// write each); the API server's own priority and fairness bounds it too.
	config.QPS, config.Burst = 100, 200
	// What is held is small and lives long: a heap of one and a half times that,
	// instead of twice, costs little time. See make bench-scale.
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
	mgr, err := manager.New(config, manager.Options{
		Cache:  cached,
		Client: client.Options{Cache: &client.CacheOptions{}},
		Logger: log, Metrics: metricsserver.Options{BindAddress: f.metricsAddress}, HealthProbeBindAddress: f.healthAddress,
		LeaderElection: f.leaderElect, LeaderElectionID: controller.Name, LeaderElectionNamespace: f.namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return nil, err
	}
	return mgr, errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping))
}

// addAll wires the controller, what it reads from, and the keeper of the
// webhook's certificate authority.
func (f *controllerFlags) addAll(mgr manager.Manager, options inject.Options, log logr.Logger) error {
	kube, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	objects, err := dynamic.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	secrets, err := publish.NewClient(mgr.GetConfig())
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	settings, err := f.meshSettings(kube, options.Settings.Mesh, log)
	if err != nil {
		return err
	}
	options.Mesh = settings.mesh
	roots, err := mesh.NewRoots(mesh.RootsOptions{
		Client: kube, Namespace: cmp.Or(f.rootsNamespace, f.istioNamespace, mesh.DefaultNamespace), Log: log.WithName("roots"),
		Mesh: func() (patches.Mesh, error) { return settings.mesh("") },
	})
	if err != nil {
		return err
	}
	engine, err := inject.New(options)
	if err != nil {
		return err
	}
	sources, err := f.sources(kube, objects, secrets, roots, log)
	if err != nil {
		return err
	}
	runnables := append(settings.runnables, roots)
	if f.caSecret != "" {
		keeper, err := serving.NewKeeper(serving.Options{
			Client: kube, Namespace: f.namespace, SecretName: f.caSecret, ConfigurationName: f.configuration,
			CATTL: f.caTTL, PropagationDelay: f.propagation, Log: log.WithName("serving"),
		})
		if err != nil {
			return err
		}
		runnables = append(runnables, keeper)
	}
	for _, r := range runnables {
		if err := mgr.Add(r); err != nil {
			return err
		}
	}
	ready := func() error {
		if !roots.HasSynced() {
			return errors.New("the roots of the mesh are not read yet")
		}
		return settings.ready()
	}
	if err := mgr.AddReadyzCheck("mesh", func(*http.Request) error { return ready() }); err != nil {
		return err
	}
	return controller.Add(mgr, controller.Options{
		Settings: options.Settings, Engine: engine, Mesh: options.Mesh, Roots: roots, Secrets: secrets,
		Sources: sources, Dynamic: objects, Ready: ready, Registerer: metrics.Registry, SurveyEvery: f.survey, LookEvery: f.look,
	})
}

// sources are where certificates come from.
func (f *controllerFlags) sources(
	kube kubernetes.Interface, objects dynamic.Interface, secrets *publish.Client, roots *mesh.Roots, log logr.Logger,
) (map[policy.Source]controller.Source, error) {
	ca, err := istioca.New(istioca.Options{Client: kube, Roots: roots.Roots, Log: log.WithName("istio-ca")})
	if err != nil {
		return nil, err
	}
	issued, err := certmanager.New(certmanager.Options{Dynamic: objects, Secrets: secrets, Issuer: f.issuer})
	if err != nil {
		return nil, err
	}
	return map[policy.Source]controller.Source{
		policy.IstioCA: ca, policy.CertManager: issued, policy.Mirror: &mirror.Mirror{Secrets: secrets},
	}, nil
}
