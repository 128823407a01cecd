package restart

import (
	"context"
	"fmt"

	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The chart's Deployments; their names are fixed.
const (
	controllerDeployment = policy.ControllerName
	webhookDeployment    = "isthmus-webhook"
)

// settingsChecksum is the annotation that the chart sets on its pods, so that they are
// rolled out again when the settings change.
const settingsChecksum = "checksum/settings"

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
			if !w.rollout.complete {
				return fmt.Errorf("%s is not rolled out: %s", w, w.rollout.waitsFor)
			}
			if w.available == 0 {
				return fmt.Errorf("%s has no pod that is available", w)
			}
			if len(w.template.Spec.Containers) == 0 {
				return fmt.Errorf("%s has no container", w)
			}
			versions = append(versions, w.template.Spec.Containers[0].Image+", settings "+w.template.Annotations[settingsChecksum])
		}
		if versions[0] != versions[1] {
			return fmt.Errorf("the controller runs %s and the webhook %s", versions[0], versions[1])
		}
		return nil
	}
}
