package main

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

func TestRootsFileKeepsTheLastValidRoots(t *testing.T) {
	r := rootsFile{path: filepath.Join(t.TempDir(), "root-cert.pem")}
	roots, err := r.read()
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.Empty(t, roots)

	root := certtest.NewAuthority(t)
	require.NoError(t, os.WriteFile(r.path, root.CertificatePEM, 0o600))
	roots, err = r.read()
	require.NoError(t, err)
	assert.Equal(t, root.CertificatePEM, certs.EncodeCertificates(roots))

	next := certtest.NewAuthority(t)
	damaged := slices.Concat(root.CertificatePEM[:100], []byte("\n"), next.CertificatePEM)
	require.NoError(t, os.WriteFile(r.path, damaged, 0o600))
	roots, err = r.read()
	assert.ErrorContains(t, err, r.path+": block 1 of 2: ")
	assert.ElementsMatch(t, []*x509.Certificate{root.Certificate, next.Certificate}, roots, "the damaged one may be the one that was there")

	require.NoError(t, os.WriteFile(r.path, root.CertificatePEM, 0o600))
	roots, err = r.read()
	require.NoError(t, err)
	assert.Len(t, roots, 1)
	require.NoError(t, os.WriteFile(r.path, root.CertificatePEM[:100], 0o600))
	roots, err = r.read()
	assert.ErrorContains(t, err, r.path+": ")
	assert.Equal(t, root.CertificatePEM, certs.EncodeCertificates(roots))
}
