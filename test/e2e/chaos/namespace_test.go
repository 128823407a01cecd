//go:build chaos

package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/pods"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Namespaces with an edge and its Secret are deleted at different stages of the controller's
// work, and created again at once under the same names.
func namespaceDeleted(ctx context.Context, tr *Trial) {
	names := make([]string, 6)
	for i := range names {
		names[i] = fmt.Sprintf("%s-gone-%d", tr.Namespace, i)
	}
	restarts := tr.containerRestarts()
	each := func(do func(i int, namespace string) error) {
		tr.Helper()
		errs := make([]error, len(names))
		var done sync.WaitGroup
		for i, namespace := range names {
			done.Go(func() { errs[i] = do(i, namespace) })
		}
		done.Wait()
		require.NoError(tr, errors.Join(errs...))
	}
	for round := range 2 {
		each(func(_ int, namespace string) error { return createEdgeNamespace(ctx, namespace) })
		each(func(i int, namespace string) error {
			// The moment varies from right after the creation until the edge is almost
			// ready.
			time.Sleep(time.Duration(i+round*len(names)) * 250 * time.Millisecond)
			return deleteNamespace(ctx, namespace)
		})
	}
	each(func(_ int, namespace string) error { return createEdgeNamespace(ctx, namespace) })
	tr.AwaitRecovery("Secrets again", func(ctx context.Context) error {
		var errs error
		for _, namespace := range names {
			s, err := readSecret(ctx, namespace)
			if err == nil {
				err = environment.ValidateSecret(s, environment.Identity(tr, namespace, "default"))
			}
			errs = errors.Join(errs, err)
		}
		return errs
	})
	tr.AwaitRecovery("edges again", func(ctx context.Context) error {
		var errs error
		for _, namespace := range names {
			errs = errors.Join(errs, checkReady(ctx, namespace, "edge", true))
		}
		return errs
	})
	each(func(_ int, namespace string) error { return deleteNamespace(ctx, namespace) })
	tr.AwaitRecovery("forgotten", func(ctx context.Context) error {
		for _, namespace := range names {
			for _, name := range []string{"isthmus_certificate_not_after_timestamp_seconds", "isthmus_edge_pods"} {
				if n, err := sumMetric(ctx, controllerComponent, name, `namespace="`+namespace+`"`); err != nil || n != 0 {
					return fmt.Errorf("%s of namespace %s is still %v: %w", name, namespace, n, err)
				}
			}
		}
		return nil
	})
	tr.awaitNoErrors(ctx)
	assert.Equal(tr, restarts, tr.containerRestarts(), "restarts of Isthmus")
}

// awaitNoErrors waits until the controller has reconciled for a while without an error.
func (tr *Trial) awaitNoErrors(ctx context.Context) {
	tr.Helper()
	const each = "controller_runtime_reconcile_total"
	reconciles := func() (good, bad float64, err error) {
		if good, err = sumMetric(ctx, controllerComponent, each, `result="requeue_after"`); err == nil {
			bad, err = sumMetric(ctx, controllerComponent, each, `result="error"`)
		}
		return good, bad, err
	}
	good, bad, err := reconciles()
	require.NoError(tr, err)
	tr.AwaitRecovery("no error", func(context.Context) error {
		g, b, err := reconciles()
		if err != nil {
			return err
		}
		if b > bad {
			good, bad = g, b // start again
		}
		if g < good+5 {
			return fmt.Errorf("%v reconciles without an error since the last of %v errors", g-good, bad)
		}
		return nil
	})
}

// createEdgeNamespace creates a namespace that is opted in, with an edge in it.
func createEdgeNamespace(ctx context.Context, namespace string) error {
	_, err := cluster.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, Annotations: map[string]string{policy.ServiceAccountKey: "default"},
	}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = cluster.Client.AppsV1().Deployments(namespace).Create(ctx, pods.Deployment(pods.Edge("edge"), 1), metav1.CreateOptions{})
	return err
}

// deleteNamespace deletes a namespace and waits until it is gone.
func deleteNamespace(ctx context.Context, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	api := cluster.Client.CoreV1().Namespaces()
	err := api.Delete(ctx, namespace, metav1.DeleteOptions{})
	for ; err == nil; _, err = api.Get(ctx, namespace, metav1.GetOptions{}) {
		time.Sleep(pollInterval)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("delete namespace %s: %w", namespace, err)
}
