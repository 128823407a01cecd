package webhook

import (
	"container/list"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// What a client gets of the server before it has sent a review, and after. Anyone
// in the cluster is a client: an API server's address is not known to a
// NetworkPolicy, nor does it show a certificate.
const (
	// maxConnections are open at once, about 40 KiB each; API servers keep one each.
	maxConnections = 512
	// maxPlain are open at once on a port of probes or metrics.
	maxPlain = 64
	// maxHeaders is for a request's line and headers.
	maxHeaders = 16 << 10
	// maxStreams are the reviews at once on one connection of HTTP/2.
	maxStreams = 100
	// window is what HTTP/2 takes of a connection before a review is read.
	window = 64 << 10
	// headerTimeout is for the TLS handshake, and for the headers of a request.
	headerTimeout = 10 * time.Second
	// writeTimeout is for a review and its answer, from the headers on.
	writeTimeout = 15 * time.Second
	// idleTimeout is how long a connection is kept between reviews.
	idleTimeout = 90 * time.Second
)

// newFront listens for reviews. It is no server of controller-runtime's, which
// leaves connections unbounded and answers without a deadline.
func newFront(o ServerOptions, reviews http.Handler) (*manager.Server, error) {
	address := net.JoinHostPort(o.Host, strconv.Itoa(o.Port))
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for reviews: %w", err)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: o.Certificate.GetCertificate,
	}
	return bounded("reviews", tls.NewListener(listener, config), reviews, maxConnections, o.Log), nil
}

// bounded serves on a listener, and bounds what clients take of the server.
func bounded(name string, listener net.Listener, handler http.Handler, most int, log logr.Logger) *manager.Server {
	held := &connections{most: most, open: map[net.Conn]place{}}
	grace := time.Minute
	return &manager.Server{
		Name: name, Listener: listener, ShutdownTimeout: &grace,
		Server: &http.Server{
			Handler: handler, ConnState: held.note,
			MaxHeaderBytes: maxHeaders, ReadHeaderTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
			HTTP2: &http.HTTP2Config{
				MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: window, MaxReceiveBufferPerStream: window,
			},
			// What it has to say is of clients, who must not fill the log.
			ErrorLog: slog.NewLogLogger(logr.ToSlogHandler(log.WithName(name)), slog.LevelDebug),
		},
	}
}

// connections are those that are open. Where there are too many, the one that has
// been without a review for the longest is closed, else the one whose review has
// taken the longest: who holds connections open holds nobody else up.
type connections struct {
	most int

	mu sync.Mutex
	// resting have no review under way, busy have; the longest in front.
	resting, busy list.List
	open          map[net.Conn]place
}

type place struct {
	in *list.List
	at *list.Element
}

// note is an http.Server's ConnState.
func (c *connections) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(conn)
	in := &c.resting
	switch state {
	case http.StateActive:
		in = &c.busy
	case http.StateClosed, http.StateHijacked:
		return
	}
	c.open[conn] = place{in, in.PushBack(conn)}
	if len(c.open) <= c.most {
		return
	}
	surplus := c.resting.Front()
	if surplus == nil {
		surplus = c.busy.Front()
	}
	other := surplus.Value.(net.Conn)
	c.drop(other)
	// In the background: to close TLS is to write, and the client may not read.
	go func() { _ = other.Close() }()
}

// drop has the lock.
func (c *connections) drop(conn net.Conn) {
	if p, ok := c.open[conn]; ok {
		p.in.Remove(p.at)
		delete(c.open, conn)
	}
}
