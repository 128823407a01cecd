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

// rules are the least rights of an account that runs the source, in the
// namespaces of edges. Those on issuers may be missing: then a certificate that
// is pending says less about why.
func rules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{"cert-manager.io"}, Resources: []string{"certificates"}, ResourceNames: []string{secretName}, Verbs: []string{"get", "create", "patch", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{secretName + "-issued"}, Verbs: []string{"get", "delete"}},
		{APIGroups: []string{"cert-manager.io"}, Resources: []string{"issuers"}, ResourceNames: []string{"ca"}, Verbs: []string{"get"}},
	}
}

// world is a namespace with an issuer, and the source with rules as its rights.
type world struct {
	client    client.Client
	namespace string
	// account is how to reach the API server with the source's rights.
	account *rest.Config
	source  *certmanager.Source
	// applies counts what the source applied, in vain or not.
	applies atomic.Int32
	request certs.Request
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

// newWorld makes a world whose mesh trusts root. The issuer is not there yet.
func newWorld(t *testing.T, root *certtest.Pair) *world {
	t.Helper()
	all := runtime.NewScheme()
	require.NoError(t, scheme.AddToScheme(all))
	require.NoError(t, cmapi.AddToScheme(all))
	c, err := client.New(admin, client.Options{Scheme: all})
	require.NoError(t, err)
	w := &world{client: c}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "edge-"}}
	w.create(t, ns)
	w.namespace = ns.Name

	user := "system:serviceaccount:isthmus-system:" + w.namespace
	w.create(t, &rbacv1.Role{ObjectMeta: w.meta("source"), Rules: rules()})
	w.create(t, &rbacv1.RoleBinding{
		ObjectMeta: w.meta("source"), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "source"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	})
	w.account = rest.CopyConfig(admin)
	w.account.Impersonate.UserName = user
	w.account.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPatch {
				w.applies.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	eventually(t, "the rights are granted", func() bool { return w.may(t, "get", rules()[0]) })
	w.source, err = newSource(w.account, cmmeta.IssuerReference{Name: "ca"})
	require.NoError(t, err)

	id, err := certs.Identity("cluster.local", w.namespace, "emissary-ingress")
	require.NoError(t, err)
	w.request = certs.Request{
		Namespace: w.namespace, ServiceAccount: "emissary-ingress", Secret: secretName, TTL: 6 * time.Hour,
		Want: certs.Want{ID: id, Roots: []*x509.Certificate{root.Certificate}},
	}
	return w
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (w *world) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: w.namespace, Name: name}
}

func (w *world) create(t *testing.T, o client.Object) {
	t.Helper()
	require.NoError(t, w.client.Create(t.Context(), o))
}

// issue makes the issuer, with ca as its CA.
func (w *world) issue(t *testing.T, ca *certtest.Pair) {
	t.Helper()
	w.create(t, &corev1.Secret{
		ObjectMeta: w.meta("ca"), Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": ca.CertificatePEM, "tls.key": ca.KeyPEM},
	})
	w.create(t, &cmapi.Issuer{
		ObjectMeta: w.meta("ca"),
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}},
	})
}

func (w *world) bundle(t *testing.T) (*certs.Bundle, error) {
	t.Helper()
	w.request.Want.Now = time.Now()
	return w.source.Bundle(t.Context(), w.request)
}

// await asks until the source answers otherwise than pending.
func (w *world) await(t *testing.T) (bundle *certs.Bundle, err error) {
	t.Helper()
	eventually(t, "it is issued", func() bool {
		bundle, err = w.bundle(t)
		return !errors.Is(err, certs.ErrPending)
	})
	return bundle, err
}

func (w *world) certificate(t *testing.T) *cmapi.Certificate {
	t.Helper()
	c := &cmapi.Certificate{}
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: secretName}, c))
	return c
}

func (w *world) staging(t *testing.T) *corev1.Secret {
	t.Helper()
	s := &corev1.Secret{}
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: secretName + "-issued"}, s))
	return s
}

func (w *world) assertGone(t *testing.T, o client.Object) {
	t.Helper()
	err := w.client.Get(t.Context(), client.ObjectKeyFromObject(o), o)
	assert.Truef(t, apierrors.IsNotFound(err), "%s is still there: %v", o.GetName(), err)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	// cert-manager's queues back off to 5 s, and the machine may be busy.
	require.Eventually(t, is, 60*time.Second, 50*time.Millisecond, what)
}
