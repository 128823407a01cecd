package controller

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/internal/certs/istioca"
	"github.com/isthmus-mesh/isthmus/internal/certs/mirror"
	"github.com/isthmus-mesh/isthmus/internal/controller"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// silentCA accepts connections and never answers. It returns its address, and the largest
// number of connections at a time.
func silentCA(t *testing.T) (address string, most *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	var open atomic.Int32
	most = &atomic.Int32{}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			most.Store(max(most.Load(), open.Add(1)))
			go func() {
				for buffer := make([]byte, 1<<12); err == nil; {
					_, err = c.Read(buffer)
				}
				open.Add(-1)
				_ = c.Close()
			}()
		}
	}()
	return listener.Addr().String(), most
}

// tokenCounter is a client of the API server that counts the tokens that it requests.
func tokenCounter(t *testing.T) (kubernetes.Interface, *atomic.Int32) {
	t.Helper()
	tokens := &atomic.Int32{}
	config := rest.CopyConfig(admin)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/token") {
				tokens.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	kube, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return kube, tokens
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestOutageHoldsUpNobodyElse has fifty namespaces that wait for a CA which does not answer.
// A deleted Secret of another source is repaired at once nevertheless.
func TestOutageHoldsUpNobodyElse(t *testing.T) {
	address, connections := silentCA(t)
	kube, tokens := tokenCounter(t)
	secrets, err := publish.NewClient(admin)
	require.NoError(t, err)
	env := newEnvironment(t, withoutTimers, func(o *controller.Options) {
		ca, err := istioca.New(istioca.Options{Client: kube, Roots: o.Roots.Roots})
		require.NoError(t, err)
		t.Cleanup(ca.Close)
		o.Settings.MirrorSecretNames = []string{"istio.edge"}
		o.Sources = map[policy.Source]controller.Source{policy.IstioCA: ca, policy.Mirror: &mirror.Mirror{Secrets: secrets}}
		mesh := patches.Mesh{CAAddress: address}.WithDefaults()
		o.Mesh = func(string) (patches.Mesh, error) { return mesh, nil }
	})
	mirrored := env.createNamespace(map[string]string{policy.SourceKey: string(policy.Mirror), policy.ServiceAccountKey: "edge"}, "edge")
	signer := env.mesh.currentSigner()
	leaf := signer.Leaf(t, certtest.URIs(parseID(t, spiffeID(mirrored, "edge")).URL()))
	_, err = env.kube.CoreV1().Secrets(mirrored).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "istio.edge"},
		Data:       map[string][]byte{"key.pem": leaf.KeyPEM, "cert-chain.pem": leaf.ChainPEM, "root-cert.pem": signer.CertificatePEM},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	env.awaitSecret(mirrored, "istio-certs", anySecret)
	var waiting []string
	for range 50 {
		waiting = append(waiting, env.createNamespace(map[string]string{policy.ServiceAccountKey: "edge"}, "edge"))
	}
	env.awaitEvent(waiting[len(waiting)-1], "Secret", "istio-certs", "Failed")

	var took []time.Duration
	for range 20 {
		before := env.awaitSecret(mirrored, "istio-certs", anySecret)
		began := time.Now()
		require.NoError(t, env.kube.CoreV1().Secrets(mirrored).Delete(t.Context(), "istio-certs", metav1.DeleteOptions{}))
		env.awaitSecret(mirrored, "istio-certs", func(s *corev1.Secret) bool { return s.UID != before.UID })
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("repaired in %s (median), %s (longest)", took[len(took)/2], took[len(took)-1])
	assert.Less(t, took[len(took)/2], time.Second)
	assert.Zero(t, tokens.Load(), "no token without a connection")
	assert.EqualValues(t, 1, connections.Load(), "one attempt to connect at a time")
}
