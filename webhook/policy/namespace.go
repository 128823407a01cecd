package policy

import "slices"

// Namespace is what a decision needs to know of the pod's namespace.
type Namespace struct {
	Name        string
	Labels      map[string]string
	Annotations map[string]string
}

// Warning is something the user should know and that is no error.
type Warning struct {
	// Code is short and stable, in kebab case; the status annotation keeps it.
	Code string
	// Text is one sentence for the user.
	Text string
}

// Mode is how a pod gets its identity.
type Mode string

// The modes of the API.
const (
	// Sidecar: Istio's agent beside the edge, without Envoy.
	Sidecar Mode = "sidecar"
	// Istio: Istio's injector adds its sidecar, Isthmus prepares the pod for it.
	Istio Mode = "istio"
	// Secret: no container; the controller keeps the certificate in a Secret.
	Secret Mode = "secret"
	// Ambient: ztunnel carries the traffic, and the pod has no certificate.
	Ambient Mode = "ambient"
)

// Known reports whether the mode is one of the API's.
func (m Mode) Known() bool { return slices.Contains(modes, m) }

// Source is where the certificate in a Secret comes from.
type Source string

// The sources.
const (
	// IstioCA: the controller asks istiod for it, as the edge's service account.
	IstioCA Source = "istio-ca"
	// Agent: the publisher in the pod takes it from the agent's files.
	Agent Source = "agent"
	// CertManager: cert-manager issues it.
	CertManager Source = "cert-manager"
	// Mirror: another Secret holds it.
	Mirror Source = "mirror"
)

var sources = []Source{IstioCA, Agent, CertManager, Mirror}
