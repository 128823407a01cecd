//go:build e2e

package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/test/framework/pods"
	"github.com/isthmus-mesh/isthmus/test/framework/traffic"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	configurationName = "isthmus-injector"
	caSecret          = "isthmus-webhook-ca"
	// quiet is a namespace whose workload asks for no restart.
	quiet = "lifecycle-quiet"
	// patience is how long anything may take on a busy machine: the rotation of the CA
	// takes twice two minutes on any.
	patience = 10 * time.Minute
)

// asking are namespaces with a workload each that asks for a restart: by its
// namespace, and, the real edge, by itself.
var asking = []string{"lifecycle-asking", "lifecycle-sidecar"}

// TestLifecycle has a release lose its CA, and upgrades, rolls back and uninstalls it
// while that heals, while pods are created and requests go through an edge all the
// time. In the end the release is what it was. The CA takes its time: the tests that
// run side by side begin meanwhile, and the last parts wait for them.
func TestLifecycle(t *testing.T) {
	l := newLife(t)

	t.Run("the CA is lost and an upgrade brings one back", func(t *testing.T) { l.loseCA(t) })
	t.Run("an upgrade with another template", func(t *testing.T) { l.upgradeTemplate(t) })
	t.Run("a rollback", func(t *testing.T) { l.rollback(t) })
	t.Run("a second release is refused", func(t *testing.T) { l.second(t) })
	t.Parallel()
	t.Run("the CA has rotated", func(t *testing.T) { l.rotated(t) })
	alone(t)
	t.Run("a certificate from elsewhere and back", func(t *testing.T) { l.otherSource(t) })
	t.Run("uninstalled and installed again", func(t *testing.T) { l.uninstall(t) })
}

// life is the release, and what goes on beside its changes.
type life struct {
	*node.Cluster
	// created are the pods that are asked for all the time.
	created *pods.Creator
	// edges are those that requests go through all the time.
	edges *traffic.Traffic
	// values is the file of the release's values as they were.
	values string
	// base is the revision to roll back to.
	base int
	// lost are the roots that the API server verified the webhook by before.
	lost [][]byte
}

func newLife(t *testing.T) *life {
	t.Helper()
	l := &life{Cluster: cluster, values: filepath.Join(t.TempDir(), "values.json")}
	values, err := l.Helm(t.Context(), "get", "values", node.Release, "--namespace", node.Namespace, "--output", "json")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(l.values, []byte(values), 0o600))
	l.namespace(t, quiet, nil)
	l.namespace(t, asking[0], map[string]string{policy.RestartKey: "true"})
	l.deploy(t, quiet, "still")
	l.deploy(t, asking[0], "restarted")
	l.edges, err = traffic.Deploy(t.Context(), traffic.Options{Config: l.Admin, Prefix: "lifecycle"})
	t.Cleanup(func() {
		if err := l.edges.Remove(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("remove the edges: %v", err)
		}
	})
	require.NoError(t, err)
	_, err = l.Client.AppsV1().Deployments(asking[1]).Patch(t.Context(), "edge", types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"`+policy.RestartKey+`":"true"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	l.awaitRolled(t, quiet, asking[0], asking[1])
	l.created = pods.Start(l.Client, quiet, pods.Edge("created"), 50*time.Millisecond)
	t.Cleanup(func() { l.created.Stop() })
	return l
}

// loseCA deletes the Secret, which the controller may not create: the replicas
// serve on, and an upgrade brings it back, from which on a new CA takes over.
func (l *life) loseCA(t *testing.T) {
	l.lost = l.roots(t)
	require.NotEmpty(t, l.lost)
	require.NoError(t, l.Client.CoreV1().Secrets(node.Namespace).Delete(t.Context(), caSecret, metav1.DeleteOptions{}))
	l.askedSince(t, 100)
	l.unharmed(t, "without the Secret of the CA")

	l.upgrade(t, "--set", "controller.restartStale.enabled=true,controller.restartStale.settle=5s")
	l.base = l.revision(t)
	l.await(t, func(context.Context) error {
		if now := l.roots(t); len(now) <= len(l.lost) {
			return fmt.Errorf("the caBundle holds %d roots", len(now))
		}
		return nil
	})
	l.unharmed(t, "an upgrade, and a new CA beside the old one")
}

// upgradeTemplate changes what pods get: those that were injected are stale, and are
// made anew only where that is asked for.
func (l *life) upgradeTemplate(t *testing.T) {
	still, others := l.uids(t, quiet), l.uids(t, asking...)
	together := l.followRollouts(t, asking...)
	l.upgrade(t, "--set", "defaults.certTTL=7h")
	l.awaitState(t, quiet, "stale", 2)
	l.awaitNew(t, others, asking...)
	assert.Empty(t, together(), "one workload after the other")
	for _, namespace := range asking {
		l.awaitState(t, namespace, "stale", 0)
	}
	assert.Equal(t, still, l.uids(t, quiet), "who does not ask is left alone")
	l.unharmed(t, "an upgrade that changes the template, and the restarts")
}

// rollback brings the old template back: what was stale is current, and what was
// made anew is stale in turn.
func (l *life) rollback(t *testing.T) {
	still, others := l.uids(t, quiet), l.uids(t, asking...)
	together := l.followRollouts(t, asking...)
	_, err := l.Helm(t.Context(), "rollback", node.Release, strconv.Itoa(l.base), "--namespace", node.Namespace, "--wait", "--timeout", "10m")
	require.NoError(t, err)
	l.awaitState(t, quiet, "stale", 0)
	l.awaitState(t, quiet, "injected", 2)
	assert.Equal(t, still, l.uids(t, quiet), "they are the same pods")
	l.awaitNew(t, others, asking...)
	assert.Empty(t, together(), "one workload after the other")
	for _, namespace := range asking {
		l.awaitState(t, namespace, "stale", 0)
	}
	l.unharmed(t, "a rollback, and the restarts")
}

// second tries another release.
func (l *life) second(t *testing.T) {
	before := l.configuration(t)
	for _, more := range [][]string{nil, {"--take-ownership"}, {"--atomic"}} {
		_, err := l.Helm(t.Context(), append([]string{"install", "another", l.Chart, "--namespace", "lifecycle-another", "--create-namespace"}, more...)...)
		assert.ErrorContains(t, err, fmt.Sprintf("a cluster holds one Isthmus, and release %s in namespace %s is there", node.Release, node.Namespace))
	}
	_, err := l.Client.CoreV1().Namespaces().Get(t.Context(), "lifecycle-another", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "nothing was created: %v", err)
	after := l.configuration(t)
	assert.Equal(t, before.UID, after.UID)
	l.unharmed(t, "a second release that is refused")
}

// rotated awaits the end of what loseCA began.
func (l *life) rotated(t *testing.T) {
	l.await(t, func(ctx context.Context) error {
		secret, err := l.Client.CoreV1().Secrets(node.Namespace).Get(ctx, caSecret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if phase := secret.Annotations["isthmus.dev/ca-phase"]; phase != "stable" {
			return fmt.Errorf("the CA is %s", phase)
		}
		for _, root := range l.roots(t) {
			for _, lost := range l.lost {
				if bytes.Equal(root, lost) {
					return errors.New("the caBundle holds the lost CA still")
				}
			}
		}
		return nil
	})
	l.awaitRolled(t, node.Namespace)
	l.unharmed(t, "the rest of the CA's rotation")
}

// uninstall takes the release away and brings it back.
func (l *life) uninstall(t *testing.T) {
	still := l.uids(t, quiet)
	secret, err := l.Client.CoreV1().Secrets(quiet).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	require.NoError(t, err)
	l.created.Drain()

	_, err = l.Helm(t.Context(), "uninstall", node.Release, "--namespace", node.Namespace, "--wait", "--timeout", "5m")
	require.NoError(t, err)
	l.askedSince(t, 40)
	count := l.created.Drain()
	t.Logf("uninstalling: %s", count)
	assert.Zero(t, count.Failed(), "no pod is refused")
	l.served(t, "uninstalling")
	assert.NotZero(t, count.NotInjected, "nobody injects any more")
	assert.Equal(t, still, l.uids(t, quiet), "the edges go on")
	kept, err := l.Client.CoreV1().Secrets(quiet).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, secret.UID, kept.UID)
	assert.Empty(t, l.left(t), "nothing of Isthmus is left")

	_, err = l.Helm(t.Context(), "install", node.Release, l.Chart, "--namespace", node.Namespace, "--values", l.values, "--wait", "--timeout", "10m")
	require.NoError(t, err)
	t.Logf("installing: %s", l.created.Drain())
	l.served(t, "installing")
	l.askedSince(t, 40)
	l.unharmed(t, "installed again")
	l.awaitState(t, quiet, "injected", 2)
	l.awaitState(t, quiet, "stale", 0)
	assert.Equal(t, still, l.uids(t, quiet))
}
