package rbac

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestWhatTheControllerWatches sends lists and watches with the controller's token. The API
// server takes the name of a request from the field selector metadata.name, so that a rule
// with names permits them in all namespaces at once.
func TestWhatTheControllerWatches(t *testing.T) {
	c := install(t, "")
	c.namespace(labelled, nil)
	ctx, controller := t.Context(), c.clientFor(releaseNamespace, controllerName)
	const another = "rbac-others"
	for _, name := range []string{"istio-certs", another} {
		_, err := c.admin.CoreV1().Secrets(labelled).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		require.NoError(t, err)
		t.Cleanup(func() {
			_ = c.admin.CoreV1().Secrets(labelled).Delete(context.Background(), name, metav1.DeleteOptions{})
		})
	}
	for name, test := range map[string]struct {
		namespace, selector string
		isAllowed           bool
	}{
		"an allowed name in all namespaces":  {"", "metadata.name=istio-certs", true},
		"the roots of an allowed name":       {"", "metadata.name=istio-certs-roots", true},
		"an allowed name in one namespace":   {labelled, "metadata.name=istio-certs", true},
		"another name":                       {"", "metadata.name=" + another, false},
		"the webhook's CA":                   {"", "metadata.name=isthmus-webhook-ca", false},
		"the staging Secret of cert-manager": {"", "metadata.name=istio-certs-issued", false},
		"all names":                          {"", "", false},
		"all names of one namespace":         {labelled, "", false},
		"every name but one":                 {"", "metadata.name!=istio-certs", false},
		"an allowed name by another field":   {"", "type=kubernetes.io/tls", false},
	} {
		t.Run(name, func(t *testing.T) {
			options := metav1.ListOptions{FieldSelector: test.selector}
			list, err := controller.CoreV1().Secrets(test.namespace).List(ctx, options)
			if !test.isAllowed {
				assert.NoError(t, checkForbidden(err))
				_, err = controller.CoreV1().Secrets(test.namespace).Watch(ctx, options)
				assert.NoError(t, checkForbidden(err))
				return
			}
			require.NoError(t, err)
			for _, s := range list.Items {
				assert.Equal(t, test.selector, "metadata.name="+s.Name)
			}
			watch, err := controller.CoreV1().Secrets(test.namespace).Watch(ctx, options)
			require.NoError(t, err)
			watch.Stop()
		})
	}

	watch, err := controller.CoreV1().Secrets("").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=istio-certs", ResourceVersion: "0"})
	require.NoError(t, err)
	defer watch.Stop()
	require.NoError(t, c.admin.CoreV1().Secrets(labelled).Delete(ctx, "istio-certs", metav1.DeleteOptions{}))
	for deadline := time.After(30 * time.Second); ; {
		select {
		case event := <-watch.ResultChan():
			if event.Type == "DELETED" {
				return
			}
		case <-deadline:
			t.Fatal("the watch did not deliver the deletion")
		}
	}
}
