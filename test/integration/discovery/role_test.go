package discovery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// istio is a namespace in which a test installs Istio's objects.
type istio struct {
	admin     *kubernetes.Clientset
	namespace string
	// role and binding hold the webhook's permissions in the namespace.
	role    *rbacv1.Role
	binding *rbacv1.RoleBinding
	// clusterRole and clusterBinding hold its permissions in the whole cluster.
	clusterRole    *rbacv1.ClusterRole
	clusterBinding *rbacv1.ClusterRoleBinding
	mu             sync.Mutex
	queries        []string
}

func newIstio(t *testing.T) *istio {
	t.Helper()
	client, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	ns, err := client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "istio-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	i := &istio{admin: client, namespace: ns.Name}
	t.Cleanup(func() {
		_ = client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), i.namespace, metav1.DeleteOptions{})
	})

	helm, err := controlplane.Tool(t.Context(), "helm")
	require.NoError(t, err)
	rendered, err := exec.Command(helm, "template", "isthmus", "../../../charts/isthmus", "--kube-version", "1.30.0",
		"--namespace", i.namespace, "--set", "istio.namespace="+i.namespace, "--show-only", "templates/rbac.yaml").Output()
	require.NoError(t, err)
	for _, o := range decode(t, rendered) {
		switch o := o.(type) {
		case *rbacv1.Role:
			if o.Name == "isthmus-mesh-reader" {
				i.role = o
			}
		case *rbacv1.RoleBinding:
			if o.Name == "isthmus-mesh-reader" {
				i.binding = o
			}
		case *rbacv1.ClusterRole:
			if o.Name == "isthmus-mesh-reader" {
				i.clusterRole = o
			}
		case *rbacv1.ClusterRoleBinding:
			if o.Name == "isthmus-mesh-reader" {
				i.clusterBinding = o
			}
		}
	}
	require.NotNil(t, i.role)
	require.NotNil(t, i.binding)
	require.NotNil(t, i.clusterRole)
	require.NotNil(t, i.clusterBinding)
	// Each test binds the cluster role to its own service account.
	i.clusterRole.Name += "-" + i.namespace
	i.clusterBinding.Name, i.clusterBinding.RoleRef.Name = i.clusterRole.Name, i.clusterRole.Name
	return i
}

// grant gives the webhook the chart's permissions in the namespace.
func (i *istio) grant(t *testing.T) {
	t.Helper()
	_, err := i.admin.RbacV1().Roles(i.namespace).Create(t.Context(), i.role, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = i.admin.RbacV1().RoleBindings(i.namespace).Create(t.Context(), i.binding, metav1.CreateOptions{})
	require.NoError(t, err)
}

// grantInCluster gives the webhook the chart's permissions on cluster-scoped objects.
func (i *istio) grantInCluster(t *testing.T) {
	t.Helper()
	roles, bindings := i.admin.RbacV1().ClusterRoles(), i.admin.RbacV1().ClusterRoleBindings()
	_, err := roles.Create(t.Context(), i.clusterRole, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, roles.Delete(context.WithoutCancel(t.Context()), i.clusterRole.Name, metav1.DeleteOptions{}))
	})
	_, err = bindings.Create(t.Context(), i.clusterBinding, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, bindings.Delete(context.WithoutCancel(t.Context()), i.clusterBinding.Name, metav1.DeleteOptions{}))
	})
}

// webhook returns a client that acts as the chart's service account and records the
// selectors of its requests.
func (i *istio) webhook(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	subject := i.binding.Subjects[0]
	config := rest.CopyConfig(admin)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + subject.Namespace + ":" + subject.Name,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + subject.Namespace, "system:authenticated"},
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			i.mu.Lock()
			i.queries = append(i.queries, r.URL.Query().Get("fieldSelector")+r.URL.Query().Get("labelSelector"))
			i.mu.Unlock()
			return next.RoundTrip(r)
		})
	})
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return client
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// selectors returns the selectors of the requests so far.
func (i *istio) selectors() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string(nil), i.queries...)
}

// install creates the objects in a fixture of internal/mesh.
func (i *istio) install(t *testing.T, fixture string) {
	t.Helper()
	data, err := os.ReadFile("../../../internal/mesh/testdata/" + fixture)
	require.NoError(t, err)
	for _, o := range decode(t, data) {
		switch o := o.(type) {
		case *corev1.ConfigMap:
			o.Namespace = i.namespace
			_, err = i.admin.CoreV1().ConfigMaps(i.namespace).Create(t.Context(), o, metav1.CreateOptions{})
		case *appsv1.Deployment:
			o.Namespace = i.namespace
			for c := range o.Spec.Template.Spec.Containers {
				o.Spec.Template.Spec.Containers[c].Image = "example.org/istiod"
			}
			_, err = i.admin.AppsV1().Deployments(i.namespace).Create(t.Context(), o, metav1.CreateOptions{})
		}
		require.NoError(t, err)
	}
}

// setMesh sets the key mesh of a ConfigMap.
func (i *istio) setMesh(t *testing.T, name, value string) {
	t.Helper()
	api := i.admin.CoreV1().ConfigMaps(i.namespace)
	cm, err := api.Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	cm.Data["mesh"] = value
	_, err = api.Update(t.Context(), cm, metav1.UpdateOptions{})
	require.NoError(t, err)
}

func decode(t *testing.T, data []byte) []runtime.Object {
	t.Helper()
	var objects []runtime.Object
	for docs := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(data))); ; {
		doc := make([]byte, len(data))
		n, err := docs.Read(doc)
		if errors.Is(err, io.EOF) {
			return objects
		}
		require.NoError(t, err)
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc[:n], nil, nil)
		if runtime.IsMissingKind(err) {
			continue // comments of a template that rendered nothing
		}
		require.NoError(t, err)
		objects = append(objects, o)
	}
}
