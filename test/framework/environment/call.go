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

// alpn is the application protocol that Istio's sidecars negotiate with each other.
const alpn = "istio"

// Upstream is a server in the mesh: it holds a certificate of istiod for its own
// service account, renews it, and accepts one SPIFFE ID only.
type Upstream struct {
	// Address is the host:port that it listens on.
	Address string
	// ID is the server's SPIFFE ID.
	ID spiffeid.ID

	env     *Environment
	request certs.Request
	source  *istioca.Source
	mu      sync.Mutex
	bundle  *certs.Bundle
	roots   *x509bundle.Bundle
}

// StartUpstream starts an Upstream that runs until the test ends. It has its own service
// account in an opted-in namespace; istiod issues to any service account with a token.
func (env *Environment) StartUpstream(t testing.TB, namespace, account string, client spiffeid.ID) *Upstream {
	t.Helper()
	u := &Upstream{env: env, ID: Identity(t, namespace, account)}
	u.request = certs.Request{
		Namespace: namespace, ServiceAccount: account, CAAddress: env.Istiod.Address, TokenAudience: "istio-ca",
		TTL: time.Minute, Want: certs.Want{ID: u.ID},
	}
	var err error
	u.source, err = istioca.New(istioca.Options{Client: env.Kube, Roots: env.roots, Log: logr.Discard()})
	require.NoError(t, err)
	require.NoError(t, u.renew(t.Context()))
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	u.Address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { u.renewPeriodically(ctx) })
	running.Go(func() { u.serve(listener, client) })
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		running.Wait()
		u.source.Close()
	})
	return u
}

// renewPeriodically renews twice as often as an edge is renewed, so that the server is
// never the reason for a failed call. While istiod is away, the old certificate stays.
func (u *Upstream) renewPeriodically(ctx context.Context) {
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
	roots, err := u.env.roots()
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

// GetX509BundleForTrustDomain implements x509bundle.Source. It returns the current
// roots, or the last known ones while the API server is away.
func (u *Upstream) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	roots, err := u.env.roots()
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
			// On an error there is nothing to do: the peer gets a TLS alert.
			if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
				_, _ = io.WriteString(conn, line)
			}
		}()
	}
}

// Caller calls an Upstream repeatedly, each time over a new connection, with nothing
// but the current contents of the Secret.
type Caller struct {
	mu       sync.Mutex
	calls    int
	failures []string
}

// StartCaller waits for the Secret and starts a Caller that runs until the test ends.
func (env *Environment) StartCaller(t testing.TB, history *SecretHistory, u *Upstream) *Caller {
	t.Helper()
	require.Eventually(t, func() bool { return history.Current() != nil }, startTimeout, 50*time.Millisecond, "a Secret to call with")
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
			err := call(ctx, history.Current(), u)
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

// Calls returns the number of calls so far, and the errors of those that failed.
func (c *Caller) Calls() (n int, failures []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls, c.failures
}

// call makes one call over mutual TLS; each side checks the other's SPIFFE ID.
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
