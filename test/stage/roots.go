package stage

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/istio"
)

// roots are the mesh's roots of the moment, as istiod publishes them.
func (w *World) roots() ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	data, err := w.Istiod.Roots(ctx, istio.Namespace)
	if err != nil {
		return nil, err
	}
	return certs.ParseCertificates(data)
}
