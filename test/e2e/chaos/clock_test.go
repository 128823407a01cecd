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

// The clocks of Isthmus' own programs jump, as those of a machine whose clock
// somebody sets: they are built with another time.Now for that; see test/tools/cluster,
// image isthmus-clock. By the clock of this test nothing wrong may be published, and
// what is right stays.
func TestClocksJump(t *testing.T) {
	trial(t, "clock jumped", func(ctx context.Context, tr *Trial) {
		tr.ExpectRefusedPods("no API server takes the certificate that a webhook signs while its clock is ahead")
		require.NoError(tr, cluster.ImportImage(ctx, "isthmus-clock"))
		tr.Cleanup(func() { assert.NoError(tr, cluster.InstallIsthmus(context.Background())) })
		require.NoError(tr, cluster.InstallIsthmus(ctx, "image.repository=isthmus.test/isthmus-clock"))
		e := tr.deployPublishingEdge(ctx, 1)
		// And a Secret of the controller's that is renewed every 20 seconds, so that it is
		// soon seen that it goes on.
		controllerNamespace := tr.Namespace + "-kept"
		tr.createNamespace(controllerNamespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, map[string]string{policy.ServiceAccountKey: "default", policy.CertTTLKey: shortLifetime})
		versions := map[*environment.SecretHistory]string{e.history: "", tr.WatchSecret(controllerNamespace, "default"): ""}
		tr.await("its Secret", func(context.Context) error { return checkSecretsReplaced(versions) })

		// The webhook's replicas start while their clock is two hours ahead, which is
		// then set right.
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

		// Controller and publisher believe that every certificate is over, then that
		// none has begun.
		for _, jump := range []struct {
			by     time.Duration
			reason string
		}{{10 * time.Minute, "expired"}, {-10 * time.Minute, "not-yet-valid"}} {
			publishers, err := e.pods(ctx)
			require.NoError(tr, err)
			all := append(tr.replicas(controllerComponent), publishers...)
			tr.setClockOffset(all, jump.by)
			tr.await("it is told", func(ctx context.Context) error {
				for _, edge := range edges.Edges {
					if err := checkEvent(ctx, edge.Namespace, "Rejected", time.Time{}, jump.reason); err != nil {
						return err
					}
				}
				return nil
			})
			tr.setClockOffset(all, 0)
			for l := range versions {
				versions[l] = l.Current().ResourceVersion
			}
			tr.AwaitRecovery(fmt.Sprintf("after %s", jump.by), func(context.Context) error { return checkSecretsReplaced(versions) })
		}
		tr.AwaitRecovery("webhook", func(context.Context) error {
			if seen := tr.Pods.Snapshot(); seen.Injected < injected+5 {
				return errors.New(seen.String())
			}
			return nil
		})
		tr.Logf("the webhook signed anew within %s", time.Since(clockRestored).Round(time.Second))
		assert.Equal(tr, restarts, tr.containerRestarts(), "restarts of Isthmus")
		for name, restarts := range e.containerRestarts(ctx, tr) {
			assert.Zero(tr, restarts, "restarts of container %s", name)
		}
		e.recordTraffic(tr)
	})
}

// secretVersions are those of the Secrets that the trial follows.
func (tr *Trial) secretVersions() map[*environment.SecretHistory]string {
	versions := map[*environment.SecretHistory]string{}
	for _, l := range tr.histories {
		if current := l.Current(); current != nil {
			versions[l] = current.ResourceVersion
		}
	}
	return versions
}

// setClockOffset sets how far the clocks of our programs in these pods are from the machine's.
func (tr *Trial) setClockOffset(pods []corev1.Pod, by time.Duration) {
	tr.Helper()
	for i := range pods {
		tr.await("jump", func(ctx context.Context) error {
			body, err := cluster.Client.CoreV1().RESTClient().Post().Namespace(pods[i].Namespace).Resource("pods").Name(pods[i].Name+":10999").
				SubResource("proxy").Suffix("jump").Param("by", by.String()).DoRaw(ctx)
			if err != nil {
				return err
			}
			at, err := time.Parse(time.RFC3339, strings.TrimSpace(string(body)))
			if d := time.Until(at) - by; err == nil && d.Abs() > time.Minute {
				err = fmt.Errorf("pod %s says it is %s", pods[i].Name, at)
			}
			return err
		})
	}
}
