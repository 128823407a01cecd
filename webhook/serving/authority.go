package serving

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	cmauthority "github.com/cert-manager/cert-manager/pkg/server/tls/authority"
	"github.com/go-logr/logr"
	admissionv1 "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/utils/clock"
)

// authority is cert-manager's Authority, with a rotation that no review notices.
type authority struct {
	secrets        corev1.SecretInterface
	configurations admissionv1.MutatingWebhookConfigurationInterface
	options        Options
	planner        planner
	log            logr.Logger
	clock          clock.Clock
	writes         flowcontrol.PassiveRateLimiter

	changed chan struct{}
	ready   chan struct{}
	stopped chan struct{}

	// Only the goroutine of Run uses these.
	last           state // the last whole one
	publishedSince time.Time
	failures       int
	collisions     int
	reported       string

	mu        sync.Mutex
	active    *pair
	published view
	problem   error
	watchers  []chan<- struct{}
}

func newAuthority(o Options) *authority {
	return &authority{
		secrets:        o.Client.CoreV1().Secrets(o.Namespace),
		configurations: o.Client.AdmissionregistrationV1().MutatingWebhookConfigurations(),
		options:        o,
		planner: planner{
			delay: o.PropagationDelay,
			make:  func(now time.Time) (*pair, error) { return newPair(now, o.CATTL) },
		},
		log:   o.Log.WithValues("secret", o.Namespace+"/"+o.SecretName, "configuration", o.ConfigurationName),
		clock: o.Clock,
		// Twenty writes at once, then one a second: somebody else who insists on
		// another content must not turn into a storm.
		writes:    flowcontrol.NewTokenBucketPassiveRateLimiterWithClock(1, 20, o.Clock),
		changed:   make(chan struct{}, 1),
		ready:     make(chan struct{}),
		stopped:   make(chan struct{}),
		published: view{name: o.ConfigurationName},
		problem:   errors.New("the authority has not looked yet"),
	}
}

// Run keeps Secret and configuration until ctx ends. It may be called once.
func (a *authority) Run(ctx context.Context) error {
	defer close(a.stopped)
	var watches sync.WaitGroup
	defer watches.Wait()
	for _, watched := range []alarm{
		{log: a.log, name: a.options.SecretName, open: a.secrets.Watch, wake: a.wake},
		{log: a.log, name: a.options.ConfigurationName, open: a.configurations.Watch, wake: a.wake},
	} {
		watches.Go(func() { watched.run(ctx) })
	}
	for {
		timer := a.clock.NewTimer(a.reconcile(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-a.changed:
			timer.Stop()
		case <-timer.C():
		}
	}
}

func (a *authority) wake() {
	select {
	case a.changed <- struct{}{}:
	default: // a look is due already, and it will see this change too
	}
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
	return a.signer().sign(template, a.clock.Now(), a.options.LeafTTL)
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
	for _, ch := range a.watchers {
		select {
		case ch <- struct{}{}:
		default: // it has not taken the last message yet, which says the same
		}
	}
}
