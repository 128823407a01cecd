package environment

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// APIServerProxy is a TCP proxy to the API server that can be closed: connections are
// cut and new ones refused until it is opened again.
type APIServerProxy struct {
	// Address is the host:port that the proxy listens on.
	Address string

	target string
	t      testing.TB

	mu          sync.Mutex
	listener    net.Listener
	connections map[net.Conn]bool
}

// StartAPIServerProxy starts a proxy to the API server that runs until the test ends.
func (env *Environment) StartAPIServerProxy(t testing.TB) *APIServerProxy {
	t.Helper()
	u, err := url.Parse(env.Admin.Host)
	require.NoError(t, err)
	target := u.Host
	if target == "" {
		target = env.Admin.Host
	}
	d := &APIServerProxy{Address: "127.0.0.1:0", target: target, t: t, connections: map[net.Conn]bool{}}
	d.Open()
	t.Cleanup(d.Close)
	return d
}

// URL is the URL of the API server behind the proxy, for a kubeconfig.
func (d *APIServerProxy) URL() string { return "https://" + d.Address }

// Open accepts connections, at the same address as before.
func (d *APIServerProxy) Open() {
	d.t.Helper()
	l, err := net.Listen("tcp4", d.Address)
	require.NoError(d.t, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listener, d.Address = l, l.Addr().String()
	go d.accept(l)
}

// Close stops listening and closes all connections.
func (d *APIServerProxy) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		_ = d.listener.Close()
		d.listener = nil
	}
	for c := range d.connections {
		_ = c.Close()
	}
	clear(d.connections)
}

func (d *APIServerProxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", d.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		d.mu.Lock()
		d.connections[client], d.connections[server] = true, true
		d.mu.Unlock()
		forward := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			_, _ = to.Close(), from.Close()
		}
		go forward(client, server)
		go forward(server, client)
	}
}
