package main

import (
	"os"
	"path/filepath"
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

	require.NoError(t, os.WriteFile(r.path, root.CertificatePEM[:100], 0o600))
	roots, err = r.read()
	assert.ErrorContains(t, err, r.path+": ")
	assert.Equal(t, root.CertificatePEM, certs.EncodeCertificates(roots))
}
