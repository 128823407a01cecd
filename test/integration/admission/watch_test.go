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

// delayedWatches is a proxy between a replica and the API server. It forwards everything,
// but can hold back the events of one resource's watches.
type delayedWatches struct {
	// kubeconfig is the path of a kubeconfig with the address of the proxy.
	kubeconfig string

	mu       sync.Mutex
	released *sync.Cond
	held     bool
}

func delayWatches(t *testing.T, path string) *delayedWatches {
	t.Helper()
	d := &delayedWatches{}
	d.released = sync.NewCond(&d.mu)
	target, err := url.Parse(env.config.Host)
	require.NoError(t, err)
	// The proxy forwards the token of the service account and has no other credentials.
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(env.config))
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

	directKubeconfig, err := env.serviceAccountKubeconfig(t.Context(), webhookName)
	require.NoError(t, err)
	config, err := clientcmd.BuildConfigFromFlags("", directKubeconfig)
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
	d.released.Broadcast()
}

// heldBody is the body of a watch. Read does not return while watches are held.
type heldBody struct {
	io.ReadCloser

	watches *delayedWatches
}

// Read implements io.Reader.
func (h *heldBody) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	h.watches.mu.Lock()
	defer h.watches.mu.Unlock()
	for h.watches.held {
		h.watches.released.Wait()
	}
	return n, err
}
