package istioca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	pb "istio.io/api/security/v1alpha1"
)

// serviceConfig makes calls wait for a connection, within their deadline, and
// repeats those that broke off: two certificates for one request do no harm.
const serviceConfig = `{"methodConfig": [{
	"name": [{"service": "istio.v1.auth.IstioCertificateService"}],
	"waitForReady": true,
	"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

// connections holds one connection for each authority, made by the roots that
// were last given.
type connections struct {
	mu     sync.Mutex
	open   map[string]*connection
	closed bool
}

// connection is a gRPC connection, which goes through restarts of the server. It
// is closed when it was replaced and its last call has ended.
type connection struct {
	owner  *connections
	conn   *grpc.ClientConn
	client pb.IstioCertificateServiceClient
	roots  []*x509.Certificate
	last   *atomic.Pointer[error]
	// users and retired are guarded by the owner's lock.
	users   int
	retired bool
}

// take returns the connection to an address, for one call; release gives it
// back. It does not wait for the server.
func (cs *connections) take(address, serverName string, roots []*x509.Certificate) (*connection, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		return nil, net.ErrClosed
	}
	c := cs.open[address]
	if c == nil || !slices.EqualFunc(c.roots, roots, (*x509.Certificate).Equal) {
		fresh, err := dial(address, serverName, roots)
		if err != nil {
			return nil, err
		}
		if c != nil {
			c.retire()
		}
		if cs.open == nil {
			cs.open = make(map[string]*connection)
		}
		fresh.owner = cs
		cs.open[address] = fresh
		c = fresh
	}
	c.users++
	return c, nil
}

func (c *connection) release() {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	c.users--
	c.closeUnused()
}

// retire has the connection closed once nobody uses it. The owner's lock is
// held.
func (c *connection) retire() {
	c.retired = true
	c.closeUnused()
}

func (c *connection) closeUnused() {
	if c.retired && c.users == 0 {
		_ = c.conn.Close() // nothing is lost with it
	}
}

func (cs *connections) close() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for _, c := range cs.open {
		c.retire()
	}
	cs.open = nil
}

// distrust is why the server's certificate was last not accepted; nil when it
// was, or when there was no handshake.
func (c *connection) distrust() error {
	if err := c.last.Load(); err != nil && isDistrust(*err) {
		return *err
	}
	return nil
}

func dial(address, serverName string, roots []*x509.Certificate) (*connection, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return nil, fmt.Errorf("address %q: want host:port", address)
	}
	if serverName == "" {
		serverName = host
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	last := &atomic.Pointer[error]{}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(&handshake{
			TransportCredentials: credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: serverName, MinVersion: tls.VersionTLS12}),
			last:                 last,
		}),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(),
		// A server that was down for long is found soon after its return, well
		// within the timeout of one attempt.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// The timeout becomes TCP_USER_TIMEOUT: a server whose node died is
		// noticed at the next call, not after minutes. istiod allows pings
		// every 15 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
	)
	if err != nil {
		return nil, err
	}
	return &connection{conn: conn, client: pb.NewIstioCertificateServiceClient(conn), roots: roots, last: last}, nil
}

// handshake is TLS that remembers how its last handshake ended: a call that
// waits for a connection does not say why there is none in a form that programs
// can read.
type handshake struct {
	credentials.TransportCredentials
	last *atomic.Pointer[error]
}

// ClientHandshake implements credentials.TransportCredentials.
func (h *handshake) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, raw)
	h.last.Store(&err)
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (h *handshake) Clone() credentials.TransportCredentials {
	return &handshake{TransportCredentials: h.TransportCredentials.Clone(), last: h.last}
}
