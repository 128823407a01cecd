// Package istioca is the source istio-ca. It requests an edge's certificate from
// Istio's certificate authority as Istio's agent does: with a token of the edge's
// service account, over the gRPC service istio.v1.auth.IstioCertificateService. Keys
// are created here and leave memory only in a bundle.
package istioca

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// DefaultTimeout limits each attempt to get a token or a certificate.
const DefaultTimeout = 10 * time.Second

// DefaultPatience is the default of Options.Patience.
const DefaultPatience = 250 * time.Millisecond

// Options configure a Source.
type Options struct {
	// Client creates tokens (create on serviceaccounts/token). Required.
	Client kubernetes.Interface
	// Roots returns the trust anchors that verify the authority's own certificate.
	// Required.
	Roots func() ([]*x509.Certificate, error)
	// Timeout limits each attempt to get a token or a certificate. Default
	// DefaultTimeout.
	Timeout time.Duration
	// Patience is how long a request waits for a connection that is being established
	// for the first time, or for its turn at a busy authority. It is short, because
	// a caller that waits holds up others. Default DefaultPatience.
	Patience time.Duration
	// Log receives a line when an authority refuses a lifetime. Default: no logging.
	Log logr.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Source requests bundles. It is safe for concurrent use.
type Source struct {
	options     Options
	connections connectionPool
	limits      lifetimeLimits
}

// New returns a Source. The error names the option that is missing.
func New(o Options) (*Source, error) {
	if o.Client == nil {
		return nil, errors.New("istio-ca: no client given")
	}
	if o.Roots == nil {
		return nil, errors.New("istio-ca: no roots given")
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Patience <= 0 {
		o.Patience = DefaultPatience
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Source{options: o, connections: connectionPool{patience: o.Patience}}, nil
}

// Bundle requests a certificate. While there is no connection to the authority, or the
// authority does not answer, Bundle fails without waiting for it, and makes neither a
// key nor a token; OnAvailable says when to try again. If the authority refuses the
// lifetime, Bundle requests another one whose lifetime the authority chooses. The
// certificate has to satisfy Want at the time of the answer, not at Want.Now. Every
// error is an *Error.
func (s *Source) Bundle(ctx context.Context, r certs.Request) (*certs.Bundle, error) {
	if r.TokenAudience == "" {
		r.TokenAudience = DefaultAudience
	}
	algorithm, err := r.Key.Algorithm()
	if err != nil {
		return nil, newError(r, UnknownKey, err)
	}
	c, err := s.connect(r)
	if err != nil {
		return nil, err
	}
	defer c.release()
	if err := c.await(ctx); err != nil {
		return nil, c.unavailable(ctx, r, err)
	}
	if err := c.gate.enter(ctx); err != nil {
		return nil, c.unavailable(ctx, r, err)
	}
	bundle, err := s.request(ctx, c, r, algorithm)
	c.gate.leave(err)
	return bundle, err
}

// request makes a key, a token and the call. The connection stands.
func (s *Source) request(ctx context.Context, c *connection, r certs.Request, algorithm certs.KeyAlgorithm) (*certs.Bundle, error) {
	key, csr, err := newKey(r.Want.ID, algorithm)
	if err != nil {
		return nil, newError(r, Internal, err)
	}
	token, err := s.createToken(ctx, r)
	if err != nil {
		return nil, err
	}
	chain, err := s.issue(ctx, c, r, csr, token)
	if err != nil {
		return nil, err
	}
	// The chain ends with the authority's roots. They are not trusted: the mesh's
	// roots count.
	want := r.Want
	want.Now = s.options.Now()
	bundle, err := certs.New(certs.Material{Key: key, Chain: chain}, want)
	if err != nil {
		return nil, newError(r, Rejected, err)
	}
	return bundle, nil
}

// connect returns the connection to the authority, verified by the current roots.
func (s *Source) connect(r certs.Request) (*connection, error) {
	roots, err := s.options.Roots()
	if err == nil && len(roots) == 0 {
		err = errors.New("there are none")
	}
	if err != nil {
		return nil, newError(r, NoRoots, err)
	}
	c, err := s.connections.acquire(r.CAAddress, r.CAServerName, roots)
	if err != nil {
		return nil, newError(r, Unavailable, err)
	}
	return c, nil
}

// OnAvailable makes f be called whenever an authority answers that did not answer
// before. It replaces the function of an earlier call.
func (s *Source) OnAvailable(f func()) {
	s.connections.mu.Lock()
	defer s.connections.mu.Unlock()
	s.connections.onAvailable = f
}

// Close closes the connections once their calls have ended. The Source must not be
// used afterwards.
func (s *Source) Close() { s.connections.close() }
