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

// Namespaces with an edge and its Secret are deleted at different moments of the
// controller's work, and made again under their names at once.
func namespaceDeleted(ctx context.Context, tr *Trial) {
	names := make([]string, 6)
	for i := range names {
		names[i] = fmt.Sprintf("%s-gone-%d", tr.Namespace, i)
	}
	restarts := tr.restarts()
	each := func(do func(i int, name string) error) {
		tr.Helper()
		errs := make([]error, len(names))
		var done sync.WaitGroup
		for i, name := range names {
			done.Go(func() { errs[i] = do(i, name) })
		}
		done.Wait()
		require.NoError(tr, errors.Join(errs...))
	}
	for round := range 2 {
		each(func(_ int, name string) error { return populate(ctx, name) })
		each(func(i int, name string) error {
			// From right after it was made until the edge is about to be ready: the moment
			// is what varies.
			time.Sleep(time.Duration(i+round*len(names)) * 250 * time.Millisecond)
			return depopulate(ctx, name)
		})
	}
	each(func(_ int, name string) error { return populate(ctx, name) })
	tr.Heal("Secrets again", func(ctx context.Context) error {
		var errs error
		for _, name := range names {
			s, err := secret(ctx, name)
			if err == nil {
				err = environment.ValidateSecret(s, environment.Identity(tr, name, "default"))
			}
			errs = errors.Join(errs, err)
		}
		return errs
	})
	tr.Heal("edges again", func(ctx context.Context) error {
		var errs error
		for _, name := range names {
			errs = errors.Join(errs, ready(ctx, name, "edge", true))
		}
		return errs
	})
	each(func(_ int, name string) error { return depopulate(ctx, name) })
	tr.Heal("forgotten", func(ctx context.Context) error {
		for _, name := range names {
			for _, of := range []string{"isthmus_certificate_not_after_timestamp_seconds", "isthmus_edge_pods"} {
				if n, err := metric(ctx, controllerPart, of, `namespace="`+name+`"`); err != nil || n != 0 {
					return fmt.Errorf("%s of namespace %s is %v: %w", of, name, n, err)
				}
			}
		}
		return nil
	})
	tr.calm(ctx)
	assert.Equal(tr, restarts, tr.restarts(), "restarts of Isthmus")
}

// calm waits until the controller has worked for a while without an error.
func (tr *Trial) calm(ctx context.Context) {
	tr.Helper()
	const each = "controller_runtime_reconcile_total"
	work := func() (good, bad float64, err error) {
		if good, err = metric(ctx, controllerPart, each, `result="requeue_after"`); err == nil {
			bad, err = metric(ctx, controllerPart, each, `result="error"`)
		}
		return good, bad, err
	}
	good, bad, err := work()
	require.NoError(tr, err)
	tr.Heal("no error", func(context.Context) error {
		g, b, err := work()
		if err != nil {
			return err
		}
		if b > bad {
			good, bad = g, b // begin anew
		}
		if g < good+5 {
			return fmt.Errorf("%v looks without an error since the last of %v errors", g-good, bad)
		}
		return nil
	})
}

// populate makes a namespace that is opted in, with an edge in it.
func populate(ctx context.Context, name string) error {
	_, err := cluster.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, Annotations: map[string]string{policy.ServiceAccountKey: "default"},
	}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = cluster.Client.AppsV1().Deployments(name).Create(ctx, pods.Deployment(pods.Edge("edge"), 1), metav1.CreateOptions{})
	return err
}

// depopulate deletes a namespace and returns when it is gone.
func depopulate(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	api := cluster.Client.CoreV1().Namespaces()
	err := api.Delete(ctx, name, metav1.DeleteOptions{})
	for ; err == nil; _, err = api.Get(ctx, name, metav1.GetOptions{}) {
		time.Sleep(often)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("delete namespace %s: %w", name, err)
}
