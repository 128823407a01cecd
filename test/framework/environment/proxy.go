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
	p := &APIServerProxy{Address: "127.0.0.1:0", target: target, t: t, connections: map[net.Conn]bool{}}
	p.Open()
	t.Cleanup(p.Close)
	return p
}

// URL is the URL of the API server behind the proxy, for a kubeconfig.
func (p *APIServerProxy) URL() string { return "https://" + p.Address }

// Open accepts connections, at the same address as before.
func (p *APIServerProxy) Open() {
	p.t.Helper()
	l, err := net.Listen("tcp4", p.Address)
	require.NoError(p.t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener, p.Address = l, l.Addr().String()
	go p.accept(l)
}

// Close stops listening and closes all connections.
func (p *APIServerProxy) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for c := range p.connections {
		_ = c.Close()
	}
	clear(p.connections)
}

func (p *APIServerProxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.connections[client], p.connections[server] = true, true
		p.mu.Unlock()
		forward := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			_, _ = to.Close(), from.Close()
		}
		go forward(client, server)
		go forward(server, client)
	}
}
