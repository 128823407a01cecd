package serving

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	cmauthority "github.com/cert-manager/cert-manager/pkg/server/tls/authority"
)

// authority is cert-manager's Authority for one replica: it signs with the
// authority that the Secret holds, and writes nothing. What it signs with stays in
// memory, so that leaves are renewed also while nobody can read the Secret. Of the
// two configurations it reads the mutating one alone: the Keeper has waited for
// both, and what is said at kubectl apply must not keep a replica from serving.
type authority struct {
	*objects
	ready   chan struct{}
	stopped chan struct{}

	// Only the goroutine of Run uses it.
	last state

	// The mutex of objects guards these.
	active   *pair
	leaf     *x509.Certificate // the last that was signed
	watchers []chan<- struct{}
}

func newAuthority(o Options) *authority {
	return &authority{objects: newObjects(o, mutatingConfiguration(o.Client, o.ConfigurationName)), ready: make(chan struct{}), stopped: make(chan struct{})}
}

// Run follows Secret and configuration until ctx ends. It may be called once.
func (a *authority) Run(ctx context.Context) error {
	defer close(a.stopped)
	a.follow(ctx, a.reconcile)
	return nil
}

func (a *authority) reconcile(ctx context.Context) time.Duration {
	err := a.look(ctx)
	if ctx.Err() != nil {
		return 0
	}
	return a.again(time.Time{}, err)
}

// look reads the configuration before the Secret, so that it never takes the
// configuration of later for the one that goes with what the Secret says.
func (a *authority) look(ctx context.Context) error {
	all, err := a.readConfigurations(ctx)
	if err != nil {
		return err
	}
	published := together(all)
	secret, err := a.readSecret(ctx)
	if err != nil {
		return err
	}
	now := a.clock.Now()
	r := readState(secret, now, a.last)
	a.last = r.state
	a.choose(now, r.state, published)
	a.doubt(now)
	switch {
	case r.empty:
		return fmt.Errorf("secret %s/%s is empty: isthmus controller has yet to make the first CA", a.options.Namespace, a.options.SecretName)
	case len(r.damaged) > 0:
		return fmt.Errorf("secret %s/%s: %s: isthmus controller has yet to mend it", a.options.Namespace, a.options.SecretName, strings.Join(r.damaged, "; "))
	case !published.found:
		return errors.New(published.missing())
	}
	return nil
}

// choose adopts what this replica should sign with. The Secret's tls.crt signs only
// after both of the configuration's wait; choose adds that the configuration
// carries it at all, for a Secret can also be changed by hand.
func (a *authority) choose(now time.Time, s state, published view) {
	active, candidate := a.signer(), s.signing
	if candidate == nil && active == nil && s.next != nil && published.carriesAll(roots{s.next.root}) == nil {
		// A replica without a leaf has nothing to keep: it need not wait for the
		// promotion to be of use.
		candidate = s.next
	}
	if candidate == nil || candidate.is(active) {
		return
	}
	if active != nil && now.Before(active.root.NotAfter) && published.carriesAll(roots{candidate.root}) != nil {
		// Signing anew now would make reviews fail; the watch tells when it would not.
		return
	}
	a.adopt(candidate)
}

// doubt has the leaf signed anew when it is not valid yet: the clock was ahead when
// it was signed and has been set back, and no API server would take it until then.
// That one is over is cert-manager's to notice.
func (a *authority) doubt(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leaf == nil || !now.Before(a.leaf.NotBefore) {
		return
	}
	a.log.Info("the clock was set back: signing the leaf anew", "notBefore", a.leaf.NotBefore)
	a.leaf = nil
	a.tell()
}

// WatchRotation makes the authority tell ch when leaves must be signed anew.
func (a *authority) WatchRotation(ch chan<- struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watchers = append(a.watchers, ch)
}

// StopWatchingRotation undoes WatchRotation.
func (a *authority) StopWatchingRotation(ch chan<- struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watchers = slices.DeleteFunc(a.watchers, func(w chan<- struct{}) bool { return w == ch })
}

// Sign signs a leaf. It waits for the first authority, and fails when Run ends
// before there is one.
func (a *authority) Sign(template *x509.Certificate) (*x509.Certificate, error) {
	select {
	case <-a.ready:
	case <-a.stopped:
		return nil, fmt.Errorf("%w: the authority has stopped", cmauthority.ErrCertificateNotAvailable)
	}
	template.IPAddresses = a.options.IPAddresses
	leaf, err := a.signer().sign(template, a.clock.Now(), a.options.LeafTTL)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaf = leaf
	return leaf, nil
}

func (a *authority) signer() *pair {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.active
}

// adopt makes the authority sign with p from now on.
func (a *authority) adopt(p *pair) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.is(a.active) {
		return
	}
	if a.active == nil {
		close(a.ready)
	}
	a.log.Info("signing leaves with another certificate authority", "ca", p.String(), "before", a.active.String())
	a.active = p
	a.tell()
}

// tell tells all watchers that the leaf must be signed anew. The mutex is held.
func (a *authority) tell() {
	for _, ch := range a.watchers {
		select {
		case ch <- struct{}{}:
		default: // it has not taken the last message yet, which says the same
		}
	}
}
