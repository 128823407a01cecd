package main

import (
	"time"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/internal/controller"
	"github.com/isthmus-mesh/isthmus/internal/restart"
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

// restartFlags are the flags about restarts of stale workloads.
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
