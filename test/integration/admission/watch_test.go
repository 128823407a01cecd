package admission

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// delayedWatches stands between a replica and the API server. It passes
// everything on, but can hold back what the watches of one resource tell.
type delayedWatches struct {
	// kubeconfig leads a replica here.
	kubeconfig string

	mu   sync.Mutex
	free *sync.Cond
	held bool
}

func delayWatches(t *testing.T, path string) *delayedWatches {
	t.Helper()
	d := &delayedWatches{}
	d.free = sync.NewCond(&d.mu)
	target, err := url.Parse(world.config.Host)
	require.NoError(t, err)
	// The token of the service account is passed on; there is no other identity.
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(world.config))
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1,
		ModifyResponse: func(r *http.Response) error {
			if r.Request.URL.Path == path && r.Request.URL.Query().Get("watch") != "" {
				r.Body = &heldBody{ReadCloser: r.Body, watches: d}
			}
			return nil
		},
	}
	authority := certtest.NewAuthority(t)
	server := httptest.NewUnstartedServer(proxy)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{authority.Leaf(t, certtest.IPAddresses(net.IPv4(127, 0, 0, 1))).TLS(t)},
		MinVersion:   tls.VersionTLS12,
	}
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})

	direct, err := world.serviceAccountKubeconfig(t.Context(), webhookName)
	require.NoError(t, err)
	config, err := clientcmd.BuildConfigFromFlags("", direct)
	require.NoError(t, err)
	d.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, writeKubeconfig(d.kubeconfig, server.URL, authority.CertificatePEM, config.BearerToken))
	return d
}

func (d *delayedWatches) hold() { d.set(true) }

func (d *delayedWatches) release() { d.set(false) }

func (d *delayedWatches) set(held bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = held
	d.free.Broadcast()
}

// heldBody is read, and what was read is kept back while watches are held.
type heldBody struct {
	io.ReadCloser

	watches *delayedWatches
}

// Read implements io.Reader.
func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.watches.mu.Lock()
	defer b.watches.mu.Unlock()
	for b.watches.held {
		b.watches.free.Wait()
	}
	return n, err
}
