package publish

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

const (
	secretName  = "istio-certs"
	account     = "emissary"
	trustDomain = "cluster.local"
	serialKey   = "isthmus.dev/serial"
	adoptKey    = "isthmus.dev/adopt"
)

// edge is a namespace with an edge's account, which may only get, patch and create the
// Secret, by its name.
type edge struct {
	t         testing.TB
	namespace string
	admin     kubernetes.Interface
	account   *rest.Config
	root      *certtest.Pair
}

func newEdge(t testing.TB) *edge {
	t.Helper()
	ctx := t.Context()
	client, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	ns, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "publish-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = client.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), ns.Name, metav1.DeleteOptions{})
	})
	e := &edge{t: t, namespace: ns.Name, admin: client, root: certtest.NewAuthority(t,
		certtest.Validity(time.Now().Add(-1000*time.Hour), time.Now().Add(10000*time.Hour)))}

	objectMeta := metav1.ObjectMeta{Name: account, Namespace: e.namespace}
	_, err = client.CoreV1().ServiceAccounts(e.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: objectMeta}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = client.RbacV1().Roles(e.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: objectMeta, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{secretName}, Verbs: []string{"get", "watch", "patch", "create"},
	}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = client.RbacV1().RoleBindings(e.namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: objectMeta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: e.namespace, Name: account}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	hour := int64(3600)
	token, err := client.CoreV1().ServiceAccounts(e.namespace).CreateToken(ctx, account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour}}, metav1.CreateOptions{})
	require.NoError(t, err)
	e.account = rest.AnonymousClientConfig(admin)
	e.account.BearerToken, e.account.QPS = token.Status.Token, -1
	// The authorizer sees a new binding through a watch, a moment later.
	require.Eventually(t, func() bool {
		_, err := e.client().Get(ctx, e.namespace, secretName)
		return err != nil && metav1.StatusReasonNotFound == reasonOf(err)
	}, 30*time.Second, 10*time.Millisecond, "the account is authorized")
	return e
}

func (e *edge) client() *publish.Client {
	e.t.Helper()
	c, err := publish.NewClient(e.account)
	require.NoError(e.t, err)
	return c
}

func (e *edge) id() spiffeid.ID {
	e.t.Helper()
	id, err := certs.Identity(trustDomain, e.namespace, account)
	require.NoError(e.t, err)
	return id
}

func (e *edge) target() publish.Target {
	return publish.Target{
		Namespace: e.namespace, Name: secretName, ID: e.id(), Source: "agent", Roots: []*x509.Certificate{e.root.Certificate},
	}
}

// leaf is a certificate of the edge.
func (e *edge) leaf(from, until time.Time) *certtest.Pair {
	e.t.Helper()
	return e.leafFor(e.id(), from, until)
}

func (e *edge) leafFor(id spiffeid.ID, from, until time.Time) *certtest.Pair {
	e.t.Helper()
	uri, err := url.Parse(id.String())
	require.NoError(e.t, err)
	return e.root.Leaf(e.t, certtest.URIs(uri), certtest.Validity(from, until))
}

// bundle is a bundle that is issued now and has this lifetime.
func (e *edge) bundle(now time.Time, life time.Duration) *certs.Bundle {
	e.t.Helper()
	return e.bundleFor(e.id(), now, life)
}

func (e *edge) bundleFor(id spiffeid.ID, now time.Time, life time.Duration) *certs.Bundle {
	e.t.Helper()
	leaf := e.leafFor(id, now.Add(-2*time.Minute), now.Add(life))
	b, err := certs.New(certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM},
		certs.Want{ID: id, Roots: []*x509.Certificate{e.root.Certificate}, Now: now})
	require.NoError(e.t, err)
	return b
}

func (e *edge) secret() *corev1.Secret {
	e.t.Helper()
	s, err := e.admin.CoreV1().Secrets(e.namespace).Get(e.t.Context(), secretName, metav1.GetOptions{})
	require.NoError(e.t, err)
	return s
}

// create creates the Secret as another client would.
func (e *edge) create(change func(*corev1.Secret)) *corev1.Secret {
	e.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretName}, Data: map[string][]byte{"password": []byte("x")}}
	change(s)
	s, err := e.admin.CoreV1().Secrets(e.namespace).Create(e.t.Context(), s, metav1.CreateOptions{FieldManager: "helm"})
	require.NoError(e.t, err)
	return s
}

// edit changes the Secret as kubectl edit does.
func (e *edge) edit(change func(*corev1.Secret)) *corev1.Secret {
	e.t.Helper()
	s := e.secret()
	change(s)
	s, err := e.admin.CoreV1().Secrets(e.namespace).Update(e.t.Context(), s, metav1.UpdateOptions{FieldManager: "kubectl-edit"})
	require.NoError(e.t, err)
	return s
}

func (e *edge) remove() {
	e.t.Helper()
	require.NoError(e.t, e.admin.CoreV1().Secrets(e.namespace).Delete(e.t.Context(), secretName, metav1.DeleteOptions{}))
}

// history has every version of the Secret since the watch started.
type history struct {
	mu       sync.Mutex
	versions []*corev1.Secret
	at       []time.Time
	added    chan struct{}
}

// watch follows the Secret until the test ends.
func (e *edge) watch() *history {
	e.t.Helper()
	h := &history{added: make(chan struct{}, 1)}
	list, err := e.admin.CoreV1().Secrets(e.namespace).List(e.t.Context(), metav1.ListOptions{})
	require.NoError(e.t, err)
	w, err := e.admin.CoreV1().Secrets(e.namespace).Watch(e.t.Context(), metav1.ListOptions{
		ResourceVersion: list.ResourceVersion, FieldSelector: fields.OneTermEqualSelector("metadata.name", secretName).String(),
	})
	require.NoError(e.t, err)
	var ended sync.WaitGroup
	ended.Go(func() {
		for event := range w.ResultChan() {
			if secret, ok := event.Object.(*corev1.Secret); ok && event.Type != watch.Deleted {
				h.add(secret)
			}
		}
	})
	e.t.Cleanup(func() { w.Stop(); ended.Wait() })
	return h
}

func (h *history) add(s *corev1.Secret) {
	h.mu.Lock()
	h.versions, h.at = append(h.versions, s), append(h.at, time.Now())
	h.mu.Unlock()
	select {
	case h.added <- struct{}{}:
	default:
	}
}

func (h *history) all() []*corev1.Secret {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.versions[:len(h.versions):len(h.versions)]
}

// await waits for a version with this serial number and returns when it was seen.
func (h *history) await(t testing.TB, serial string) time.Time {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if at, ok := h.seen(serial); ok {
			return at
		}
		select {
		case <-h.added:
		case <-deadline:
			require.FailNow(t, "no version with serial "+serial)
		}
	}
}

func (h *history) seen(serial string) (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, s := range h.versions {
		if s.Annotations[serialKey] == serial {
			return h.at[i], true
		}
	}
	return time.Time{}, false
}

// assertComplete asserts that a version has a matching, verified pair, and roots, label
// and annotations that match it.
func (e *edge) assertComplete(s *corev1.Secret) bool {
	e.t.Helper()
	version := fmt.Sprintf("version %s", s.ResourceVersion)
	pair, err := tls.X509KeyPair(s.Data["tls.crt"], s.Data["tls.key"])
	if !assert.NoError(e.t, err, version) {
		return false
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Data["root-cert.pem"])
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: pair.Leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	formatTime := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	renew, parsed := time.Parse(time.RFC3339, s.Annotations["isthmus.dev/renew-after"])
	return assert.NoError(e.t, err, version) &&
		assert.Equal(e.t, s.Data["ca.crt"], s.Data["root-cert.pem"], version) &&
		assert.Equal(e.t, e.root.CertificatePEM, s.Data["ca.crt"], version) &&
		assert.Equal(e.t, e.id().String(), pair.Leaf.URIs[0].String(), version) &&
		assert.Equal(e.t, e.id().String(), s.Annotations["isthmus.dev/spiffe-id"], version) &&
		assert.Equal(e.t, certs.Serial(pair.Leaf), s.Annotations[serialKey], version) &&
		assert.Equal(e.t, formatTime(pair.Leaf.NotBefore), s.Annotations["isthmus.dev/not-before"], version) &&
		assert.Equal(e.t, formatTime(pair.Leaf.NotAfter), s.Annotations["isthmus.dev/not-after"], version) &&
		assert.Equal(e.t, "agent", s.Annotations["isthmus.dev/source"], version) &&
		assert.NoError(e.t, parsed, version) &&
		assert.True(e.t, renew.After(pair.Leaf.NotBefore) && renew.Before(pair.Leaf.NotAfter), version) &&
		assert.Equal(e.t, "isthmus", s.Labels["app.kubernetes.io/managed-by"], version)
}
