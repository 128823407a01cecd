package restart

import (
	"context"

	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The chart's Deployments; their names are fixed.
const (
	controllerDeployment = policy.ControllerName
	webhookDeployment    = "isthmus-webhook"
)

// CheckWebhook returns a check that succeeds when every replica of the webhook and
// of the controller runs the same image with the same settings. While they are
// being rolled out, an old webhook would inject the old template again, and an
// old controller would consider the pods of the new webhook stale.
func CheckWebhook(kube kubernetes.Interface, namespace string) func(context.Context) error {
	return func(ctx context.Context) error {
		var versions []string
		for _, name := range []string{controllerDeployment, webhookDeployment} {
			w, err := readWorkload(ctx, kube, deployment, namespace, name)
			if err != nil {
				return err
			}
			version, err := versionOf(w)
			if err != nil {
				return err
			}
			versions = append(versions, version)
		}
		return compareVersions(versions[0], versions[1])
	}
}
