package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// requireUsable checks the PEM of a bundle with the standard library alone: a TLS
// stack accepts the pair, and its roots verify it for clients and servers.
func requireUsable(t *testing.T, b *certs.Bundle) {
	t.Helper()
	pair, err := tls.X509KeyPair(b.Chain(), b.Key())
	require.NoError(t, err)
	roots, above := x509.NewCertPool(), x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(b.Roots()))
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		above.AddCert(c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		chains, err := pair.Leaf.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: above, CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{usage},
		})
		require.NoError(t, err)
		assert.Greater(t, len(chains[0]), 1, "a leaf does not verify itself")
	}
	require.Len(t, pair.Leaf.URIs, 1)
	assert.Equal(t, edge, pair.Leaf.URIs[0].String())
}

// FuzzNew shows that New does not panic for any content of the files, that every
// error is a rejection, and that every bundle is usable.
func FuzzNew(f *testing.F) {
	root, next := authority(f, "mesh root"), authority(f, "next root")
	middle := root.Intermediate(f, certtest.CommonName("middle"), around(time.Hour, 2*time.Hour))
	leaf, deep := leafOf(f, root), leafOf(f, middle)
	for _, m := range []certs.Material{
		material(leaf), material(leaf, root), material(deep, root, next), {Key: leaf.SEC1PEM(f), Chain: joined(leaf, root)},
		{Key: deep.KeyPEM, Chain: leaf.ChainPEM}, {}, {Key: leaf.ChainPEM, Chain: leaf.KeyPEM}, material(leaf, leaf), {Key: cutOff(leaf.KeyPEM), Chain: cutOff(deep.ChainPEM)},
	} {
		f.Add(m.Key, m.Chain, m.Roots)
	}
	want := wanted(root)
	f.Fuzz(func(t *testing.T, key, chain, roots []byte) {
		b, err := certs.New(certs.Material{Key: key, Chain: chain, Roots: roots}, want)
		if err != nil {
			assert.Contains(t, certs.Reasons(), certs.ReasonOf(err))
			assert.LessOrEqual(t, len(err.Error()), 540)
			return
		}
		requireUsable(t, b)
		second, err := certs.New(certs.Material{Key: b.Key(), Chain: b.Chain(), Roots: b.Roots()}, want)
		require.NoError(t, err, "what is published can be read back")
		assert.True(t, b.Equal(second))
	})
}

// FuzzFromSecret shows the same for the content of a Secret.
func FuzzFromSecret(f *testing.F) {
	root := authority(f, "mesh root")
	leaf := leafOf(f, root)
	names := []string{"tls.crt", "tls.key", "ca.crt", "cert-chain.pem", "key.pem", "root-cert.pem"}
	f.Add(leaf.ChainPEM, leaf.KeyPEM, joined(root), []byte{}, []byte{}, []byte{}, byte(0))
	f.Add([]byte{}, []byte{}, []byte{}, leaf.ChainPEM, leaf.KeyPEM, joined(root), byte(0))
	f.Add([]byte{}, []byte{}, []byte{}, leaf.ChainPEM, leaf.KeyPEM, joined(root), byte(7))
	f.Add(leaf.ChainPEM, leaf.KeyPEM, joined(root), leaf.KeyPEM, leaf.ChainPEM, joined(root), byte(8))
	want := wanted(root)
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g []byte, missing byte) {
		data := map[string][]byte{}
		for i, content := range [][]byte{a, b, c, d, e, g} {
			if missing&(1<<i) == 0 {
				data[names[i]] = content
			}
		}
		m, err := certs.FromSecret(data)
		if err != nil {
			assert.Equal(t, certs.Malformed, certs.ReasonOf(err))
			return
		}
		assert.True(t, slices.ContainsFunc(names, func(n string) bool { return bytes.Equal(data[n], m.Key) }))
		if bundle, err := certs.New(m, want); err == nil {
			requireUsable(t, bundle)
		} else {
			assert.NotEmpty(t, certs.ReasonOf(err))
		}
	})
}
