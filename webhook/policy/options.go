package policy

import (
	"slices"
	"time"
)

// Delivery is how the edge reads its certificate.
type Delivery string

// The deliveries.
const (
	// DeliveryFiles delivers the certificate as files in the shared volume.
	DeliveryFiles Delivery = "files"
	// DeliverySecret delivers the certificate in the Secret only.
	DeliverySecret Delivery = "secret"
)

// Defaults are the chart's values for options that neither pod nor namespace
// sets. The zero value stands for the built-in defaults.
type Defaults struct {
	// Mode defaults to sidecar.
	Mode Mode `json:"mode,omitempty"`
	// Delivery defaults to files. Mode secret always uses secret and mode ambient
	// has no delivery, whatever this field says.
	Delivery Delivery `json:"delivery,omitempty"`
	// Envoy runs Envoy beside the agent. Default false.
	Envoy bool `json:"envoy,omitempty"`
	// CertDir defaults to /etc/istio-certs.
	CertDir string `json:"certDir,omitempty"`
	// CertTTL is a Go duration. Default 24h, or the maximum that the CA grants if
	// that is less.
	CertTTL string `json:"certTTL,omitempty"`
	// SecretName defaults to istio-certs.
	SecretName string `json:"secretName,omitempty"`
	// Source defaults to istio-ca. Agent adds the publisher to every pod that does
	// not opt out of it.
	Source Source `json:"source,omitempty"`
	// TLSContext requests a TLSContext of the default name. Default false.
	TLSContext bool `json:"tlsContext,omitempty"`
}

// Names are the names that the settings allow.
type Names struct {
	// Secrets are the allowed names of Secrets.
	Secrets []string
	// TLSContexts are the allowed names of TLSContexts.
	TLSContexts []string
}

// DefaultTLSContext is the name of a TLSContext for which no other name is chosen.
const DefaultTLSContext = "istio-upstream"

// RootsSuffix follows the name of a Secret in the name of the Secret that holds only
// the mesh's roots, for the ca_secret of a TLSContext.
const RootsSuffix = "-roots"

// TCPSuffix follows the name of a TLSContext in the name of its companion for
// TCPMappings.
const TCPSuffix = "-tcp"

// defaultTLSContext is the name that the value "true" stands for.
func (n Names) defaultTLSContext() string {
	if len(n.TLSContexts) == 0 || slices.Contains(n.TLSContexts, DefaultTLSContext) {
		return DefaultTLSContext
	}
	return n.TLSContexts[0]
}

// Options is the combination of what pod, namespace and defaults set. It is
// comparable.
type Options struct {
	// Mode is how the pod gets its identity.
	Mode Mode
	// Delivery is how the edge reads its certificate. It is empty in mode ambient,
	// which has no certificate to deliver.
	Delivery Delivery
	// CertDir is the certificate directory in the edge container.
	CertDir string
	// CertDirSet is true when pod or namespace chose CertDir.
	CertDirSet bool
	// SecretName is the name of the Secret with the certificate.
	SecretName string
	// Envoy is true in mode istio, because Istio's own sidecar runs Envoy, and false
	// in the modes without a sidecar.
	Envoy bool
	// Publish adds the in-pod publisher.
	Publish bool
	// Source is where the Secret's certificate comes from. It is Agent exactly
	// when Publish is true.
	Source Source
	// MirrorSecret is the name of the Secret that source Mirror follows. Empty means
	// istio.<service account>; it is empty with every other source.
	MirrorSecret string
	// ServiceAccount is the service account whose Secret is maintained even while no
	// edge pod uses it. It is empty when the namespace names none.
	ServiceAccount string
	// TLSContext is the name of the TLSContext that is requested. It is empty when none
	// is.
	TLSContext string
	// CertTTL is the certificate lifetime to request. Zero means that neither pod,
	// namespace nor chart set it.
	CertTTL time.Duration
	// Revision is the revision of Istio that pod or namespace chose. In mode istio it
	// is the revision whose injector sees the pod.
	Revision string
}

// Problem is an invalid value.
type Problem struct {
	// OfNamespace is true when the namespace or the defaults carry the value: then
	// the pod is not at fault.
	OfNamespace bool
	// Message is one sentence with the key, the value and what is allowed.
	Message string
}
