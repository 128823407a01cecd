package istiocasource_test

import (
	"bytes"
	"context"
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

func TestIssue(t *testing.T) {
	e := newEdge(t, "issue")
	s, r := e.source(t), e.request(t)
	var took []time.Duration
	serials := make(map[string]bool)
	for range 20 {
		begun := time.Now()
		b := issue(t, s, r)
		took = append(took, time.Since(begun))
		serials[b.Serial()] = true
		assert.Equal(t, "spiffe://cluster.local/ns/issue/sa/edge", b.ID().String())
		assert.WithinDuration(t, time.Now().Add(30*time.Minute), b.NotAfter(), time.Minute)
	}
	assert.Len(t, serials, 20)
	t.Logf("the first issue took %s, the median is %s", took[0], slices.Sorted(slices.Values(took))[10])

	b := issue(t, s, r)
	chain, err := certs.ParseCertificates(b.Chain())
	require.NoError(t, err)
	assert.Len(t, chain, 1, "istiod's own authority signs without an intermediate")
	assert.WithinDuration(t, time.Now().Add(-2*time.Minute), b.NotBefore(), time.Minute, "istiod backdates")
	roots, err := istiod.Roots(t.Context(), "issue")
	require.NoError(t, err)
	assert.Equal(t, string(roots), string(b.Roots()))

	r.TTL = 0
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), issue(t, s, r).NotAfter(), time.Minute, "istiod's default")
}

func TestLifetimeAboveTheMaximum(t *testing.T) {
	e := newEdge(t, "lifetime")
	var lines []string
	s := e.source(t, func(o *istioca.Options) {
		o.Log = funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{})
	})
	r := e.request(t)
	r.TTL = 2 * time.Hour

	before := calls(t)
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), issue(t, s, r).NotAfter(), time.Minute)
	assert.Equal(t, 2, calls(t)-before)
	require.Len(t, lines, 1)
	assert.Contains(t, lines[0], "CSR signing error (requested TTL 2h0m0s is greater than the max allowed TTL 1h0m0s)")

	before = calls(t)
	assert.WithinDuration(t, time.Now().Add(10*time.Minute), issue(t, s, r).NotAfter(), time.Minute)
	r.TTL = time.Hour
	assert.WithinDuration(t, time.Now().Add(time.Hour), issue(t, s, r).NotAfter(), time.Minute, "what is allowed is still asked for")
	assert.Equal(t, 2, calls(t)-before, "a lifetime that was refused is not asked for again")
	assert.Len(t, lines, 1)
}

func TestRefusals(t *testing.T) {
	e := newEdge(t, "refusals")
	nobody := rest.CopyConfig(admin)
	nobody.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:default:nobody", Groups: []string{"system:authenticated"}}
	powerless, err := kubernetes.NewForConfig(nobody)
	require.NoError(t, err)
	stranger := certtest.NewAuthority(t).Certificate
	id, err := certs.Identity(istio.TrustDomain, e.namespace, "other")
	require.NoError(t, err)

	for name, c := range map[string]struct {
		request func(*certs.Request)
		options func(*istioca.Options)
		reason  istioca.Reason
		says    string
	}{
		"if the audience is not istiod's, expect unauthenticated": {
			request: func(r *certs.Request) { r.TokenAudience = "somebody-else" },
			reason:  istioca.Unauthenticated,
			says:    `Unauthenticated: request authenticate failure (istiod's TOKEN_AUDIENCES has to contain the audience "somebody-else"`,
		},
		"if the cluster id is not istiod's, expect unauthenticated": {
			request: func(r *certs.Request) { r.ClusterID = "elsewhere" },
			reason:  istioca.Unauthenticated,
			says:    `its CLUSTER_ID has to be the cluster ID "elsewhere"`,
		},
		"if the service account does not exist, expect account-missing": {
			request: func(r *certs.Request) { r.ServiceAccount = "nobody" },
			reason:  istioca.AccountMissing,
			says:    `certificate for service account refusals/nobody from ` + istiod.Address + `: account-missing: serviceaccounts "nobody" not found`,
		},
		"if there is no right to make tokens, expect token-forbidden": {
			options: func(o *istioca.Options) { o.Client = powerless },
			reason:  istioca.TokenForbidden,
			says:    `cannot create resource "serviceaccounts/token"`,
		},
		"if the roots are another mesh's, expect untrusted": {
			options: func(o *istioca.Options) {
				o.Timeout = time.Second
				o.Roots = func() ([]*x509.Certificate, error) { return []*x509.Certificate{stranger}, nil }
			},
			reason: istioca.Untrusted,
			says:   "certificate signed by unknown authority",
		},
		"if the name is not istiod's, expect untrusted": {
			options: func(o *istioca.Options) { o.Timeout, o.ServerName = time.Second, "istiod.elsewhere.svc" },
			reason:  istioca.Untrusted,
			says:    "certificate is valid for",
		},
		"if no name is given, expect the address to be the name": {
			request: func(r *certs.Request) { r.CAAddress = strings.Replace(r.CAAddress, "127.0.0.1", "localhost", 1) },
			options: func(o *istioca.Options) { o.Timeout = time.Second },
			reason:  istioca.Untrusted,
			says:    "not localhost",
		},
		"if nobody is at the address, expect unavailable": {
			request: func(r *certs.Request) { r.CAAddress = "127.0.0.1:1" },
			options: func(o *istioca.Options) { o.Timeout = time.Second },
			reason:  istioca.Unavailable,
			says:    "127.0.0.1:1: unavailable: ",
		},
		"if the identity is another account's, expect rejected": {
			request: func(r *certs.Request) { r.Want.ID = id },
			reason:  istioca.Rejected,
			says:    `want SPIFFE ID "spiffe://cluster.local/ns/refusals/sa/other", got "spiffe://cluster.local/ns/refusals/sa/edge"`,
		},
		"if the mesh does not trust the issuer, expect rejected": {
			request: func(r *certs.Request) { r.Want.Roots = []*x509.Certificate{stranger} },
			reason:  istioca.Rejected,
			says:    "untrusted: ",
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
			assert.ErrorContains(t, err, c.says)
			assert.NotContains(t, err.Error(), "eyJ", "no token")
		})
	}
}

func TestRestartOfIstiod(t *testing.T) {
	e := newEdge(t, "restart")
	s, r := e.source(t), e.request(t)
	issue(t, s, r)
	istiod.Kill()
	require.NoError(t, istiod.Restart(t.Context()))
	issue(t, s, r)

	// Asked while it is down, the source waits until it is back.
	istiod.Kill()
	done := make(chan error, 1)
	go func() {
		_, err := s.Bundle(t.Context(), r)
		done <- err
	}()
	require.NoError(t, istiod.Restart(t.Context()))
	assert.NoError(t, <-done)
}

func TestIstiodIsDownForLong(t *testing.T) {
	e := newEdge(t, "down")
	s, r := e.source(t, func(o *istioca.Options) { o.Timeout = 2 * time.Second }), e.request(t)
	issue(t, s, r)
	istiod.Kill()
	t.Cleanup(func() { assert.NoError(t, istiod.Restart(context.WithoutCancel(t.Context()))) })
	for range 2 {
		begun := time.Now()
		_, err := s.Bundle(t.Context(), r)
		assert.Equal(t, istioca.Unavailable, istioca.ReasonOf(err), "%v", err)
		assert.Less(t, time.Since(begun), 10*time.Second)
	}
	require.NoError(t, istiod.Restart(t.Context()))
	require.Eventually(t, func() bool { _, err := s.Bundle(t.Context(), r); return err == nil }, time.Minute, time.Millisecond)
}

func TestRootRotation(t *testing.T) {
	t.Cleanup(func() {
		istiod.Options.CA = nil
		assert.NoError(t, istiod.Restart(context.WithoutCancel(t.Context())))
	})
	before := certtest.NewAuthority(t, certtest.CommonName("the root before"))
	after := certtest.NewAuthority(t, certtest.CommonName("the root after"))
	e := newEdge(t, "rotation")
	plug := func(ca *istio.CA) {
		istiod.Options.CA = ca
		require.NoError(t, istiod.Restart(t.Context()))
		// Istio's own namespace has the roots before the others have.
		require.Eventually(t, func() bool {
			roots, err := istiod.Roots(t.Context(), e.namespace)
			return err == nil && bytes.Equal(bytes.TrimSpace(roots), bytes.TrimSpace(ca.Roots))
		}, time.Minute, 50*time.Millisecond)
	}
	plug(istio.NewCA(before.Intermediate(t), before))
	s := e.source(t)
	named := e.source(t, func(o *istioca.Options) { o.ServerName = istio.ServerName })
	issue(t, named, e.request(t))
	first := issue(t, s, e.request(t))
	chain, err := certs.ParseCertificates(first.Chain())
	require.NoError(t, err)
	require.Len(t, chain, 2, "leaf and intermediate, without the root")
	assert.Equal(t, string(before.CertificatePEM), string(first.Roots()))

	// Both are trusted, then the other one signs, then it is the only one.
	plug(istio.NewCA(before.Intermediate(t), before, after))
	stale := e.request(t)
	stale.Want.Roots = []*x509.Certificate{before.Certificate}
	both := issue(t, s, stale)
	assert.Equal(t, string(before.CertificatePEM), string(both.Roots()), "the roots are the mesh's, not those of the answer")
	both = issue(t, s, e.request(t))
	roots, err := certs.ParseCertificates(both.Roots())
	require.NoError(t, err)
	assert.Len(t, roots, 2)

	plug(istio.NewCA(after.Intermediate(t), before, after))
	issue(t, s, e.request(t))
	_, err = s.Bundle(t.Context(), stale)
	assert.Equal(t, certs.Untrusted, certs.ReasonOf(err), "%v", err)

	plug(istio.NewCA(after.Intermediate(t), after))
	assert.Equal(t, string(after.CertificatePEM), string(issue(t, s, e.request(t)).Roots()))
}

func TestManyAtOnce(t *testing.T) {
	e := newEdge(t, "many")
	r := e.request(t)
	roots := r.Want.Roots
	s := e.source(t, func(o *istioca.Options) { o.Roots = func() ([]*x509.Certificate, error) { return roots, nil } })
	const many = 200
	var mu sync.Mutex
	serials := make(map[string]bool)
	begun := time.Now()
	var running sync.WaitGroup
	for range many {
		running.Go(func() {
			b, err := s.Bundle(t.Context(), r)
			if !assert.NoError(t, err) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			serials[b.Serial()] = true
		})
	}
	running.Wait()
	assert.Len(t, serials, many)
	t.Logf("%d certificates in %s", many, time.Since(begun))
}
