package istiocasource_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/certs/istioca"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

func TestBundleIsIssued(t *testing.T) {
	e := newEdge(t, "issue")
	s, r := e.source(t), e.request(t)
	var took []time.Duration
	serials := make(map[string]bool)
	for range 20 {
		start := time.Now()
		b := requestBundle(t, s, r)
		took = append(took, time.Since(start))
		serials[b.Serial()] = true
		assert.Equal(t, "spiffe://cluster.local/ns/issue/sa/edge", b.ID().String())
		assert.WithinDuration(t, time.Now().Add(30*time.Minute), b.NotAfter(), time.Minute)
	}
	assert.Len(t, serials, 20)
	t.Logf("the first issue took %s, the median is %s", took[0], slices.Sorted(slices.Values(took))[10])

	b := requestBundle(t, s, r)
	chain, err := certs.ParseCertificates(b.Chain())
	require.NoError(t, err)
	assert.Len(t, chain, 1, "istiod's own authority signs without an intermediate")
	assert.WithinDuration(t, time.Now().Add(-2*time.Minute), b.NotBefore(), time.Minute, "istiod backdates")
	roots, err := istiod.Roots(t.Context(), "issue")
	require.NoError(t, err)
	assert.Equal(t, string(roots), string(b.Roots()))

	r.TTL = 0
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), requestBundle(t, s, r).NotAfter(), time.Minute, "istiod's default")
}

func TestLifetimeAboveTheMaximumFallsBackToTheDefault(t *testing.T) {
	e := newEdge(t, "lifetime")
	var lines []string
	s := e.source(t, func(o *istioca.Options) {
		o.Log = funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{})
	})
	r := e.request(t)
	r.TTL = 2 * time.Hour

	before := csrCount(t)
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), requestBundle(t, s, r).NotAfter(), time.Minute)
	assert.Equal(t, 2, csrCount(t)-before)
	require.Len(t, lines, 1)
	assert.Contains(t, lines[0], "CSR signing error (requested TTL 2h0m0s is greater than the max allowed TTL 1h0m0s)")

	before = csrCount(t)
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), requestBundle(t, s, r).NotAfter(), time.Minute)
	r.TTL = time.Hour
	assert.WithinDuration(t, time.Now().Add(time.Hour), requestBundle(t, s, r).NotAfter(), time.Minute, "an allowed lifetime is still requested")
	assert.Equal(t, 2, csrCount(t)-before, "a refused lifetime is not requested again")
	assert.Len(t, lines, 1)
}

func TestRefusals(t *testing.T) {
	e := newEdge(t, "refusals")
	unprivileged := rest.CopyConfig(admin)
	unprivileged.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:default:nobody", Groups: []string{"system:authenticated"}}
	unprivilegedClient, err := kubernetes.NewForConfig(unprivileged)
	require.NoError(t, err)
	stranger := certtest.NewAuthority(t).Certificate
	id, err := certs.Identity(istio.TrustDomain, e.namespace, "other")
	require.NoError(t, err)

	for name, c := range map[string]struct {
		request func(*certs.Request)
		options func(*istioca.Options)
		reason  istioca.Reason
		message string
	}{
		"if the audience is not istiod's, expect unauthenticated": {
			request: func(r *certs.Request) { r.TokenAudience = "somebody-else" },
			reason:  istioca.Unauthenticated,
			message: `Unauthenticated: request authenticate failure (istiod's TOKEN_AUDIENCES has to contain the audience "somebody-else"`,
		},
		"if the cluster id is not istiod's, expect unauthenticated": {
			request: func(r *certs.Request) { r.ClusterID = "elsewhere" },
			reason:  istioca.Unauthenticated,
			message: `its CLUSTER_ID has to be the cluster ID "elsewhere"`,
		},
		"if the service account does not exist, expect account-missing": {
			request: func(r *certs.Request) { r.ServiceAccount = "nobody" },
			reason:  istioca.AccountMissing,
			message: `certificate for service account refusals/nobody from ` + istiod.Address + `: account-missing: serviceaccounts "nobody" not found`,
		},
		"if the client may not create tokens, expect token-forbidden": {
			options: func(o *istioca.Options) { o.Client = unprivilegedClient },
			reason:  istioca.TokenForbidden,
			message: `cannot create resource "serviceaccounts/token"`,
		},
		"if the roots are another mesh's, expect untrusted": {
			options: func(o *istioca.Options) {
				o.Timeout = time.Second
				o.Roots = func() ([]*x509.Certificate, error) { return []*x509.Certificate{stranger}, nil }
			},
			reason:  istioca.Untrusted,
			message: "certificate signed by unknown authority",
		},
		"if the name is not istiod's, expect untrusted": {
			request: func(r *certs.Request) { r.CAServerName = "istiod.elsewhere.svc" },
			options: func(o *istioca.Options) { o.Timeout = time.Second },
			reason:  istioca.Untrusted,
			message: "certificate is valid for",
		},
		"if no name is given, expect the address to be the name": {
			request: func(r *certs.Request) { r.CAAddress = strings.Replace(r.CAAddress, "127.0.0.1", "localhost", 1) },
			options: func(o *istioca.Options) { o.Timeout = time.Second },
			reason:  istioca.Untrusted,
			message: "not localhost",
		},
		"if no server is at the address, expect unavailable": {
			request: func(r *certs.Request) { r.CAAddress = "127.0.0.1:1" },
			options: func(o *istioca.Options) { o.Timeout = time.Second },
			reason:  istioca.Unavailable,
			message: "127.0.0.1:1: unavailable: ",
		},
		"if the identity is another account's, expect rejected": {
			request: func(r *certs.Request) { r.Want.ID = id },
			reason:  istioca.Rejected,
			message: `want SPIFFE ID "spiffe://cluster.local/ns/refusals/sa/other", got "spiffe://cluster.local/ns/refusals/sa/edge"`,
		},
		"if the mesh does not trust the issuer, expect rejected": {
			request: func(r *certs.Request) { r.Want.Roots = []*x509.Certificate{stranger} },
			reason:  istioca.Rejected,
			message: "untrusted: ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := e.request(t)
			if c.request != nil {
				c.request(&r)
			}
			s := e.source(t)
			if c.options != nil {
				s = e.source(t, c.options)
			}
			_, err := s.Bundle(t.Context(), r)
			require.Error(t, err)
			assert.Equal(t, c.reason, istioca.ReasonOf(err), "%v", err)
			assert.ErrorContains(t, err, c.message)
			assert.NotContains(t, err.Error(), "eyJ", "no token")
		})
	}
}

func TestRequestsFollowARestartOfIstiod(t *testing.T) {
	e := newEdge(t, "restart")
	s, r := e.source(t), e.request(t)
	requestBundle(t, s, r)
	istiod.Kill()
	require.NoError(t, istiod.Restart(t.Context()))
	requestBundle(t, s, r)

	// While istiod is down, requests fail at once. The source says when it is back.
	available := make(chan struct{}, 10)
	s.OnAvailable(func() { available <- struct{}{} })
	istiod.Kill()
	require.Eventually(t, func() bool {
		_, err := s.Bundle(t.Context(), r)
		return istioca.ReasonOf(err) == istioca.Unavailable
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, istiod.Restart(t.Context()))
	select {
	case <-available:
	case <-time.After(time.Minute):
		t.Fatal("the source did not say that istiod is back")
	}
	requestBundle(t, s, r)
}

func TestUnreachableIstiodIsReportedAsUnavailable(t *testing.T) {
	e := newEdge(t, "down")
	s, r := e.source(t, func(o *istioca.Options) { o.Timeout = 2 * time.Second }), e.request(t)
	requestBundle(t, s, r)
	istiod.Kill()
	t.Cleanup(func() { assert.NoError(t, istiod.Restart(context.WithoutCancel(t.Context()))) })
	for range 2 {
		start := time.Now()
		_, err := s.Bundle(t.Context(), r)
		assert.Equal(t, istioca.Unavailable, istioca.ReasonOf(err), "%v", err)
		assert.Less(t, time.Since(start), 10*time.Second)
	}
	require.NoError(t, istiod.Restart(t.Context()))
	require.Eventually(t, func() bool { _, err := s.Bundle(t.Context(), r); return err == nil }, time.Minute, time.Millisecond)
}

func TestBundlesFollowARotationOfTheRoot(t *testing.T) {
	t.Cleanup(func() {
		istiod.Options.CA = nil
		assert.NoError(t, istiod.Restart(context.WithoutCancel(t.Context())))
	})
	before := certtest.NewAuthority(t, certtest.CommonName("the root before"))
	after := certtest.NewAuthority(t, certtest.CommonName("the root after"))
	e := newEdge(t, "rotation")
	installCA := func(ca *istio.CA) {
		istiod.Options.CA = ca
		require.NoError(t, istiod.Restart(t.Context()))
		// Istio's own namespace has the roots earlier than the others.
		require.Eventually(t, func() bool {
			roots, err := istiod.Roots(t.Context(), e.namespace)
			return err == nil && bytes.Equal(bytes.TrimSpace(roots), bytes.TrimSpace(ca.Roots))
		}, time.Minute, 50*time.Millisecond)
	}
	installCA(istio.NewCA(before.Intermediate(t), before))
	s := e.source(t)
	named := e.request(t)
	named.CAServerName = istio.ServerName
	requestBundle(t, e.source(t), named)
	first := requestBundle(t, s, e.request(t))
	chain, err := certs.ParseCertificates(first.Chain())
	require.NoError(t, err)
	require.Len(t, chain, 2, "leaf and intermediate, without the root")
	assert.Equal(t, string(before.CertificatePEM), string(first.Roots()))

	// Both roots are trusted, then the new one signs, then it is the only one.
	installCA(istio.NewCA(before.Intermediate(t), before, after))
	stale := e.request(t)
	stale.Want.Roots = []*x509.Certificate{before.Certificate}
	both := requestBundle(t, s, stale)
	assert.Equal(t, string(before.CertificatePEM), string(both.Roots()), "the roots are the mesh's, not those of the answer")
	both = requestBundle(t, s, e.request(t))
	roots, err := certs.ParseCertificates(both.Roots())
	require.NoError(t, err)
	assert.Len(t, roots, 2)

	installCA(istio.NewCA(after.Intermediate(t), before, after))
	requestBundle(t, s, e.request(t))
	_, err = s.Bundle(t.Context(), stale)
	assert.Equal(t, certs.Untrusted, certs.ReasonOf(err), "%v", err)

	installCA(istio.NewCA(after.Intermediate(t), after))
	assert.Equal(t, string(after.CertificatePEM), string(requestBundle(t, s, e.request(t)).Roots()))
}

func TestConcurrentRequestsGetDifferentCertificates(t *testing.T) {
	e := newEdge(t, "many")
	r := e.request(t)
	roots := r.Want.Roots
	s := e.source(t, func(o *istioca.Options) { o.Roots = func() ([]*x509.Certificate, error) { return roots, nil } })
	const many = 200
	var mu sync.Mutex
	serials := make(map[string]bool)
	start := time.Now()
	var group sync.WaitGroup
	for range many {
		group.Go(func() {
			b, err := s.Bundle(t.Context(), r)
			if !assert.NoError(t, err) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			serials[b.Serial()] = true
		})
	}
	group.Wait()
	assert.Len(t, serials, many)
	t.Logf("%d certificates in %s", many, time.Since(start))
}

// istiod signs keys of every kind and size that Istio's agent may be told to create.
func TestIstiodSignsTheKeysOfItsAgents(t *testing.T) {
	e := newEdge(t, "keys")
	s := e.source(t)
	for name, settings := range map[string]certs.KeySettings{
		"P-256": {SignatureAlgorithm: "ECDSA"}, "P-384": {SignatureAlgorithm: "ECDSA", Curve: "P384"},
		"RSA 2048": {RSASize: "2048"}, "RSA 4096": {RSASize: "4096"},
	} {
		t.Run(name, func(t *testing.T) {
			r := e.request(t)
			r.Key = settings
			b := requestBundle(t, s, r)
			pair, err := tls.X509KeyPair(b.Chain(), b.Key())
			require.NoError(t, err)
			want, err := settings.Algorithm()
			require.NoError(t, err)
			switch key := pair.PrivateKey.(type) {
			case *ecdsa.PrivateKey:
				assert.Equal(t, want, certs.KeyAlgorithm{Type: certs.ECDSA, Size: key.Curve.Params().BitSize})
			case *rsa.PrivateKey:
				assert.Equal(t, want, certs.KeyAlgorithm{Type: certs.RSA, Size: key.N.BitLen()})
			default:
				assert.Fail(t, "unexpected key", "%T", key)
			}
		})
	}
}
