package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// readTimeout bounds a read of the Secret and the configuration. An API server that
// does not answer must not delay the renewal of a leaf for longer.
const readTimeout = 30 * time.Second

// Source is a replica's serving certificate: a leaf that the replica signs itself
// with the authority in the Secret, and whose key never leaves the process. A Source
// writes nothing to the cluster. Of the two configurations it reads only the mutating
// one: the Rotator waits for both, and a configuration that only validates must not
// keep a replica from serving. It is a controller-runtime Runnable, and its
// GetCertificate fits a tls.Config.
type Source struct {
	*observer
	leaf atomic.Pointer[leaf]

	// Only the goroutine of Start uses it.
	last rotationState
}

// NewSource checks the options and returns a Source. It reads nothing before Start.
func NewSource(options Options) (*Source, error) {
	options = options.withDefaults()
	if err := errors.Join(options.validate(), options.validateLeaf()); err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	s := &Source{observer: newObserver(options, mutatingConfiguration(options.Client, options.ConfigurationName))}
	if options.Registerer != nil {
		if err := options.Registerer.Register(newExpiryCollector(s)); err != nil {
			return nil, fmt.Errorf("serving certificate: register metrics: %w", err)
		}
	}
	return s, nil
}

// Start follows the Secret and the configuration and renews the leaf until ctx ends,
// and then returns nil. It logs every error and retries.
func (s *Source) Start(ctx context.Context) error {
	s.run(ctx, s.reconcile)
	return nil
}

// NeedLeaderElection is false: every replica runs a Source.
func (s *Source) NeedLeaderElection() bool { return false }

// GetCertificate returns this replica's leaf, or an error before there is one.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	current := s.leaf.Load()
	if current == nil {
		return nil, errors.New("no serving certificate yet")
	}
	return &current.Certificate, nil
}

// reconcile signs a leaf when one is due, and returns when to reconcile again.
func (s *Source) reconcile(ctx context.Context) time.Duration {
	o, observeErr := s.observe(ctx)
	// The time of the decision is that after the reads, which may take long: a leaf
	// that became due meanwhile must not wait for the next reconcile.
	o.now = s.clock.Now()
	// The authority of the current leaf stays in memory: leaves are renewed while
	// the Secret cannot be read.
	err := errors.Join(observeErr, s.sign(o.now, decideLeaf(o)))
	if ctx.Err() != nil {
		return 0
	}
	var due time.Time
	if current := s.leaf.Load(); current != nil {
		due = current.renewAt()
		if err == nil {
			// A leaf that became due just after the decision is renewed immediately.
			due = laterOf(due, o.now.Add(minBackoff))
		}
	}
	return s.nextReconcile(due, err)
}

// observe reads the configuration before the Secret, so that it never pairs the
// Secret with a configuration that is newer. Its error says what is missing or
// damaged; the observation is usable all the same.
func (s *Source) observe(ctx context.Context) (leafObservation, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	o := leafObservation{leaf: s.leaf.Load()}
	views, err := s.readConfigurations(ctx)
	if err != nil {
		return o, err
	}
	secret, err := s.readSecret(ctx)
	if err != nil {
		return o, err
	}
	parsed := parseSecret(secret, s.clock.Now(), s.last)
	s.last = parsed.rotationState
	o.secret, o.published = s.last, mergeViews(views)
	switch {
	case parsed.isEmpty:
		return o, fmt.Errorf("secret %s/%s is empty: the isthmus controller has not created the first CA yet", s.options.Namespace, s.options.SecretName)
	case len(parsed.problems) > 0:
		return o, fmt.Errorf("secret %s/%s is damaged and the isthmus controller has not repaired it yet: %s", s.options.Namespace, s.options.SecretName, strings.Join(parsed.problems, "; "))
	case !o.published.found:
		return o, errors.New(o.published.notFound())
	}
	return o, nil
}

// sign signs a leaf, if the decision is to do so.
func (s *Source) sign(now time.Time, d leafDecision) error {
	if d.signer == nil {
		return nil
	}
	signed, err := d.signer.signLeaf(s.options, now)
	if err != nil {
		return err
	}
	before := s.leaf.Swap(signed)
	s.log.Info("signed a serving certificate", "reason", d.reason, "ca", d.signer.String(), "before", before.issuedBy().String(),
		"notBefore", signed.Leaf.NotBefore, "notAfter", signed.Leaf.NotAfter)
	return nil
}

// Ready returns nil when there is a leaf, it is valid now, and every webhook of the
// configuration trusts the root that issued it: until then a review sent here fails.
// The error says what is missing.
func (s *Source) Ready() error {
	published, lastError := s.status()
	current := s.leaf.Load()
	if current == nil {
		if lastError != nil {
			return fmt.Errorf("no serving certificate yet: %w", lastError)
		}
		return fmt.Errorf("no serving certificate yet: secret %s/%s holds no CA that mutatingwebhookconfiguration %q trusts; wait for the isthmus controller",
			s.options.Namespace, s.options.SecretName, s.options.ConfigurationName)
	}
	now, certificate := s.clock.Now(), current.Leaf
	if now.Before(certificate.NotBefore) {
		return fmt.Errorf("the serving certificate is not valid before %s, because the clock was ahead when it was signed: %w",
			certificate.NotBefore.Format(time.RFC3339), orRenewing(lastError))
	}
	if now.After(certificate.NotAfter) {
		return fmt.Errorf("the serving certificate expired at %s: %w", certificate.NotAfter.Format(time.RFC3339), orRenewing(lastError))
	}
	if !published.found {
		return errors.New(published.notFound())
	}
	for _, webhook := range published.webhooks {
		if webhook.roots.issuerOf(certificate) == nil {
			return fmt.Errorf("webhook %q of mutatingwebhookconfiguration %q does not trust the issuer %q of this replica's certificate: %w",
				webhook.name, s.options.ConfigurationName, certificate.Issuer.CommonName, orRenewing(lastError))
		}
	}
	return nil
}

func orRenewing(lastError error) error {
	if lastError == nil {
		return errors.New("a new one is being signed")
	}
	return lastError
}
