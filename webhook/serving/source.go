package serving

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	servertls "github.com/cert-manager/cert-manager/pkg/server/tls"
	"github.com/go-logr/logr"
)

// Source is a replica's serving certificate, signed by the authority that a Keeper
// keeps. It writes nothing. It is a controller-runtime Runnable, and its
// GetCertificate fits a tls.Config.
type Source struct {
	options   Options
	authority *authority
	leaf      *servertls.DynamicSource
}

// New checks the options and makes a Source. Nothing is read or written before Start.
func New(options Options) (*Source, error) {
	options = options.withDefaults()
	if err := errors.Join(options.validate(), options.validateLeaf()); err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	authority := newAuthority(options)
	s := &Source{
		options:   options,
		authority: authority,
		leaf:      &servertls.DynamicSource{DNSNames: options.DNSNames, Authority: authority},
	}
	if options.Registerer != nil {
		if err := options.Registerer.Register(newExpiry(s)); err != nil {
			return nil, fmt.Errorf("serving certificate: register metrics: %w", err)
		}
	}
	return s, nil
}

// Start follows the authority and the configuration and keeps the leaf until ctx
// ends, and then returns nil. No problem of the cluster ends it: it logs and tries again.
func (s *Source) Start(ctx context.Context) error {
	// cert-manager tells each of its steps at level 0; the authority has told the
	// ones that matter.
	return s.leaf.Start(logr.NewContext(ctx, s.options.Log.WithName("leaf").V(1)))
}

// NeedLeaderElection says that every replica runs a Source.
func (s *Source) NeedLeaderElection() bool { return false }

// GetCertificate returns this replica's leaf, or an error before there is one.
func (s *Source) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.leaf.GetCertificate(hello)
}

// Ready is nil when there is a leaf, it is valid now, and every webhook of the
// configuration carries the root that issued it; a review that comes here before
// would fail. The error says what is missing.
func (s *Source) Ready() error {
	published, problem := s.authority.status()
	leaf := s.certificate()
	if leaf == nil {
		if problem != nil {
			return fmt.Errorf("no serving certificate yet: %w", problem)
		}
		return fmt.Errorf("no serving certificate yet: secret %s/%s holds no CA that may sign before mutatingwebhookconfiguration %q carries it",
			s.options.Namespace, s.options.SecretName, s.options.ConfigurationName)
	}
	now := s.options.Clock.Now()
	if now.Before(leaf.NotBefore) {
		return fmt.Errorf("the serving certificate begins at %s, the clock was ahead when it was signed: %w", leaf.NotBefore.Format(time.RFC3339), orWaiting(problem))
	}
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("the serving certificate expired at %s: %w", leaf.NotAfter.Format(time.RFC3339), orWaiting(problem))
	}
	if !published.found {
		return errors.New(published.missing())
	}
	for _, webhook := range published.webhooks {
		if webhook.roots.issuerOf(leaf) == nil {
			return fmt.Errorf("webhook %q of mutatingwebhookconfiguration %q does not carry the root of this replica's certificate, issued by %q: %w",
				webhook.name, s.options.ConfigurationName, leaf.Issuer.CommonName, orWaiting(problem))
		}
	}
	return nil
}

func (s *Source) certificate() *x509.Certificate {
	pair, err := s.leaf.GetCertificate(nil)
	if err != nil {
		return nil
	}
	return pair.Leaf
}

func orWaiting(problem error) error {
	if problem == nil {
		return errors.New("a new one is under way")
	}
	return problem
}
