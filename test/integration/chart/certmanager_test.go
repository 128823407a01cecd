package chart

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apischema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"
)

// testCertManager installs the chart in mode cert-manager with cert-manager's CRDs. The API
// server validates every field of every rendered object, since Helm ignores unknown fields.
func testCertManager(t *testing.T, c *cluster) {
	client, err := dynamic.NewForConfig(c.config)
	require.NoError(t, err)
	certificates := apischema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}
	issuers := certificates.GroupVersion().WithResource("issuers")
	createCRD(t, client, "certificates", certificates)
	createCRD(t, client, "issuers", issuers)
	c.namespace(t, "issued", nil)
	c.account(t, "default") // of the test's pod

	groups, err := restmapper.GetAPIGroupResources(c.client.Discovery())
	require.NoError(t, err)
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	for name, values := range map[string]string{"self-managed": "", "cert-manager": "certificate: {mode: cert-manager}", "existing": existingCertificate} {
		for _, object := range renderObjects(t, "issued", "issued", "istio: {discovery: false}\nnetworkPolicy: {egress: [{}]}\n"+values) {
			mapping, err := mapper.RESTMapping(object.GroupVersionKind().GroupKind(), object.GroupVersionKind().Version)
			require.NoError(t, err)
			var resource dynamic.ResourceInterface = client.Resource(mapping.Resource)
			if object.GetNamespace() != "" {
				resource = client.Resource(mapping.Resource).Namespace(object.GetNamespace())
			}
			_, err = resource.Create(t.Context(), object, metav1.CreateOptions{
				DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict,
			})
			assert.NoError(t, err, "%s: %s %s", name, object.GetKind(), object.GetName())
		}
	}

	_, err = c.helm("install", "issued", chart, "--namespace", "issued",
		"--set", "istio.discovery=false", "--set", "certificate.mode=cert-manager")
	require.NoError(t, err)
	t.Cleanup(func() {
		if _, err := c.helm("uninstall", "issued", "--namespace", "issued"); err != nil {
			t.Errorf("uninstall: %v", err)
		}
	})
	names := func(resource apischema.GroupVersionResource) []string {
		list, err := client.Resource(resource).Namespace("issued").List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		var found []string
		for _, item := range list.Items {
			found = append(found, item.GetName())
		}
		return found
	}
	assert.ElementsMatch(t, []string{"isthmus-webhook", "isthmus-webhook-ca"}, names(certificates))
	assert.ElementsMatch(t, []string{"isthmus-webhook-selfsigned", "isthmus-webhook-ca"}, names(issuers))
	_, err = c.client.CoreV1().Secrets("issued").Get(t.Context(), "isthmus-webhook-ca", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "there is no self-managed CA: %v", err)
	assert.Equal(t, "issued/isthmus-webhook", configuration(t, c).Annotations["cert-manager.io/inject-ca-from"])
	assert.Equal(t, "issued/isthmus-webhook", validatingConfiguration(t, c).Annotations["cert-manager.io/inject-ca-from"])
}

// createCRD creates a CRD of cert-manager, from the module that Isthmus uses, unless it
// exists.
func createCRD(t *testing.T, client dynamic.Interface, name string, resource apischema.GroupVersionResource) {
	t.Helper()
	moduleDir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager").Output()
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(moduleDir)), "deploy", "crds", "cert-manager.io_"+name+".yaml"))
	require.NoError(t, err)
	definition := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal(data, &definition.Object))
	definitions := client.Resource(apischema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	_, err = definitions.Create(t.Context(), definition, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := definitions.Delete(ctx, definition.GetName(), metav1.DeleteOptions{}); err != nil {
			t.Errorf("remove %s: %v", definition.GetName(), err)
		}
	})
	require.NoError(t, wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		_, err := client.Resource(resource).List(ctx, metav1.ListOptions{})
		return err == nil, nil
	}), "await %s", definition.GetName())
}
