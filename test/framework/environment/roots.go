package environment

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// RootsFile writes the mesh's current roots into a file, as the kubelet mounts them, and
// returns its path.
func (env *Environment) RootsFile(t testing.TB) string {
	t.Helper()
	data, err := env.Istiod.Roots(t.Context(), istio.Namespace)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "root-cert.pem")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// roots returns the mesh's current roots, as istiod publishes them.
func (env *Environment) roots() ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	data, err := env.Istiod.Roots(ctx, istio.Namespace)
	if err != nil {
		return nil, err
	}
	return certs.ParseCertificates(data)
}
