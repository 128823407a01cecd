package serving

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

const (
	// DefaultCATTL is the lifetime of a certificate authority: one year. Its
	// rotation is invisible, so the length is no burden, and it begins with a
	// third of the life left: the controller would have to be away for four months
	// before a root expires, and even then a new one is made by itself.
	DefaultCATTL = 365 * 24 * time.Hour

	// DefaultLeafTTL is the lifetime of a replica's leaf: seven days. The key
	// lives in the memory of one process, so a short life buys little; a leaf is
	// renewed with a third of it left, so that an authority which nobody can read
	// for a long weekend stops no review.
	DefaultLeafTTL = 7 * 24 * time.Hour

	// DefaultPropagationDelay is how long both waits of a rotation last: two
	// minutes. An API server learns of a new caBundle by a watch, normally within
	// milliseconds; a watch whose connection died in silence is noticed by
	// client-go's HTTP/2 health check after 45 seconds. The delay also covers
	// clocks of nodes that disagree by less than it.
	DefaultPropagationDelay = 2 * time.Minute
)

// Options say what a Keeper keeps and a Source serves with, and where it is.
type Options struct {
	// Client gets and watches the Secret and the configuration, both by name only.
	// A Keeper's also updates the Secret and patches the configuration, and does the
	// same with the validating one. Required.
	Client kubernetes.Interface

	// Namespace is where the Secret lives. Required.
	Namespace string

	// SecretName names the Secret that holds the authority. It must exist, empty
	// at first; it is never created here. Required.
	SecretName string

	// ConfigurationName names the MutatingWebhookConfiguration, and the
	// ValidatingWebhookConfiguration if there is one, whose webhooks all get the
	// trust bundle as caBundle from the Keeper. Required.
	ConfigurationName string

	// DNSNames go into every leaf. The API server calls a service as
	// <service>.<namespace>.svc; see ServiceNames. A Source requires some unless
	// IPAddresses is set; a Keeper reads neither.
	DNSNames []string

	// IPAddresses go into every leaf too, for a configuration that names the
	// server by a URL with an address. Default none.
	IPAddresses []net.IP

	// CATTL is the lifetime of an authority that the Keeper makes. Default
	// DefaultCATTL.
	CATTL time.Duration

	// LeafTTL is the lifetime of a Source's leaf, cut where its authority ends.
	// Default DefaultLeafTTL.
	LeafTTL time.Duration

	// PropagationDelay is how long the bundle must have been in the configuration
	// before the next authority signs, and again how long the old root stays after
	// that. It must fit four times into CATTL. Only the Keeper reads it. Default
	// DefaultPropagationDelay.
	PropagationDelay time.Duration

	// Log receives every step and every problem, and never key material. The zero
	// value discards.
	Log logr.Logger

	// Clock is the source of time and timers. Default clock.RealClock.
	Clock clock.Clock

	// Registerer gets a Source's expiry metrics; a Keeper has none of its own. Nil
	// registers none.
	Registerer prometheus.Registerer
}

// ServiceNames returns the DNS names under which a service is called from inside
// its cluster, whatever the cluster's domain.
func ServiceNames(service, namespace string) []string {
	return []string{service + "." + namespace + ".svc", service + "." + namespace, service}
}

func (o Options) withDefaults() Options {
	if o.CATTL == 0 {
		o.CATTL = DefaultCATTL
	}
	if o.LeafTTL == 0 {
		o.LeafTTL = DefaultLeafTTL
	}
	if o.PropagationDelay == 0 {
		o.PropagationDelay = DefaultPropagationDelay
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Client == nil {
		errs = append(errs, errors.New("no client given"))
	}
	for _, required := range []struct{ name, value string }{
		{"namespace", o.Namespace}, {"secret name", o.SecretName}, {"configuration name", o.ConfigurationName},
	} {
		if required.value == "" {
			errs = append(errs, fmt.Errorf("no %s given", required.name))
		}
	}
	return errors.Join(errs...)
}

// validateLeaf is what a Source needs besides.
func (o Options) validateLeaf() error {
	var errs []error
	if len(o.DNSNames)+len(o.IPAddresses) == 0 {
		errs = append(errs, errors.New("no DNS name or IP address given: the API server could not verify the certificate"))
	}
	if o.LeafTTL < 0 {
		errs = append(errs, fmt.Errorf("leaf lifetime %s is negative", o.LeafTTL))
	}
	return errors.Join(errs...)
}

// validateCA is what a Keeper needs besides.
func (o Options) validateCA() error {
	var errs []error
	if o.CATTL < 0 {
		errs = append(errs, fmt.Errorf("CA lifetime %s is negative", o.CATTL))
	}
	if o.PropagationDelay < 0 {
		errs = append(errs, fmt.Errorf("propagation delay %s is negative", o.PropagationDelay))
	}
	// Both waits must end within the last third of the old authority's life, or
	// its leaves expire while the next one is still waiting.
	if 4*o.PropagationDelay > o.CATTL {
		errs = append(errs, fmt.Errorf("propagation delay %s does not fit four times into the CA lifetime %s", o.PropagationDelay, o.CATTL))
	}
	return errors.Join(errs...)
}
