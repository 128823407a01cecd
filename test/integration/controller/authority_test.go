package controller

import (
	"context"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// authority replaces the mesh: it issues certificates and provides the trusted roots.
type authority struct {
	t testing.TB

	mu       sync.Mutex
	signer   *certtest.Pair
	roots    []*x509.Certificate
	lifetime time.Duration
	issued   map[string]int
	// failed counts the requests that failed.
	failed int
	err    error
	// repeats makes Bundle return the previous bundle of the namespace.
	repeats  bool
	last     map[string]*certs.Bundle
	onChange func()
}

func newAuthority(t testing.TB) *authority {
	root := certtest.NewAuthority(t)
	return &authority{t: t, signer: root, roots: []*x509.Certificate{root.Certificate}, lifetime: 24 * time.Hour, onChange: func() {}, issued: map[string]int{}, last: map[string]*certs.Bundle{}}
}

// Bundle implements controller.Source.
func (a *authority) Bundle(_ context.Context, r certs.Request) (*certs.Bundle, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		a.failed++
		return nil, a.err
	}
	a.issued[r.Namespace]++
	if a.repeats {
		return a.last[r.Namespace], nil
	}
	now := time.Now()
	leaf := a.signer.Leaf(a.t, certtest.URIs(r.Want.ID.URL()), certtest.Validity(now.Add(-time.Second), now.Add(a.lifetime)))
	b, err := certs.New(certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM, Roots: a.signer.CertificatePEM}, r.Want)
	a.last[r.Namespace] = b
	return b, err
}

// Roots implements controller.Roots.
func (a *authority) Roots() ([]*x509.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.roots, nil
}

// OnChange implements controller.Roots.
func (a *authority) OnChange(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.onChange = f
}

// setRoots replaces the roots, and signs with the last of them.
func (a *authority) setRoots(roots ...*certtest.Pair) {
	a.mu.Lock()
	a.roots = nil
	for _, r := range roots {
		a.roots = append(a.roots, r.Certificate)
	}
	a.signer = roots[len(roots)-1]
	onChange := a.onChange
	a.mu.Unlock()
	onChange()
}

func (a *authority) configure(lifetime time.Duration, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lifetime, a.err = lifetime, err
}

// issuedCount is the number of bundles that were issued for a namespace.
func (a *authority) issuedCount(namespace string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.issued[namespace]
}

// failedCount is the number of requests that failed.
func (a *authority) failedCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed
}

func (a *authority) currentSigner() *certtest.Pair {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.signer
}

// requireBundle requires that a Secret's data is a valid bundle of this identity for the
// current roots.
func (a *authority) requireBundle(t testing.TB, data map[string][]byte, id string) *certs.Bundle {
	t.Helper()
	b, err := a.bundle(data, parseID(t, id))
	require.NoError(t, err)
	return b
}

// bundle returns the bundle of a Secret's data, or why there is none.
func (a *authority) bundle(data map[string][]byte, id spiffeid.ID) (*certs.Bundle, error) {
	m, err := certs.FromSecret(data)
	if err != nil {
		return nil, err
	}
	roots, err := a.Roots()
	if err != nil {
		return nil, err
	}
	return certs.New(m, certs.Want{ID: id, Roots: roots, Now: time.Now()})
}
