package istiocasource_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/certs/istioca"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// edge is a service account in a namespace of its own.
type edge struct{ namespace string }

func newEdge(t *testing.T, namespace string) edge {
	t.Helper()
	require.NoError(t, istiod.CreateNamespace(t.Context(), namespace, nil, "edge"))
	return edge{namespace}
}

// request returns a request that istiod grants.
func (e edge) request(t *testing.T) certs.Request {
	t.Helper()
	id, err := certs.Identity(istio.TrustDomain, e.namespace, "edge")
	require.NoError(t, err)
	roots, err := e.roots(t.Context())
	require.NoError(t, err)
	return certs.Request{
		Namespace: e.namespace, ServiceAccount: "edge", CAAddress: istiod.Address, ClusterID: istio.ClusterID,
		TTL: 30 * time.Minute, Want: certs.Want{ID: id, Roots: roots},
	}
}

// roots returns the roots that istiod currently publishes.
func (e edge) roots(ctx context.Context) ([]*x509.Certificate, error) {
	pem, err := istiod.Roots(ctx, e.namespace)
	if err != nil {
		return nil, err
	}
	return certs.ParseCertificates(pem)
}

func (e edge) source(t *testing.T, change ...func(*istioca.Options)) *istioca.Source {
	t.Helper()
	o := istioca.Options{
		Patience: 10 * time.Second,
		Client:   istiod.Client,
		Roots:    func() ([]*x509.Certificate, error) { return e.roots(context.WithoutCancel(t.Context())) },
	}
	for _, c := range change {
		c(&o)
	}
	s, err := istioca.New(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// requestBundle requests a bundle and requires success.
func requestBundle(t *testing.T, s *istioca.Source, r certs.Request) *certs.Bundle {
	t.Helper()
	b, err := s.Bundle(t.Context(), r)
	require.NoError(t, err)
	return b
}

// csrCount returns the number of requests that istiod has counted since it started.
func csrCount(t *testing.T) int {
	t.Helper()
	response, err := http.Get("http://" + istiod.MonitoringAddress + "/metrics")
	require.NoError(t, err)
	defer func() { assert.NoError(t, response.Body.Close()) }()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "citadel_server_csr_count "); ok {
			n, err := strconv.Atoi(value)
			require.NoError(t, err)
			return n
		}
	}
	return 0
}
