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
	// DefaultCATTL is the lifetime of a certificate authority: one year. Users do not
	// notice its rotation, so a longer life has no advantage for them. The rotation
	// begins with a third of the lifetime left, so the controller can be down for four
	// months before a root expires. If it expires, the controller creates a new one
	// when it runs again.
	DefaultCATTL = 365 * 24 * time.Hour

	// DefaultLeafTTL is the lifetime of a replica's leaf: seven days. The key stays in
	// the memory of one process, so a shorter life would add little security. A leaf
	// is renewed with a third of its lifetime left, so reviews continue even if the
	// authority cannot be read for two days.
	DefaultLeafTTL = 7 * 24 * time.Hour

	// DefaultPropagationDelay is how long each of a rotation's two waits lasts: two
	// minutes. API servers learn of a new caBundle by a watch, usually within
	// milliseconds. client-go's HTTP/2 health check detects a watch on a dead
	// connection after 45 seconds. The delay also covers clocks of nodes that differ
	// by less than it.
	DefaultPropagationDelay = 2 * time.Minute
)

// Options configure a Rotator or a Source.
type Options struct {
	// Client reads and watches the Secret and the configuration, both by name only. A
	// Rotator's client also updates the Secret and patches the configuration, and does
	// the same for the validating configuration. Required.
	Client kubernetes.Interface

	// Namespace is the namespace of the Secret. Required.
	Namespace string

	// SecretName is the name of the Secret that holds the authority. The Secret must
	// exist, empty at first; this package never creates it. Required.
	SecretName string

	// ConfigurationName is the name of the MutatingWebhookConfiguration, and of the
	// ValidatingWebhookConfiguration if there is one. The Rotator writes the trust
	// bundle as caBundle into all their webhooks. Required.
	ConfigurationName string

	// DNSNames are the DNS names in every leaf. The API server calls a service as
	// <service>.<namespace>.svc; see ServiceNames. A Source requires at least one
	// unless IPAddresses is set; a Rotator ignores both.
	DNSNames []string

	// IPAddresses are the IP addresses in every leaf, for a configuration that calls
	// the server by a URL with an address. Default none.
	IPAddresses []net.IP

	// CATTL is the lifetime of an authority that the Rotator generates. Default
	// DefaultCATTL.
	CATTL time.Duration

	// LeafTTL is the lifetime of a Source's leaf, which ends no later than its
	// authority. Default DefaultLeafTTL.
	LeafTTL time.Duration

	// PropagationDelay is how long the configurations must have carried the bundle
	// before the next authority signs, and again how long the old root stays after
	// that. It must fit four times into CATTL. Only the Rotator reads it. Default
	// DefaultPropagationDelay.
	PropagationDelay time.Duration

	// Log receives every step and every error, and never key material. The zero value
	// discards.
	Log logr.Logger

	// Clock is the source of time and timers. Default clock.RealClock.
	Clock clock.Clock

	// Registerer registers a Source's expiry metrics; a Rotator has no metrics.
	// Nil registers none.
	Registerer prometheus.Registerer
}

// ServiceNames returns the DNS names that clients in the cluster use for a service,
// without the cluster's domain.
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

// validateLeaf checks the options that only a Source reads.
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

// validateCA checks the options that only a Rotator reads.
func (o Options) validateCA() error {
	var errs []error
	if o.CATTL < 0 {
		errs = append(errs, fmt.Errorf("CA lifetime %s is negative", o.CATTL))
	}
	if o.PropagationDelay < 0 {
		errs = append(errs, fmt.Errorf("propagation delay %s is negative", o.PropagationDelay))
	}
	// Both waits must end within the last third of the old authority's lifetime.
	// Otherwise its leaves expire before the next authority signs.
	if 4*o.PropagationDelay > o.CATTL {
		errs = append(errs, fmt.Errorf("propagation delay %s does not fit four times into the CA lifetime %s", o.PropagationDelay, o.CATTL))
	}
	return errors.Join(errs...)
}
