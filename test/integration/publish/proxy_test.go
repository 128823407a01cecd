package publish

import (
	"context"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy is a TCP proxy to the API server that can be disconnected.
type proxy struct {
	t            testing.TB
	url, address string
	server       string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
}

func newProxy(t testing.TB, address string) *proxy {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	p := &proxy{t: t, server: u.Host, address: net.JoinHostPort(u.Hostname(), "0")}
	p.listen()
	u.Host = p.address
	p.url = u.String()
	t.Cleanup(p.disconnect)
	return p
}

func (p *proxy) listen() {
	p.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", p.address)
	require.NoError(p.t, err)
	p.mu.Lock()
	p.listener, p.address = l, l.Addr().String()
	p.mu.Unlock()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", p.server)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			go func() { _, _ = io.Copy(in, out) }()
			go func() { _, _ = io.Copy(out, in) }()
		}
	}()
}

// disconnect closes every connection and accepts no new one.
func (p *proxy) disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.listener.Close()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}
