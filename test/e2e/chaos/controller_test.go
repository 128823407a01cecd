//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	// leaseName is the name of the controller's Lease.
	leaseName = "isthmus-controller"
	// kills is the number of times that the leader is killed, while busyNamespaces opt in
	// and out all the time.
	kills, busyNamespaces = 8, 8
)

// The leader is killed repeatedly while it publishes.
func TestControllerIsKilledWhilePublishing(t *testing.T) {
	trial(t, "controller killed mid-publish", func(ctx context.Context, tr *Trial) {
		var names []string
		var histories []*environment.SecretHistory
		for i := range busyNamespaces {
			names = append(names, fmt.Sprintf("%s-%d", tr.Namespace, i))
			tr.createNamespace(names[i], nil, map[string]string{policy.ServiceAccountKey: "default"})
			histories = append(histories, tr.WatchSecret(names[i], "default"))
		}
		toggling, stop := context.WithCancel(ctx)
		defer stop()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for n := 0; toggling.Err() == nil; n++ {
				_ = setOptIn(toggling, names[n%busyNamespaces], n/busyNamespaces%2 == 0)
				select {
				case <-toggling.Done():
				case <-time.After(pollInterval):
				}
			}
		}()
		for range kills {
			written := countVersions(histories)
			leader := tr.leader("")
			tr.await("the controller publishes", func(context.Context) error {
				if countVersions(histories) < written+busyNamespaces/2 {
					return fmt.Errorf("%d versions of Secrets", countVersions(histories))
				}
				return nil
			})
			require.NoError(tr, cluster.KillContainer(ctx, containerID(leader)))
			tr.deletePod(leader, 0) // so that its successor does not wait until the container restarts
			tr.deleteLease()        // so that the other replica does not wait until the Lease expires
		}
		stop()
		<-done
		for _, name := range names {
			require.NoError(tr, setOptIn(ctx, name, true))
		}
		tr.AwaitRecovery("all Secrets", func(ctx context.Context) error {
			for _, name := range names {
				if _, err := cluster.Client.CoreV1().Secrets(name).Get(ctx, "istio-certs", metav1.GetOptions{}); err != nil {
					return err
				}
			}
			return tr.checkHealthy(ctx)
		})
		tr.Logf("%d kills, %d versions of %d Secrets", kills, countVersions(histories), busyNamespaces)
	})
}

// The leader loses its Lease in three ways, and a replica becomes leader again.
func TestLeaderIsLost(t *testing.T) {
	trial(t, "leader lost", func(ctx context.Context, tr *Trial) {
		leases := cluster.Client.CoordinationV1().Leases(node.Namespace)
		n := 0
		published := func(after string) {
			n++
			name := fmt.Sprintf("%s-%d", tr.Namespace, n)
			tr.createNamespace(name, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, map[string]string{policy.ServiceAccountKey: "default"})
			history := tr.WatchSecret(name, "default")
			tr.AwaitRecovery(after, func(context.Context) error {
				if history.Current() == nil {
					return fmt.Errorf("namespace %s has no Secret", name)
				}
				return nil
			})
		}

		tr.deleteLease()
		tr.leader("")
		published("Lease deleted")

		_, err := leases.Patch(ctx, leaseName, types.MergePatchType,
			fmt.Appendf(nil, `{"spec":{"holderIdentity":"thief","renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro)), metav1.PatchOptions{})
		require.NoError(tr, err)
		tr.AwaitRecovery("Lease stolen: new leader", func(ctx context.Context) error { return checkLeader(ctx, "thief") })
		published("Lease stolen")

		leader := tr.leader("")
		require.NoError(tr, cluster.PauseContainer(ctx, containerID(leader)))
		tr.AwaitRecovery("leader paused: new leader", func(ctx context.Context) error { return checkLeader(ctx, leader.Name) })
		published("leader paused")
		if err := cluster.ResumeContainer(ctx, containerID(leader)); err != nil {
			tr.Logf("the paused container has ended: %v", err)
		}
		tr.await("the paused container ends and is restarted", func(ctx context.Context) error { return checkRestarted(ctx, leader) })
		assert.NoError(tr, checkLeader(ctx, leader.Name), "another replica is the leader")
		tr.await("both replicas are ready", tr.checkHealthy)
	})
}

// setOptIn adds or removes the label of a namespace.
func setOptIn(ctx context.Context, namespace string, optedIn bool) error {
	value := "null"
	if optedIn {
		value = `"` + policy.InjectionEnabled + `"`
	}
	_, err := cluster.Client.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"`+policy.InjectionLabel+`":`+value+`}}}`), metav1.PatchOptions{})
	return err
}

// countVersions returns the number of versions of all Secrets.
func countVersions(histories []*environment.SecretHistory) int {
	n := 0
	for _, history := range histories {
		n += len(history.Versions())
	}
	return n
}

// checkLeader returns an error unless a holder other than this one has a Lease that has not
// expired.
func checkLeader(ctx context.Context, other string) error {
	lease, err := cluster.Client.CoordinationV1().Leases(node.Namespace).Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	holder := ptr.Deref(lease.Spec.HolderIdentity, "")
	if holder == "" || other != "" && strings.HasPrefix(holder, other) || isExpired(lease) {
		return fmt.Errorf("the holder of the Lease is %q, renewed %s", holder, lease.Spec.RenewTime)
	}
	return nil
}

func isExpired(lease *coordinationv1.Lease) bool {
	return time.Since(lease.Spec.RenewTime.Time) > time.Duration(*lease.Spec.LeaseDurationSeconds)*time.Second
}

// leader waits for a leader other than this pod, and returns its pod.
func (tr *Trial) leader(other string) *corev1.Pod {
	tr.Helper()
	var found *corev1.Pod
	tr.await("a leader", func(ctx context.Context) error {
		if err := checkLeader(ctx, other); err != nil {
			return err
		}
		lease, err := cluster.Client.CoordinationV1().Leases(node.Namespace).Get(ctx, leaseName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
		found, err = cluster.Client.CoreV1().Pods(node.Namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return found
}

// deleteLease deletes the Lease.
func (tr *Trial) deleteLease() {
	tr.Helper()
	err := cluster.Client.CoordinationV1().Leases(node.Namespace).Delete(tr.Context(), leaseName, metav1.DeleteOptions{})
	if !apierrors.IsNotFound(err) {
		require.NoError(tr, err)
	}
}
