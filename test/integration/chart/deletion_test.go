package chart

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// watchDeletions watches the release in a namespace while it is uninstalled. The function
// that it returns waits for the deletion of the last mutating webhook configuration and of
// the Service, and returns their resource versions, which have one order since they are of
// one store.
func watchDeletions(t *testing.T, c *cluster, namespace string) func() (sent, service int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	configurations, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Watch(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	services, err := c.client.CoreV1().Services(namespace).Watch(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	return func() (sent, service int64) {
		t.Helper()
		for sent == 0 || service == 0 {
			select {
			case e := <-configurations.ResultChan():
				if found, ok := e.Object.(*admissionv1.MutatingWebhookConfiguration); ok && e.Type == watch.Deleted && len(found.Webhooks) > 0 {
					sent = version(t, found.ResourceVersion)
				}
			case e := <-services.ResultChan():
				if found, ok := e.Object.(*corev1.Service); ok && e.Type == watch.Deleted && found.Name == "isthmus-webhook" {
					service = version(t, found.ResourceVersion)
				}
			case <-ctx.Done():
				require.Fail(t, "Service and configuration are not both deleted")
			}
		}
		return sent, service
	}
}

func version(t *testing.T, text string) int64 {
	t.Helper()
	number, err := strconv.ParseInt(text, 10, 64)
	require.NoError(t, err)
	return number
}
