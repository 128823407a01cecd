package environment

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Door is the way to a server that can be shut: what was open is cut off, and
// nobody gets in until it is opened again.
type Door struct {
	// Address is where it listens.
	Address string

	target string
	t      testing.TB

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]bool
}

// APIDoor is a door to the API server, for a kubeconfig: its URL is
// https://Address.
func (w *World) APIDoor(t testing.TB) *Door {
	t.Helper()
	u, err := url.Parse(w.Admin.Host)
	require.NoError(t, err)
	target := u.Host
	if target == "" {
		target = w.Admin.Host
	}
	d := &Door{Address: "127.0.0.1:0", target: target, t: t, open: map[net.Conn]bool{}}
	d.Open()
	t.Cleanup(d.Shut)
	return d
}

// URL is the API server's behind the door.
func (d *Door) URL() string { return "https://" + d.Address }

// Open lets everybody in.
func (d *Door) Open() {
	d.t.Helper()
	l, err := net.Listen("tcp4", d.Address)
	require.NoError(d.t, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listener, d.Address = l, l.Addr().String()
	go d.admit(l)
}

// Shut refuses everybody, and sends away who is in.
func (d *Door) Shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		_ = d.listener.Close()
		d.listener = nil
	}
	for c := range d.open {
		_ = c.Close()
	}
	clear(d.open)
}

func (d *Door) admit(l net.Listener) {
	for {
		outside, err := l.Accept()
		if err != nil {
			return
		}
		inside, err := net.Dial("tcp", d.target)
		if err != nil {
			_ = outside.Close()
			continue
		}
		d.mu.Lock()
		d.open[outside], d.open[inside] = true, true
		d.mu.Unlock()
		carry := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			_, _ = to.Close(), from.Close()
		}
		go carry(outside, inside)
		go carry(inside, outside)
	}
}
