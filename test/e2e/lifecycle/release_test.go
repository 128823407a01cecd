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
	// quietNamespace is a namespace whose workload does not request restarts.
	quietNamespace = "lifecycle-quiet"
	// releaseTimeout limits each wait, with room for a busy machine. The rotation of the CA
	// takes at least four minutes on any machine.
	releaseTimeout = 10 * time.Minute
)

// restartNamespaces each have a workload that requests restarts. The first requests them by
// an annotation of the namespace, the second, the real edge, by its own annotation.
var restartNamespaces = []string{"lifecycle-asking", "lifecycle-sidecar"}

// TestLifecycleOfARelease deletes the CA of a release, and upgrades, rolls back and
// uninstalls the release while the CA is replaced. All the time pods are created and requests
// go through an edge. In the end the release is as it was. Replacing the CA takes minutes;
// the parallel tests start meanwhile, and the last parts wait for them.
func TestLifecycleOfARelease(t *testing.T) {
	r := newReleaseTest(t)

	t.Run("the CA is lost and an upgrade creates a new one", func(t *testing.T) { r.loseCA(t) })
	t.Run("an upgrade with another template", func(t *testing.T) { r.upgradeTemplate(t) })
	t.Run("a rollback", func(t *testing.T) { r.rollback(t) })
	t.Run("a second release is refused", func(t *testing.T) { r.installSecondRelease(t) })
	t.Parallel()
	t.Run("the CA has rotated", func(t *testing.T) { r.awaitCARotation(t) })
	lockInstallation(t)
	t.Run("a certificate of the user and back", func(t *testing.T) { r.changeCertificateSource(t) })
	t.Run("uninstalled and installed again", func(t *testing.T) { r.uninstall(t) })
}

// releaseTest is the release, with the traffic and the pods that show the effect of changes.
type releaseTest struct {
	*node.Cluster
	// creator creates pods all the time, in dry runs.
	creator *pods.Creator
	// edges carry requests all the time.
	edges *traffic.Traffic
	// values is the path of the release's original values.
	values string
	// base is the revision to roll back to.
	base int
	// oldRoots are the roots with which the API server verified the webhook before loseCA.
	oldRoots [][]byte
}

func newReleaseTest(t *testing.T) *releaseTest {
	t.Helper()
	r := &releaseTest{Cluster: cluster, values: filepath.Join(t.TempDir(), "values.json")}
	values, err := r.Helm(t.Context(), "get", "values", node.Release, "--namespace", node.Namespace, "--output", "json")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(r.values, []byte(values), 0o600))
	r.createNamespace(t, quietNamespace, nil)
	r.createNamespace(t, restartNamespaces[0], map[string]string{policy.RestartKey: "true"})
	r.createWorkload(t, quietNamespace, "still")
	r.createWorkload(t, restartNamespaces[0], "restarted")
	r.edges, err = traffic.Deploy(t.Context(), traffic.Options{Config: r.Admin, Prefix: "lifecycle"})
	t.Cleanup(func() {
		if err := r.edges.Remove(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("remove the edges: %v", err)
		}
	})
	require.NoError(t, err)
	_, err = r.Client.AppsV1().Deployments(restartNamespaces[1]).Patch(t.Context(), "edge", types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"`+policy.RestartKey+`":"true"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	r.awaitRolled(t, quietNamespace, restartNamespaces[0], restartNamespaces[1])
	r.creator = pods.Start(r.Client, quietNamespace, pods.Edge("created"), 50*time.Millisecond)
	t.Cleanup(func() { r.creator.Stop() })
	return r
}

// loseCA deletes the Secret, which the controller may not create: the replicas continue to
// serve, an upgrade creates the Secret again, and a new CA takes over.
func (r *releaseTest) loseCA(t *testing.T) {
	r.oldRoots = r.caRoots(t)
	require.NotEmpty(t, r.oldRoots)
	require.NoError(t, r.Client.CoreV1().Secrets(node.Namespace).Delete(t.Context(), caSecret, metav1.DeleteOptions{}))
	r.awaitRequestedPods(t, 100)
	r.assertNothingFailed(t, "without the Secret of the CA")

	r.upgrade(t, "--set", "controller.restartStale.enabled=true,controller.restartStale.settle=5s")
	r.base = r.revision(t)
	r.await(t, func(context.Context) error {
		if now := r.caRoots(t); len(now) <= len(r.oldRoots) {
			return fmt.Errorf("the caBundle holds %d roots", len(now))
		}
		return nil
	})
	r.assertNothingFailed(t, "an upgrade, and a new CA beside the old one")
}

// upgradeTemplate changes what is injected: pods that were injected before become stale, and
// are replaced only where that is requested.
func (r *releaseTest) upgradeTemplate(t *testing.T) {
	quietPods, restartedPods := r.podUIDs(t, quietNamespace), r.podUIDs(t, restartNamespaces...)
	concurrent := r.watchRollouts(t, restartNamespaces...)
	r.upgrade(t, "--set", "defaults.certTTL=7h")
	r.awaitState(t, quietNamespace, "stale", 2)
	r.awaitReplaced(t, restartedPods, restartNamespaces...)
	assert.Empty(t, concurrent(), "one workload after the other")
	for _, namespace := range restartNamespaces {
		r.awaitState(t, namespace, "stale", 0)
	}
	assert.Equal(t, quietPods, r.podUIDs(t, quietNamespace), "a workload that does not request restarts is left alone")
	r.assertNothingFailed(t, "an upgrade that changes the template, and the restarts")
}

// rollback restores the old template: stale pods become current, and the replaced pods
// stale.
func (r *releaseTest) rollback(t *testing.T) {
	quietPods, restartedPods := r.podUIDs(t, quietNamespace), r.podUIDs(t, restartNamespaces...)
	concurrent := r.watchRollouts(t, restartNamespaces...)
	_, err := r.Helm(t.Context(), "rollback", node.Release, strconv.Itoa(r.base), "--namespace", node.Namespace, "--wait", "--timeout", "10m")
	require.NoError(t, err)
	r.awaitState(t, quietNamespace, "stale", 0)
	r.awaitState(t, quietNamespace, "injected", 2)
	assert.Equal(t, quietPods, r.podUIDs(t, quietNamespace), "the pods are the same")
	r.awaitReplaced(t, restartedPods, restartNamespaces...)
	assert.Empty(t, concurrent(), "one workload after the other")
	for _, namespace := range restartNamespaces {
		r.awaitState(t, namespace, "stale", 0)
	}
	r.assertNothingFailed(t, "a rollback, and the restarts")
}

// installSecondRelease tries to install another release.
func (r *releaseTest) installSecondRelease(t *testing.T) {
	before := r.configuration(t)
	for _, more := range [][]string{nil, {"--take-ownership"}, {"--atomic"}} {
		_, err := r.Helm(t.Context(), append([]string{"install", "another", r.Chart, "--namespace", "lifecycle-another", "--create-namespace"}, more...)...)
		assert.ErrorContains(t, err, fmt.Sprintf("a cluster holds one Isthmus, and release %s in namespace %s is there", node.Release, node.Namespace))
	}
	_, err := r.Client.CoreV1().Namespaces().Get(t.Context(), "lifecycle-another", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "nothing was created: %v", err)
	after := r.configuration(t)
	assert.Equal(t, before.UID, after.UID)
	r.assertNothingFailed(t, "a second release that is refused")
}

// awaitCARotation waits for the end of the rotation that loseCA started.
func (r *releaseTest) awaitCARotation(t *testing.T) {
	r.await(t, func(ctx context.Context) error {
		secret, err := r.Client.CoreV1().Secrets(node.Namespace).Get(ctx, caSecret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if phase := secret.Annotations["isthmus.dev/ca-phase"]; phase != "stable" {
			return fmt.Errorf("the CA is %s", phase)
		}
		for _, root := range r.caRoots(t) {
			for _, lost := range r.oldRoots {
				if bytes.Equal(root, lost) {
					return errors.New("the caBundle still holds the lost CA")
				}
			}
		}
		return nil
	})
	r.awaitRolled(t, node.Namespace)
	r.assertNothingFailed(t, "the rest of the CA's rotation")
}

// uninstall uninstalls the release and installs it again.
func (r *releaseTest) uninstall(t *testing.T) {
	quietPods := r.podUIDs(t, quietNamespace)
	secret, err := r.Client.CoreV1().Secrets(quietNamespace).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	require.NoError(t, err)
	r.creator.Drain()

	_, err = r.Helm(t.Context(), "uninstall", node.Release, "--namespace", node.Namespace, "--wait", "--timeout", "5m")
	require.NoError(t, err)
	r.awaitRequestedPods(t, 40)
	count := r.creator.Drain()
	t.Logf("uninstalling: %s", count)
	assert.Zero(t, count.Failed(), "no pod is refused")
	r.assertNoFailedRequests(t, "uninstalling")
	assert.NotZero(t, count.NotInjected, "pods are no longer injected")
	assert.Equal(t, quietPods, r.podUIDs(t, quietNamespace), "the edges keep running")
	secretAfter, err := r.Client.CoreV1().Secrets(quietNamespace).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, secret.UID, secretAfter.UID)
	assert.Empty(t, r.listLeftovers(t), "nothing of Isthmus is left")

	_, err = r.Helm(t.Context(), "install", node.Release, r.Chart, "--namespace", node.Namespace, "--values", r.values, "--wait", "--timeout", "10m")
	require.NoError(t, err)
	t.Logf("installing: %s", r.creator.Drain())
	r.assertNoFailedRequests(t, "installing")
	r.awaitRequestedPods(t, 40)
	r.assertNothingFailed(t, "installed again")
	r.awaitState(t, quietNamespace, "injected", 2)
	r.awaitState(t, quietNamespace, "stale", 0)
	assert.Equal(t, quietPods, r.podUIDs(t, quietNamespace))
}
