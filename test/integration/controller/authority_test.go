package controller

import (
	"context"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// authority stands for the mesh: it issues, and it says which roots are trusted.
type authority struct {
	t testing.TB

	mu       sync.Mutex
	signer   *certtest.Pair
	roots    []*x509.Certificate
	lifetime time.Duration
	issued   map[string]int
	refusal  error
	// stubborn: everybody gets what he got before.
	stubborn bool
	last     map[string]*certs.Bundle
	changed  func()
}

func newAuthority(t testing.TB) *authority {
	root := certtest.NewAuthority(t)
	return &authority{t: t, signer: root, roots: []*x509.Certificate{root.Certificate}, lifetime: 24 * time.Hour, changed: func() {}, issued: map[string]int{}, last: map[string]*certs.Bundle{}}
}

// Bundle implements controller.Source.
func (a *authority) Bundle(_ context.Context, r certs.Request) (*certs.Bundle, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refusal != nil {
		return nil, a.refusal
	}
	a.issued[r.Namespace]++
	if a.stubborn {
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
	a.changed = f
}

// trust changes the roots, and signs with the last of them.
func (a *authority) trust(roots ...*certtest.Pair) {
	a.mu.Lock()
	a.roots = nil
	for _, r := range roots {
		a.roots = append(a.roots, r.Certificate)
	}
	a.signer = roots[len(roots)-1]
	changed := a.changed
	a.mu.Unlock()
	changed()
}

func (a *authority) set(lifetime time.Duration, refusal error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lifetime, a.refusal = lifetime, refusal
}

// count is how often it issued for a namespace.
func (a *authority) count(namespace string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.issued[namespace]
}

func (a *authority) pair() *certtest.Pair {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.signer
}

// holds requires that a Secret's data is a bundle of this identity for the
// roots of the moment.
func (a *authority) holds(t testing.TB, data map[string][]byte, id string) *certs.Bundle {
	t.Helper()
	m, err := certs.FromSecret(data)
	require.NoError(t, err)
	roots, err := a.Roots()
	require.NoError(t, err)
	b, err := certs.New(m, certs.Want{ID: identity(t, id), Roots: roots, Now: time.Now()})
	require.NoError(t, err)
	return b
}
