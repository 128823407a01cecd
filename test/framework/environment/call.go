package environment

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/certs/istioca"
)

// alpn is what sidecars of Istio speak among each other.
const alpn = "istio"

// Upstream is a server in the mesh: it holds a certificate of istiod's for a
// service account of its own, renews it, and lets in nobody but one SPIFFE ID.
type Upstream struct {
	// Address is where it listens.
	Address string
	// ID is its own identity.
	ID spiffeid.ID

	world   *World
	request certs.Request
	source  *istioca.Source
	mu      sync.Mutex
	bundle  *certs.Bundle
	roots   *x509bundle.Bundle
}

// Upstream starts one, until the test ends, in its own service account of a
// namespace that is opted in, since istiod issues to anyone with a token.
func (w *World) Upstream(t testing.TB, namespace, account string, client spiffeid.ID) *Upstream {
	t.Helper()
	u := &Upstream{world: w, ID: Identity(t, namespace, account)}
	u.request = certs.Request{
		Namespace: namespace, ServiceAccount: account, CAAddress: w.Istiod.Address, TokenAudience: "istio-ca",
		TTL: time.Minute, Want: certs.Want{ID: u.ID},
	}
	var err error
	u.source, err = istioca.New(istioca.Options{Client: w.Kube, Roots: w.roots, Log: logr.Discard()})
	require.NoError(t, err)
	require.NoError(t, u.renew(t.Context()))
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	u.Address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { u.keep(ctx) })
	running.Go(func() { u.serve(listener, client) })
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		running.Wait()
		u.source.Close()
	})
	return u
}

// keep renews twice as often as an edge is renewed: the server must not be what
// fails here. While istiod is away the old certificate stays.
func (u *Upstream) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
		}
		_ = u.renew(ctx)
	}
}

func (u *Upstream) renew(ctx context.Context) error {
	r := u.request
	roots, err := u.world.roots()
	if err != nil {
		return err
	}
	r.Want.Roots, r.Want.Now = roots, time.Now()
	b, err := u.source.Bundle(ctx, r)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.bundle, u.roots = b, x509bundle.FromX509Authorities(u.ID.TrustDomain(), roots)
	return nil
}

// GetX509SVID implements x509svid.Source.
func (u *Upstream) GetX509SVID() (*x509svid.SVID, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return x509svid.Parse(u.bundle.Chain(), u.bundle.Key())
}

// GetX509BundleForTrustDomain implements x509bundle.Source: the roots of the
// moment, or the last that were known while the API server is away.
func (u *Upstream) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	roots, err := u.world.roots()
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		u.roots = x509bundle.FromX509Authorities(td, roots)
	}
	return u.roots, nil
}

func (u *Upstream) serve(listener net.Listener, client spiffeid.ID) {
	config := tlsconfig.MTLSServerConfig(u, u, tlsconfig.AuthorizeID(client))
	config.NextProtos = []string{alpn}
	for {
		raw, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = raw.Close() }()
			conn := tls.Server(raw, config)
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			// The peer hears of a refusal by the alert; nothing is left to do.
			if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
				_, _ = io.WriteString(conn, line)
			}
		}()
	}
}

// Caller calls an upstream again and again, each time in a new connection, with
// what the Secret holds at that moment and nothing else.
type Caller struct {
	mu       sync.Mutex
	calls    int
	failures []string
}

// Call starts a Caller that ends with the test, once the Secret is there.
func (w *World) Call(t testing.TB, l *Ledger, u *Upstream) *Caller {
	t.Helper()
	require.Eventually(t, func() bool { return l.Current() != nil }, patience, 50*time.Millisecond, "a Secret to call with")
	c := &Caller{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
			err := call(ctx, l.Current(), u)
			c.mu.Lock()
			c.calls++
			if err != nil && ctx.Err() == nil {
				c.failures = append(c.failures, time.Now().Format(time.TimeOnly)+": "+err.Error())
			}
			c.mu.Unlock()
		}
	}()
	return c
}

// Calls is how many there were, and what was wrong with those that failed.
func (c *Caller) Calls() (n int, failures []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls, c.failures
}

// call is one call in mutual TLS: both sides check the other's SPIFFE ID.
func call(ctx context.Context, secret *corev1.Secret, u *Upstream) error {
	svid, err := x509svid.Parse(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		return err
	}
	roots, err := x509bundle.Parse(u.ID.TrustDomain(), secret.Data["ca.crt"])
	if err != nil {
		return err
	}
	config := tlsconfig.MTLSClientConfig(svid, roots, tlsconfig.AuthorizeID(u.ID))
	config.NextProtos = []string{alpn}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	raw, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", u.Address)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	conn, ok := raw.(*tls.Conn)
	if !ok {
		return errors.New("no TLS connection")
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != alpn {
		return fmt.Errorf("ALPN %q", got)
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || answer != "hello\n" {
		return fmt.Errorf("answer %q: %w", answer, err)
	}
	return nil
}
