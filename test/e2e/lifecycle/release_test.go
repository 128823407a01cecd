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
	// releaseTimeout limits each wait, with room for a busy machine: the rotation of the CA
	// takes twice two minutes on any.
	releaseTimeout = 10 * time.Minute
)

// restartNamespaces are namespaces with a workload each that requests restarts: by an
// annotation of the namespace, or, for the real edge, by its own.
var restartNamespaces = []string{"lifecycle-asking", "lifecycle-sidecar"}

// TestLifecycleOfARelease deletes the CA of a release, and upgrades, rolls back and
// uninstalls the release while the CA is replaced, while pods are created and requests go
// through an edge all the time. In the end the release is as it was. The replacement takes
// minutes: the parallel tests start meanwhile, and the last parts wait for them.
func TestLifecycleOfARelease(t *testing.T) {
	l := newReleaseTest(t)

	t.Run("the CA is lost and an upgrade creates a new one", func(t *testing.T) { l.loseCA(t) })
	t.Run("an upgrade with another template", func(t *testing.T) { l.upgradeTemplate(t) })
	t.Run("a rollback", func(t *testing.T) { l.rollback(t) })
	t.Run("a second release is refused", func(t *testing.T) { l.installSecondRelease(t) })
	t.Parallel()
	t.Run("the CA has rotated", func(t *testing.T) { l.awaitCARotation(t) })
	lockInstallation(t)
	t.Run("a certificate of the user and back", func(t *testing.T) { l.changeCertificateSource(t) })
	t.Run("uninstalled and installed again", func(t *testing.T) { l.uninstall(t) })
}

// releaseTest is the release, and what runs beside its changes.
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
	// oldRoots are the roots by which the API server verified the webhook before.
	oldRoots [][]byte
}

func newReleaseTest(t *testing.T) *releaseTest {
	t.Helper()
	l := &releaseTest{Cluster: cluster, values: filepath.Join(t.TempDir(), "values.json")}
	values, err := l.Helm(t.Context(), "get", "values", node.Release, "--namespace", node.Namespace, "--output", "json")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(l.values, []byte(values), 0o600))
	l.createNamespace(t, quietNamespace, nil)
	l.createNamespace(t, restartNamespaces[0], map[string]string{policy.RestartKey: "true"})
	l.createWorkload(t, quietNamespace, "still")
	l.createWorkload(t, restartNamespaces[0], "restarted")
	l.edges, err = traffic.Deploy(t.Context(), traffic.Options{Config: l.Admin, Prefix: "lifecycle"})
	t.Cleanup(func() {
		if err := l.edges.Remove(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("remove the edges: %v", err)
		}
	})
	require.NoError(t, err)
	_, err = l.Client.AppsV1().Deployments(restartNamespaces[1]).Patch(t.Context(), "edge", types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"`+policy.RestartKey+`":"true"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	l.awaitRolled(t, quietNamespace, restartNamespaces[0], restartNamespaces[1])
	l.creator = pods.Start(l.Client, quietNamespace, pods.Edge("created"), 50*time.Millisecond)
	t.Cleanup(func() { l.creator.Stop() })
	return l
}

// loseCA deletes the Secret, which the controller may not create: the replicas continue to
// serve, an upgrade creates the Secret again, and a new CA takes over.
func (l *releaseTest) loseCA(t *testing.T) {
	l.oldRoots = l.caRoots(t)
	require.NotEmpty(t, l.oldRoots)
	require.NoError(t, l.Client.CoreV1().Secrets(node.Namespace).Delete(t.Context(), caSecret, metav1.DeleteOptions{}))
	l.awaitRequestedPods(t, 100)
	l.assertNothingFailed(t, "without the Secret of the CA")

	l.upgrade(t, "--set", "controller.restartStale.enabled=true,controller.restartStale.settle=5s")
	l.base = l.revision(t)
	l.await(t, func(context.Context) error {
		if now := l.caRoots(t); len(now) <= len(l.oldRoots) {
			return fmt.Errorf("the caBundle holds %d roots", len(now))
		}
		return nil
	})
	l.assertNothingFailed(t, "an upgrade, and a new CA beside the old one")
}

// upgradeTemplate changes what is injected: pods that were injected before become stale, and
// are replaced only where that is requested.
func (l *releaseTest) upgradeTemplate(t *testing.T) {
	quietPods, restartedPods := l.podUIDs(t, quietNamespace), l.podUIDs(t, restartNamespaces...)
	concurrent := l.watchRollouts(t, restartNamespaces...)
	l.upgrade(t, "--set", "defaults.certTTL=7h")
	l.awaitState(t, quietNamespace, "stale", 2)
	l.awaitReplaced(t, restartedPods, restartNamespaces...)
	assert.Empty(t, concurrent(), "one workload after the other")
	for _, namespace := range restartNamespaces {
		l.awaitState(t, namespace, "stale", 0)
	}
	assert.Equal(t, quietPods, l.podUIDs(t, quietNamespace), "a workload that does not request restarts is left alone")
	l.assertNothingFailed(t, "an upgrade that changes the template, and the restarts")
}

// rollback restores the old template: stale pods become current, and the replaced pods
// stale.
func (l *releaseTest) rollback(t *testing.T) {
	quietPods, restartedPods := l.podUIDs(t, quietNamespace), l.podUIDs(t, restartNamespaces...)
	concurrent := l.watchRollouts(t, restartNamespaces...)
	_, err := l.Helm(t.Context(), "rollback", node.Release, strconv.Itoa(l.base), "--namespace", node.Namespace, "--wait", "--timeout", "10m")
	require.NoError(t, err)
	l.awaitState(t, quietNamespace, "stale", 0)
	l.awaitState(t, quietNamespace, "injected", 2)
	assert.Equal(t, quietPods, l.podUIDs(t, quietNamespace), "the pods are the same")
	l.awaitReplaced(t, restartedPods, restartNamespaces...)
	assert.Empty(t, concurrent(), "one workload after the other")
	for _, namespace := range restartNamespaces {
		l.awaitState(t, namespace, "stale", 0)
	}
	l.assertNothingFailed(t, "a rollback, and the restarts")
}

// installSecondRelease tries to install another release.
func (l *releaseTest) installSecondRelease(t *testing.T) {
	before := l.configuration(t)
	for _, more := range [][]string{nil, {"--take-ownership"}, {"--atomic"}} {
		_, err := l.Helm(t.Context(), append([]string{"install", "another", l.Chart, "--namespace", "lifecycle-another", "--create-namespace"}, more...)...)
		assert.ErrorContains(t, err, fmt.Sprintf("a cluster holds one Isthmus, and release %s in namespace %s is there", node.Release, node.Namespace))
	}
	_, err := l.Client.CoreV1().Namespaces().Get(t.Context(), "lifecycle-another", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "nothing was created: %v", err)
	after := l.configuration(t)
	assert.Equal(t, before.UID, after.UID)
	l.assertNothingFailed(t, "a second release that is refused")
}

// awaitCARotation waits for the end of the rotation that loseCA started.
func (l *releaseTest) awaitCARotation(t *testing.T) {
	l.await(t, func(ctx context.Context) error {
		secret, err := l.Client.CoreV1().Secrets(node.Namespace).Get(ctx, caSecret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if phase := secret.Annotations["isthmus.dev/ca-phase"]; phase != "stable" {
			return fmt.Errorf("the CA is %s", phase)
		}
		for _, root := range l.caRoots(t) {
			for _, lost := range l.oldRoots {
				if bytes.Equal(root, lost) {
					return errors.New("the caBundle still holds the lost CA")
				}
			}
		}
		return nil
	})
	l.awaitRolled(t, node.Namespace)
	l.assertNothingFailed(t, "the rest of the CA's rotation")
}

// uninstall uninstalls the release and installs it again.
func (l *releaseTest) uninstall(t *testing.T) {
	quietPods := l.podUIDs(t, quietNamespace)
	secret, err := l.Client.CoreV1().Secrets(quietNamespace).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	require.NoError(t, err)
	l.creator.Drain()

	_, err = l.Helm(t.Context(), "uninstall", node.Release, "--namespace", node.Namespace, "--wait", "--timeout", "5m")
	require.NoError(t, err)
	l.awaitRequestedPods(t, 40)
	count := l.creator.Drain()
	t.Logf("uninstalling: %s", count)
	assert.Zero(t, count.Failed(), "no pod is refused")
	l.assertNoFailedRequests(t, "uninstalling")
	assert.NotZero(t, count.NotInjected, "pods are no longer injected")
	assert.Equal(t, quietPods, l.podUIDs(t, quietNamespace), "the edges keep running")
	secretAfter, err := l.Client.CoreV1().Secrets(quietNamespace).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, secret.UID, secretAfter.UID)
	assert.Empty(t, l.listLeftovers(t), "nothing of Isthmus is left")

	_, err = l.Helm(t.Context(), "install", node.Release, l.Chart, "--namespace", node.Namespace, "--values", l.values, "--wait", "--timeout", "10m")
	require.NoError(t, err)
	t.Logf("installing: %s", l.creator.Drain())
	l.assertNoFailedRequests(t, "installing")
	l.awaitRequestedPods(t, 40)
	l.assertNothingFailed(t, "installed again")
	l.awaitState(t, quietNamespace, "injected", 2)
	l.awaitState(t, quietNamespace, "stale", 0)
	assert.Equal(t, quietPods, l.podUIDs(t, quietNamespace))
}
