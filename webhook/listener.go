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

// Limits of what a client may use before and after it sends a review. Every workload
// in the cluster can be a client: a NetworkPolicy cannot select the API server, whose
// address is not known, and the API server presents no client certificate.
const (
	// maxReviewConnections are open at the same time, at about 40 KiB each. Every API server
	// keeps one.
	maxReviewConnections = 512
	// maxMonitoringConnections are open at the same time on the port of probes or metrics.
	maxMonitoringConnections = 64
	// maxHeaderBytes limits a request line and its headers.
	maxHeaderBytes = 16 << 10
	// maxStreams limits the concurrent reviews on one HTTP/2 connection.
	maxStreams = 100
	// receiveWindow is how many bytes HTTP/2 receives on a connection before the
	// review is read.
	receiveWindow = 64 << 10
	// headerTimeout limits the TLS handshake, and the headers of a request.
	headerTimeout = 10 * time.Second
	// writeTimeout limits a request from its headers to the end of the response.
	writeTimeout = 15 * time.Second
	// idleTimeout is how long a connection stays open between reviews.
	idleTimeout = 90 * time.Second
)

// newReviewListener listens for reviews with TLS. It replaces the webhook server of
// controller-runtime, which limits neither connections nor the time of a response.
func newReviewListener(o ServerOptions, handler http.Handler) (*manager.Server, error) {
	address := net.JoinHostPort(o.Host, strconv.Itoa(o.Port))
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for reviews: %w", err)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: o.Certificate.GetCertificate,
	}
	return limitConnections("reviews", tls.NewListener(listener, config), handler, maxReviewConnections, o.Log), nil
}

// limitConnections makes a server for a listener with a limited number of
// connections, and with limits on the size and time of requests.
func limitConnections(name string, listener net.Listener, handler http.Handler, maxConnections int, log logr.Logger) *manager.Server {
	limiter := &connectionLimiter{maxConnections: maxConnections, open: map[net.Conn]trackedConnection{}}
	grace := time.Minute
	return &manager.Server{
		Name: name, Listener: listener, ShutdownTimeout: &grace,
		Server: &http.Server{
			Handler: handler, ConnState: limiter.trackState,
			MaxHeaderBytes: maxHeaderBytes, ReadHeaderTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
			HTTP2: &http.HTTP2Config{
				MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: receiveWindow, MaxReceiveBufferPerStream: receiveWindow,
			},
			// Its messages are about clients, which must not fill the log.
			ErrorLog: slog.NewLogLogger(logr.ToSlogHandler(log.WithName(name)), slog.LevelDebug),
		},
	}
}

// connectionLimiter closes connections when too many are open: the one that has been
// idle for the longest, or if none is idle, the one whose request has taken the
// longest. So a client that holds connections open cannot keep others out.
type connectionLimiter struct {
	maxConnections int

	mu sync.Mutex
	// idle and active hold every open net.Conn, the oldest in front.
	idle, active list.List
	open         map[net.Conn]trackedConnection
}

// trackedConnection is the position of a connection in the list of idle or active
// ones.
type trackedConnection struct {
	list    *list.List
	element *list.Element
}

// trackState is the ConnState of an http.Server.
func (l *connectionLimiter) trackState(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.untrackLocked(conn)
	connections := &l.idle
	switch state {
	case http.StateActive:
		connections = &l.active
	case http.StateClosed, http.StateHijacked:
		return
	}
	l.open[conn] = trackedConnection{connections, connections.PushBack(conn)}
	if len(l.open) <= l.maxConnections {
		return
	}
	oldest := l.idle.Front()
	if oldest == nil {
		oldest = l.active.Front()
	}
	surplus := oldest.Value.(net.Conn)
	l.untrackLocked(surplus)
	// In the background, because closing TLS writes an alert that the client may not
	// read.
	go func() { _ = surplus.Close() }()
}

func (l *connectionLimiter) untrackLocked(conn net.Conn) {
	if tracked, ok := l.open[conn]; ok {
		tracked.list.Remove(tracked.element)
		delete(l.open, conn)
	}
}
