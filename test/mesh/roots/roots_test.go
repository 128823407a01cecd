package roots_test

import (
	"context"
	"crypto/x509"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/mesh"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// newUser returns a client for a user without any permissions.
func newUser(t *testing.T, name string) *kubernetes.Clientset {
	t.Helper()
	config := rest.CopyConfig(admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: []string{"system:authenticated"}}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return client
}

// grantConfigMap lets a user get and watch one ConfigMap, and nothing else.
func grantConfigMap(t *testing.T, name, namespace, configMap string) {
	t.Helper()
	_, err := istiod.Client.RbacV1().Roles(namespace).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{configMap}, Verbs: []string{"get", "watch"}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = istiod.Client.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

func startRoots(t *testing.T, o mesh.RootsOptions) *mesh.Roots {
	t.Helper()
	r, err := mesh.NewRoots(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return r
}

func eventually(t *testing.T, description string, condition func() bool) {
	t.Helper()
	// The backoff after a refusal grows to half a minute.
	require.Eventually(t, condition, 90*time.Second, 10*time.Millisecond, description)
}

// hasRoots reports whether the roots are exactly these.
func hasRoots(r *mesh.Roots, want ...*x509.Certificate) bool {
	got, err := r.Roots()
	return err == nil && len(got) == len(want) && !slices.ContainsFunc(want, func(c *x509.Certificate) bool {
		return !slices.ContainsFunc(got, c.Equal)
	})
}

func TestRootsOfIstiodAreFollowed(t *testing.T) {
	t.Cleanup(func() {
		istiod.Options.CA = nil
		assert.NoError(t, istiod.Restart(context.WithoutCancel(t.Context())))
	})
	client := newUser(t, "follower")
	r := startRoots(t, mesh.RootsOptions{Client: client})
	eventually(t, "the refusal is reported", r.HasSynced)
	_, err := r.Roots()
	assert.ErrorContains(t, err, "ConfigMap istio-system/istio-ca-root-cert: ")
	assert.ErrorContains(t, err, "forbidden")

	grantConfigMap(t, "follower", istio.Namespace, istio.RootConfigMap)
	published, err := istiod.Roots(t.Context(), istio.Namespace)
	require.NoError(t, err)
	istiodRoots, err := certs.ParseCertificates(published)
	require.NoError(t, err)
	eventually(t, "istiod's own roots are read", func() bool { return hasRoots(r, istiodRoots...) })

	var changes atomic.Int32
	r.OnChange(func() { changes.Add(1) })
	one := certtest.NewAuthority(t, certtest.CommonName("one"))
	two := certtest.NewAuthority(t, certtest.CommonName("two"))
	istiod.Options.CA = istio.NewCA(one.Intermediate(t), one, two)
	require.NoError(t, istiod.Restart(t.Context()))
	eventually(t, "both roots are read", func() bool { return hasRoots(r, one.Certificate, two.Certificate) })
	istiod.Options.CA = istio.NewCA(two.Intermediate(t), two)
	require.NoError(t, istiod.Restart(t.Context()))
	eventually(t, "the new root alone is read", func() bool { return hasRoots(r, two.Certificate) })
	assert.NoError(t, r.Err())
	eventually(t, "the change callback is called for both changes", func() bool { return changes.Load() == 2 })
}

func TestRootsOfAConfiguredConfigMapAreFollowed(t *testing.T) {
	const namespace, name = "elsewhere", "our-roots"
	one, two := certtest.NewAuthority(t), certtest.NewAuthority(t)
	require.NoError(t, istiod.CreateNamespace(t.Context(), namespace, nil))
	grantConfigMap(t, "elsewhere", namespace, name)
	r := startRoots(t, mesh.RootsOptions{
		Client: newUser(t, "elsewhere"), Namespace: namespace,
		Mesh: func() (patches.Mesh, error) { return patches.Mesh{RootConfigMap: name}, nil },
	})
	eventually(t, "the roots have synced", r.HasSynced)
	assert.EqualError(t, r.Err(), "ConfigMap elsewhere/our-roots does not exist")

	api := istiod.Client.CoreV1().ConfigMaps(namespace)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"root-cert.pem": string(one.CertificatePEM)}}
	_, err := api.Create(t.Context(), cm, metav1.CreateOptions{})
	require.NoError(t, err)
	eventually(t, "the roots are read", func() bool { return hasRoots(r, one.Certificate) })

	cm.Data["root-cert.pem"] = "nothing"
	_, err = api.Update(t.Context(), cm, metav1.UpdateOptions{})
	require.NoError(t, err)
	eventually(t, "the error is reported", func() bool { return r.Err() != nil })
	assert.True(t, hasRoots(r, one.Certificate))
	require.NoError(t, api.Delete(t.Context(), name, metav1.DeleteOptions{}))
	eventually(t, "the deletion is reported", func() bool {
		return r.Err() != nil && r.Err().Error() == "ConfigMap elsewhere/our-roots does not exist"
	})
	cm.Data["root-cert.pem"] = string(two.CertificatePEM)
	_, err = api.Create(t.Context(), cm, metav1.CreateOptions{})
	require.NoError(t, err)
	eventually(t, "the new roots are read", func() bool { return hasRoots(r, two.Certificate) })
}

// The control plane of the tests has no ClusterTrustBundles: they are off by default up to
// Kubernetes 1.36.
func TestMissingClusterTrustBundleAPIIsReported(t *testing.T) {
	r := startRoots(t, mesh.RootsOptions{
		Client: newUser(t, "bundles"),
		Mesh: func() (patches.Mesh, error) {
			return patches.Mesh{RootClusterTrustBundle: "istio.io:istiod-ca:root-cert"}, nil
		},
	})
	eventually(t, "the roots have synced", r.HasSynced)
	assert.ErrorContains(t, r.Err(), "ClusterTrustBundle istio.io:istiod-ca:root-cert: ")
}
