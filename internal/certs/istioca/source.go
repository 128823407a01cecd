// Package istioca asks Istio's certificate authority for an edge's certificate,
// as Istio's agent does: with a token of the edge's service account, over the
// service istio.v1.auth.IstioCertificateService. Keys are made here and leave
// memory only inside of a bundle.
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

// DefaultTimeout is how long one attempt to get a token or a certificate may
// last.
const DefaultTimeout = 10 * time.Second

// Options make a Source.
type Options struct {
	// Client makes tokens: create on serviceaccounts/token. Required.
	Client kubernetes.Interface
	// Roots returns the trust anchors that the authority's own certificate is
	// verified by. Required.
	Roots func() ([]*x509.Certificate, error)
	// ServerName is the name that the authority's certificate has to carry.
	// Default: the host of the address.
	ServerName string
	// Timeout bounds each attempt to get a token or a certificate. Default
	// DefaultTimeout.
	Timeout time.Duration
	// Log gets a line when an authority refuses a lifetime. Default: no logging.
	Log logr.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Source issues bundles. It is safe for concurrent use.
type Source struct {
	options     Options
	connections connections
	limits      limits
}

// New returns a Source. It says what is wrong with the options.
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
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Source{options: o}, nil
}

// Bundle asks the authority for a certificate once. Where the authority refuses
// the lifetime, it is asked again for one of its own choice. What it answers is
// judged by Want, but at the time of the answer. Every error is an *Error.
func (s *Source) Bundle(ctx context.Context, r certs.Request) (*certs.Bundle, error) {
	if r.TokenAudience == "" {
		r.TokenAudience = DefaultAudience
	}
	c, err := s.connect(r)
	if err != nil {
		return nil, err
	}
	defer c.release()
	key, csr, err := newKey(r.Want.ID)
	if err != nil {
		return nil, problem(r, Internal, err)
	}
	token, err := s.token(ctx, r)
	if err != nil {
		return nil, err
	}
	chain, err := s.issue(ctx, c, r, csr, token)
	if err != nil {
		return nil, err
	}
	// The authority ends its chain with the roots. They are not taken as such:
	// what counts is what the whole mesh trusts.
	want := r.Want
	want.Now = s.options.Now()
	bundle, err := certs.New(certs.Material{Key: key, Chain: chain}, want)
	if err != nil {
		return nil, problem(r, Rejected, err)
	}
	return bundle, nil
}

// connect returns the connection to the authority, by the roots of this moment.
func (s *Source) connect(r certs.Request) (*connection, error) {
	roots, err := s.options.Roots()
	if err == nil && len(roots) == 0 {
		err = errors.New("there are none")
	}
	if err != nil {
		return nil, problem(r, NoRoots, err)
	}
	c, err := s.connections.take(r.CAAddress, s.options.ServerName, roots)
	if err != nil {
		return nil, problem(r, Unavailable, err)
	}
	return c, nil
}

// Close closes the connections once their calls have ended. The Source is of no
// use afterwards.
func (s *Source) Close() { s.connections.close() }
