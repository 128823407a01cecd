package chart

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// testPermissions acts as the webhook's service account. Every request that the program
// makes is allowed, in the same form, and similar requests are forbidden.
func testPermissions(t *testing.T, c *cluster) {
	c.namespace(t, "permitted", nil)
	c.namespace(t, "permitted-mesh", nil)
	_, err := c.helm("install", "permitted", chart, "--namespace", "permitted", "--set", "istio.namespace=permitted-mesh")
	require.NoError(t, err)
	t.Cleanup(func() {
		if _, err := c.helm("uninstall", "permitted", "--namespace", "permitted"); err != nil {
			t.Errorf("uninstall: %v", err)
		}
	})
	_, err = c.client.CoreV1().Secrets("permitted").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "someone-elses"},
	}, metav1.CreateOptions{})
	require.NoError(t, err)

	config := rest.CopyConfig(c.config)
	config.Impersonate.UserName = "system:serviceaccount:permitted:isthmus-webhook"
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	ctx := t.Context()
	byName := func(name string) metav1.ListOptions {
		return metav1.ListOptions{FieldSelector: "metadata.name=" + name}
	}
	all := metav1.ListOptions{}
	core, configurations := client.CoreV1(), client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	merge := func(content string) []byte { return []byte(content) }

	tests := map[string]struct {
		allowed bool
		call    func() error
	}{
		"list namespaces": {true, func() error { _, err := core.Namespaces().List(ctx, all); return err }},
		"watch namespaces": {true, func() error {
			w, err := core.Namespaces().Watch(ctx, all)
			if err == nil {
				w.Stop()
			}
			return err
		}},
		"label a namespace": {false, func() error {
			_, err := core.Namespaces().Patch(ctx, "permitted", types.MergePatchType, merge(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
			return err
		}},
		"list its configuration by name": {true, func() error { _, err := configurations.List(ctx, byName("isthmus-injector")); return err }},
		"watch its configuration by name": {true, func() error {
			w, err := configurations.Watch(ctx, byName("isthmus-injector"))
			if err == nil {
				w.Stop()
			}
			return err
		}},
		"patch its configuration": {false, func() error {
			_, err := configurations.Patch(ctx, "isthmus-injector", types.MergePatchType, merge(`{}`), metav1.PatchOptions{})
			return err
		}},
		"list every configuration": {true, func() error { _, err := configurations.List(ctx, all); return err }},
		"delete its configuration": {false, func() error { return configurations.Delete(ctx, "isthmus-injector", metav1.DeleteOptions{}) }},
		"patch Istio's configuration": {false, func() error {
			_, err := configurations.Patch(ctx, "istio-sidecar-injector", types.MergePatchType, merge(`{}`), metav1.PatchOptions{})
			return err
		}},
		"list its Secret by name": {false, func() error {
			_, err := core.Secrets("permitted").List(ctx, byName("isthmus-webhook-ca"))
			return err
		}},
		"watch its Secret by name": {true, func() error {
			w, err := core.Secrets("permitted").Watch(ctx, byName("isthmus-webhook-ca"))
			if err == nil {
				w.Stop()
			}
			return err
		}},
		"update its Secret": {false, func() error {
			secret, err := core.Secrets("permitted").Get(ctx, "isthmus-webhook-ca", metav1.GetOptions{})
			if err != nil {
				return err
			}
			secret.Data = map[string][]byte{"tls.crt": []byte("a")}
			_, err = core.Secrets("permitted").Update(ctx, secret, metav1.UpdateOptions{})
			return err
		}},
		"patch its Secret": {false, func() error {
			_, err := core.Secrets("permitted").Patch(ctx, "isthmus-webhook-ca", types.MergePatchType, merge(`{}`), metav1.PatchOptions{})
			return err
		}},
		"list its namespace's Secrets": {false, func() error { _, err := core.Secrets("permitted").List(ctx, all); return err }},
		"read a Secret beside its own": {false, func() error {
			_, err := core.Secrets("permitted").Get(ctx, "someone-elses", metav1.GetOptions{})
			return err
		}},
		"list the cluster's Secrets": {false, func() error { _, err := core.Secrets("").List(ctx, all); return err }},
		"read the mesh's ConfigMaps": {true, func() error { _, err := core.ConfigMaps("permitted-mesh").List(ctx, all); return err }},
		"read the mesh's Deployments": {true, func() error {
			_, err := client.AppsV1().Deployments("permitted-mesh").List(ctx, all)
			return err
		}},
		"read the mesh's Secrets":   {false, func() error { _, err := core.Secrets("permitted-mesh").List(ctx, all); return err }},
		"read ConfigMaps elsewhere": {false, func() error { _, err := core.ConfigMaps("kube-system").List(ctx, all); return err }},
		"list pods":                 {false, func() error { _, err := core.Pods("permitted").List(ctx, all); return err }},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			err := c.call()
			if c.allowed {
				assert.NoError(t, err)
				return
			}
			assert.True(t, apierrors.IsForbidden(err), "want a refusal, got %v", err)
		})
	}
}
