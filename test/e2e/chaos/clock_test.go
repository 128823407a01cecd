//go:build chaos

package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The clocks of Isthmus' programs jump, as when an administrator sets the clock of a machine.
// For this test the programs are built with a modified time.Now (test/tools/cluster, image
// isthmus-clock). By the clock of this test nothing invalid may be published, and valid
// certificates stay.
func TestClocksJump(t *testing.T) {
	trial(t, "clock jumped", func(ctx context.Context, tr *Trial) {
		tr.ExpectRefusedPods("the API server refuses a certificate that the webhook signs while its clock is ahead")
		require.NoError(tr, cluster.ImportImage(ctx, "isthmus-clock"))
		tr.Cleanup(func() { assert.NoError(tr, cluster.InstallIsthmus(context.Background())) })
		require.NoError(tr, cluster.InstallIsthmus(ctx, "image.repository=isthmus.test/isthmus-clock"))
		e := tr.deployPublishingEdge(ctx, 1)
		// The controller renews another Secret every 20 seconds, so that the test soon sees
		// it continue.
		controllerNamespace := tr.Namespace + "-kept"
		tr.createNamespace(controllerNamespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, map[string]string{policy.ServiceAccountKey: "default", policy.CertTTLKey: shortLifetime})
		versions := map[*environment.SecretHistory]string{e.history: "", tr.WatchSecret(controllerNamespace, "default"): ""}
		tr.await("the controller has published the Secret", func(context.Context) error { return checkSecretsReplaced(versions) })

		// The webhook's replicas start while their clock is two hours ahead, which is then
		// corrected.
		_, err := cluster.Kubectl(ctx, "", "--namespace", node.Namespace, "set", "env", "deployment/isthmus-webhook", "CLOCK_JUMP=2h")
		require.NoError(tr, err)
		_, err = cluster.Kubectl(ctx, "", "--namespace", node.Namespace, "rollout", "status", "deployment/isthmus-webhook", "--timeout=3m")
		require.NoError(tr, err)
		tr.await("a pod is refused", func(context.Context) error {
			if tr.Pods.Snapshot().Refused == 0 {
				return errors.New(tr.Pods.Snapshot().String())
			}
			return nil
		})
		restarts := tr.containerRestarts()
		tr.setClockOffset(tr.replicas(webhookComponent), 0)
		clockRestored, injected := time.Now(), tr.Pods.Snapshot().Injected

		// Controller and publisher see every certificate as expired, then as not yet valid.
		for _, jump := range []struct {
			by     time.Duration
			reason string
		}{{10 * time.Minute, "expired"}, {-10 * time.Minute, "not-yet-valid"}} {
			publishers, err := e.pods(ctx)
			require.NoError(tr, err)
			all := append(tr.replicas(controllerComponent), publishers...)
			tr.setClockOffset(all, jump.by)
			tr.await("Events report the rejected certificates", func(ctx context.Context) error {
				for _, edge := range edges.Edges {
					if err := checkEvent(ctx, edge.Namespace, "Rejected", time.Time{}, jump.reason); err != nil {
						return err
					}
				}
				return nil
			})
			tr.setClockOffset(all, 0)
			for history := range versions {
				versions[history] = history.Written()
			}
			tr.AwaitRecovery(fmt.Sprintf("after %s", jump.by), func(context.Context) error { return checkSecretsReplaced(versions) })
		}
		tr.AwaitRecovery("webhook", func(context.Context) error {
			if seen := tr.Pods.Snapshot(); seen.Injected < injected+5 {
				return errors.New(seen.String())
			}
			return nil
		})
		tr.Logf("the webhook signed a new certificate within %s", time.Since(clockRestored).Round(time.Second))
		assert.Equal(tr, restarts, tr.containerRestarts(), "restarts of Isthmus")
		for name, restarts := range e.containerRestarts(ctx, tr) {
			assert.Zero(tr, restarts, "restarts of container %s", name)
		}
		e.recordTraffic(tr)
	})
}

// secretVersions returns the resource versions of the Secrets that the trial watches.
func (tr *Trial) secretVersions() map[*environment.SecretHistory]string {
	versions := map[*environment.SecretHistory]string{}
	for _, history := range tr.histories {
		if version := history.Written(); version != "" {
			versions[history] = version
		}
	}
	return versions
}

// setClockOffset sets the difference between the clock of the programs in these pods and the
// machine's clock.
func (tr *Trial) setClockOffset(pods []corev1.Pod, by time.Duration) {
	tr.Helper()
	for i := range pods {
		tr.await("set the clock of a pod", func(ctx context.Context) error {
			body, err := cluster.Client.CoreV1().RESTClient().Post().Namespace(pods[i].Namespace).Resource("pods").Name(pods[i].Name+":10999").
				SubResource("proxy").Suffix("jump").Param("by", by.String()).DoRaw(ctx)
			if err != nil {
				return err
			}
			at, err := time.Parse(time.RFC3339, strings.TrimSpace(string(body)))
			if d := time.Until(at) - by; err == nil && d.Abs() > time.Minute {
				err = fmt.Errorf("the clock of pod %s is %s", pods[i].Name, at)
			}
			return err
		})
	}
}
