package istioca

import (
	"cmp"
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

// serviceConfig retries calls that were interrupted: two certificates for one request
// do no harm. A call does not wait for a connection: see connection.await.
const serviceConfig = `{"methodConfig": [{
	"name": [{"service": "istio.v1.auth.IstioCertificateService"}],
	"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

// connectionPool has one connection to each authority, verified by the roots that
// were last given.
type connectionPool struct {
	// patience is Options.Patience.
	patience time.Duration

	mu sync.Mutex
	// onAvailable is called when an authority answers that did not answer before.
	// Nil for nobody.
	onAvailable func()
	open        map[string]*connection
	closed      bool
}

// connection is a gRPC connection, which reconnects when the server restarts. It is
// closed once it was replaced and its last call has ended.
type connection struct {
	pool   *connectionPool
	conn   *grpc.ClientConn
	client pb.IstioCertificateServiceClient
	// serverName and roots are what the server's certificate was verified with.
	serverName string
	roots      []*x509.Certificate
	// lastHandshake is how the last TLS handshake ended.
	lastHandshake *atomic.Pointer[error]
	// gate limits the calls.
	gate gate
	// calls and retired are guarded by the pool's mutex.
	calls   int
	retired bool
}

// acquire returns the connection to an address for one call, which release ends. It
// does not wait for the server.
func (p *connectionPool) acquire(address, serverName string, roots []*x509.Certificate) (*connection, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	c := p.open[address]
	if c == nil || c.serverName != serverName || !slices.EqualFunc(c.roots, roots, (*x509.Certificate).Equal) {
		dialed, err := dial(address, serverName, roots)
		if err != nil {
			return nil, err
		}
		if c != nil {
			c.retire()
		}
		if p.open == nil {
			p.open = make(map[string]*connection)
		}
		dialed.pool = p
		dialed.gate.onAvailable, dialed.gate.patience = p.available, p.patience
		p.open[address] = dialed
		c = dialed
	}
	c.calls++
	return c, nil
}

// available tells that an authority answers again.
func (p *connectionPool) available() {
	p.mu.Lock()
	onAvailable := p.onAvailable
	p.mu.Unlock()
	if onAvailable != nil {
		onAvailable()
	}
}

func (c *connection) release() {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.calls--
	c.closeUnused()
}

// retire closes the connection once no call uses it. The caller holds the pool's
// mutex.
func (c *connection) retire() {
	c.retired = true
	c.closeUnused()
}

func (c *connection) closeUnused() {
	if c.retired && c.calls == 0 {
		_ = c.conn.Close() // no call is in progress
	}
}

func (p *connectionPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.open {
		c.retire()
	}
	p.open = nil
}

// verificationError is why the last handshake did not accept the server's certificate.
// Nil when it did, or when there was no handshake.
func (c *connection) verificationError() error {
	if err := c.lastHandshake.Load(); err != nil && isVerificationError(*err) {
		return *err
	}
	return nil
}

func dial(address, serverName string, roots []*x509.Certificate) (*connection, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return nil, fmt.Errorf("address %q: want host:port", address)
	}
	expectedName := cmp.Or(serverName, host)
	trusted := x509.NewCertPool()
	for _, root := range roots {
		trusted.AddCert(root)
	}
	lastHandshake := &atomic.Pointer[error]{}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(&handshakeRecorder{
			TransportCredentials: credentials.NewTLS(&tls.Config{RootCAs: trusted, ServerName: expectedName, MinVersion: tls.VersionTLS12}),
			lastHandshake:        lastHandshake,
		}),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(),
		// After a long outage the client reconnects soon, well within the timeout of
		// one attempt.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// The timeout becomes TCP_USER_TIMEOUT: the next call detects a server whose
		// node died, instead of minutes later. istiod allows pings every 15 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
	)
	if err != nil {
		return nil, err
	}
	return &connection{conn: conn, client: pb.NewIstioCertificateServiceClient(conn), serverName: serverName, roots: roots, lastHandshake: lastHandshake}, nil
}

// handshakeRecorder is TLS that records how the last handshake ended: the error of a
// call that waited for a connection contains the reason only as text.
type handshakeRecorder struct {
	credentials.TransportCredentials
	lastHandshake *atomic.Pointer[error]
}

// ClientHandshake implements credentials.TransportCredentials.
func (h *handshakeRecorder) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, raw)
	h.lastHandshake.Store(&err)
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (h *handshakeRecorder) Clone() credentials.TransportCredentials {
	return &handshakeRecorder{TransportCredentials: h.TransportCredentials.Clone(), lastHandshake: h.lastHandshake}
}
