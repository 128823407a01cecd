package certmanagersource

import (
	"crypto/x509"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/certs/certmanager"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

const secretName = "istio-certs"

// policyRules returns the least permissions of an account that runs the source in the
// namespaces of edges. Those on issuers are optional: without them the error of a pending
// certificate says less about the cause.
func policyRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{"cert-manager.io"}, Resources: []string{"certificates"}, ResourceNames: []string{secretName}, Verbs: []string{"get", "create", "patch", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{secretName + "-issued"}, Verbs: []string{"get", "delete"}},
		{APIGroups: []string{"cert-manager.io"}, Resources: []string{"issuers"}, ResourceNames: []string{"ca"}, Verbs: []string{"get"}},
	}
}

// environment is a namespace with an issuer, and the source with policyRules as its
// permissions.
type environment struct {
	client    client.Client
	namespace string
	// account reaches the API server with the source's permissions.
	account *rest.Config
	source  *certmanager.Source
	// applyCount counts the server-side applies of the source, successful or not.
	applyCount atomic.Int32
	request    certs.Request
}

func newSource(config *rest.Config, issuer cmmeta.IssuerReference) (*certmanager.Source, error) {
	d, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	secrets, err := publish.NewClient(config)
	if err != nil {
		return nil, err
	}
	return certmanager.New(certmanager.Options{Dynamic: d, Secrets: secrets, Issuer: issuer})
}

// newEnvironment creates an environment whose mesh trusts root. The issuer does not exist
// yet.
func newEnvironment(t *testing.T, root *certtest.Pair) *environment {
	t.Helper()
	kinds := runtime.NewScheme()
	require.NoError(t, scheme.AddToScheme(kinds))
	require.NoError(t, cmapi.AddToScheme(kinds))
	c, err := client.New(admin, client.Options{Scheme: kinds})
	require.NoError(t, err)
	env := &environment{client: c}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "edge-"}}
	env.create(t, ns)
	env.namespace = ns.Name

	user := "system:serviceaccount:isthmus-system:" + env.namespace
	env.create(t, &rbacv1.Role{ObjectMeta: env.objectMeta("source"), Rules: policyRules()})
	env.create(t, &rbacv1.RoleBinding{
		ObjectMeta: env.objectMeta("source"), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "source"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	})
	env.account = rest.CopyConfig(admin)
	env.account.Impersonate.UserName = user
	env.account.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripperFunc(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPatch {
				env.applyCount.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	eventually(t, "the permissions are granted", func() bool { return env.isAllowed(t, "get", policyRules()[0]) })
	env.source, err = newSource(env.account, cmmeta.IssuerReference{Name: "ca"})
	require.NoError(t, err)

	id, err := certs.Identity("cluster.local", env.namespace, "emissary-ingress")
	require.NoError(t, err)
	env.request = certs.Request{
		Namespace: env.namespace, ServiceAccount: "emissary-ingress", Secret: secretName, TTL: 6 * time.Hour,
		Want: certs.Want{ID: id, Roots: []*x509.Certificate{root.Certificate}},
	}
	return env
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (env *environment) objectMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: env.namespace, Name: name}
}

func (env *environment) create(t *testing.T, o client.Object) {
	t.Helper()
	require.NoError(t, env.client.Create(t.Context(), o))
}

// createIssuer creates the issuer, with ca as its CA.
func (env *environment) createIssuer(t *testing.T, ca *certtest.Pair) {
	t.Helper()
	env.create(t, &corev1.Secret{
		ObjectMeta: env.objectMeta("ca"), Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": ca.CertificatePEM, "tls.key": ca.KeyPEM},
	})
	env.create(t, &cmapi.Issuer{
		ObjectMeta: env.objectMeta("ca"),
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}},
	})
}

func (env *environment) requestBundle(t *testing.T) (*certs.Bundle, error) {
	t.Helper()
	env.request.Want.Now = time.Now()
	return env.source.Bundle(t.Context(), env.request)
}

// awaitBundle requests a bundle until the source answers with anything but pending.
func (env *environment) awaitBundle(t *testing.T) (bundle *certs.Bundle, err error) {
	t.Helper()
	eventually(t, "the certificate is issued", func() bool {
		bundle, err = env.requestBundle(t)
		return !errors.Is(err, certs.ErrPending)
	})
	return bundle, err
}

func (env *environment) certificate(t *testing.T) *cmapi.Certificate {
	t.Helper()
	c := &cmapi.Certificate{}
	require.NoError(t, env.client.Get(t.Context(), client.ObjectKey{Namespace: env.namespace, Name: secretName}, c))
	return c
}

func (env *environment) stagingSecret(t *testing.T) *corev1.Secret {
	t.Helper()
	s := &corev1.Secret{}
	require.NoError(t, env.client.Get(t.Context(), client.ObjectKey{Namespace: env.namespace, Name: secretName + "-issued"}, s))
	return s
}

func (env *environment) assertGone(t *testing.T, o client.Object) {
	t.Helper()
	err := env.client.Get(t.Context(), client.ObjectKeyFromObject(o), o)
	assert.Truef(t, apierrors.IsNotFound(err), "%s is still there: %v", o.GetName(), err)
}

func eventually(t *testing.T, description string, condition func() bool) {
	t.Helper()
	// cert-manager's queues back off to 5 s, and the machine may be busy.
	require.Eventually(t, condition, 60*time.Second, 50*time.Millisecond, description)
}
