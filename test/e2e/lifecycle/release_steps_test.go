//go:build e2e

package lifecycle

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/isthmus-mesh/isthmus/test/framework/leftovers"
	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/test/framework/pods"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
	"github.com/isthmus-mesh/isthmus/test/framework/traffic"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// createNamespace creates a namespace that is opted in, until the test ends.
func (r *releaseTest) createNamespace(t *testing.T, name string, annotations map[string]string) {
	t.Helper()
	_, err := r.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, Annotations: annotations,
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := r.Client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("remove namespace %s: %v", name, err)
		}
	})
}

// await waits until check returns nil; its last error is the failure.
func (r *releaseTest) await(t *testing.T, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, releaseTimeout, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	require.NoError(t, errors.Join(err, last))
}

// createWorkload creates a workload of two edges that do nothing and become available
// slowly. So a rollout lasts longer than the interval of the controller's checks, and a
// controller that does not wait for its end would begin the next rollout.
func (r *releaseTest) createWorkload(t *testing.T, namespace, name string) {
	t.Helper()
	d := pods.Deployment(pods.Edge(name), 2)
	d.Spec.MinReadySeconds = 4
	_, err := r.Client.AppsV1().Deployments(namespace).Create(t.Context(), d, metav1.CreateOptions{})
	require.NoError(t, err)
}

// checkRolledOut returns an error until a Deployment is rolled out.
func checkRolledOut(d *appsv1.Deployment) error {
	s, want := d.Status, *d.Spec.Replicas
	if s.ObservedGeneration < d.Generation || s.UpdatedReplicas < want || s.AvailableReplicas < want || s.Replicas > want {
		return fmt.Errorf("deployment %s/%s is not rolled out: %+v", d.Namespace, d.Name, s)
	}
	return nil
}

// deployments lists the Deployments of namespaces.
func (r *releaseTest) deployments(ctx context.Context, namespaces []string) ([]appsv1.Deployment, error) {
	var found []appsv1.Deployment
	for _, namespace := range namespaces {
		list, err := r.Client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		found = append(found, list.Items...)
	}
	return found, nil
}

// awaitRolled waits for all Deployments of namespaces.
func (r *releaseTest) awaitRolled(t *testing.T, namespaces ...string) {
	t.Helper()
	r.await(t, func(ctx context.Context) error {
		all, err := r.deployments(ctx, namespaces)
		for i := range all {
			err = errors.Join(err, checkRolledOut(&all[i]))
		}
		return err
	})
}

// watchRollouts watches the Deployments of namespaces until the returned function is called.
// That function returns the Deployments that were rolled out at the same time.
func (r *releaseTest) watchRollouts(t *testing.T, namespaces ...string) func() []string {
	t.Helper()
	concurrent := map[string]bool{}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		var before []string
		for ctx.Err() == nil {
			all, err := r.deployments(ctx, namespaces)
			if err != nil {
				continue
			}
			// The Deployments are read one after the other: one whose rollout ended while
			// the next began is no longer rolling out when it is read again.
			now := rollingOut(all)
			if both := slices.DeleteFunc(before, func(name string) bool { return !slices.Contains(now, name) }); len(both) > 1 {
				concurrent[strings.Join(both, " and ")] = true
			}
			before = now
			time.Sleep(100 * time.Millisecond)
		}
	})
	t.Cleanup(cancel)
	return func() []string {
		cancel()
		done.Wait()
		return slices.Sorted(maps.Keys(concurrent))
	}
}

// rollingOut returns the names of the Deployments whose pods are being replaced. A pod that
// is not ready for a moment does not count.
func rollingOut(all []appsv1.Deployment) []string {
	var found []string
	for i := range all {
		d, s := &all[i], all[i].Status
		if s.ObservedGeneration < d.Generation || s.UpdatedReplicas < *d.Spec.Replicas || s.Replicas > *d.Spec.Replicas {
			found = append(found, d.Name)
		}
	}
	return found
}

// podUIDs returns the sorted UIDs of the pods of namespaces that are not being deleted.
func (r *releaseTest) podUIDs(t *testing.T, namespaces ...string) []string {
	t.Helper()
	var found []string
	for _, namespace := range namespaces {
		list, err := r.Client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		for i := range list.Items {
			if list.Items[i].DeletionTimestamp == nil {
				found = append(found, string(list.Items[i].UID))
			}
		}
	}
	slices.Sort(found)
	return found
}

// awaitReplaced waits until none of these pods is left and all Deployments are rolled out.
func (r *releaseTest) awaitReplaced(t *testing.T, old []string, namespaces ...string) {
	t.Helper()
	r.await(t, func(context.Context) error {
		for _, uid := range r.podUIDs(t, namespaces...) {
			if slices.Contains(old, uid) {
				return fmt.Errorf("pod %s still exists", uid)
			}
		}
		return nil
	})
	r.awaitRolled(t, namespaces...)
}

// awaitState waits until the controller counts this number of edge pods in this state.
func (r *releaseTest) awaitState(t *testing.T, namespace, state string, want float64) {
	t.Helper()
	r.await(t, func(ctx context.Context) error {
		list, err := r.Client.CoreV1().Pods(node.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=controller"})
		if err != nil {
			return err
		}
		sum, hasLeader := 0.0, false
		for i := range list.Items {
			text, err := r.Client.CoreV1().Pods(node.Namespace).ProxyGet("http", list.Items[i].Name, "8080", "/metrics", nil).DoRaw(ctx)
			if err != nil {
				return err
			}
			n, err := scrape.Sum(string(text), "isthmus_edge_pods", `namespace="`+namespace+`"`, `state="`+state+`"`)
			if err != nil {
				return err
			}
			sum, hasLeader = sum+n, hasLeader || strings.Contains(string(text), `isthmus_edge_pods{`)
		}
		if !hasLeader || sum != want {
			return fmt.Errorf("%v edge pods of %s are %s, want %v (there is a leader: %t)", sum, namespace, state, want, hasLeader)
		}
		return nil
	})
}

// configuration returns the webhook configuration.
func (r *releaseTest) configuration(t *testing.T) *admissionv1.MutatingWebhookConfiguration {
	t.Helper()
	found, err := r.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), configurationName, metav1.GetOptions{})
	require.NoError(t, err)
	require.Len(t, found.Webhooks, 2)
	return found
}

// caRoots returns the CA certificates by which the API server verifies the webhook; every
// webhook of both configurations has the same.
func (r *releaseTest) caRoots(t *testing.T) [][]byte {
	t.Helper()
	var found [][]byte
	for rest := r.configuration(t).Webhooks[0].ClientConfig.CABundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return found
		}
		found = append(found, block.Bytes)
	}
}

// awaitRequestedPods waits until this number of pods was requested.
func (r *releaseTest) awaitRequestedPods(t *testing.T, more int) {
	t.Helper()
	before := r.creator.Snapshot().Requested
	r.await(t, func(context.Context) error {
		if now := r.creator.Snapshot().Requested; now < before+more {
			return fmt.Errorf("%d of %d pods were requested", now-before, more)
		}
		return nil
	})
}

// assertNothingFailed checks the time since the last call: all requested pods were injected,
// and no request failed.
func (r *releaseTest) assertNothingFailed(t *testing.T, description string) {
	t.Helper()
	count := r.creator.Drain()
	t.Logf("%s: %s", description, count)
	assert.Equal(t, count.Requested, count.Injected, description)
	r.assertNoFailedRequests(t, description)
}

// assertNoFailedRequests checks only the requests.
func (r *releaseTest) assertNoFailedRequests(t *testing.T, description string) {
	t.Helper()
	reports, err := r.edges.Report(t.Context())
	require.NoError(t, err)
	require.NoError(t, r.edges.Reset(t.Context()))
	verdict := traffic.Summarize(reports)
	t.Logf("%s: %s", description, verdict)
	assert.Zero(t, verdict.Failed, description)
	assert.NotZero(t, verdict.Requests, description)
}

// upgrade changes the release by Helm's flags and waits until everything is rolled out.
func (r *releaseTest) upgrade(t *testing.T, flags ...string) {
	t.Helper()
	_, err := r.Helm(t.Context(), append([]string{
		"upgrade", node.Release, r.Chart, "--namespace", node.Namespace, "--reset-then-reuse-values", "--wait", "--timeout", "10m",
	}, flags...)...)
	require.NoError(t, err)
}

// revision returns the revision of the release.
func (r *releaseTest) revision(t *testing.T) int {
	t.Helper()
	text, err := r.Helm(t.Context(), "status", node.Release, "--namespace", node.Namespace, "--output", "json")
	require.NoError(t, err)
	var status struct {
		Version int `json:"version"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &status))
	return status.Version
}

// listLeftovers lists the objects of Isthmus, except for namespaces.
func (r *releaseTest) listLeftovers(t *testing.T) []string {
	t.Helper()
	found, err := leftovers.List(t.Context(), r.Admin)
	require.NoError(t, err)
	return slices.DeleteFunc(found, func(object string) bool {
		return strings.HasPrefix(object, "namespaces ")
	})
}
