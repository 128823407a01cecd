package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Source is where the certificate in a Secret comes from.
type Source string

// The sources.
const (
	// IstioCA: the controller requests the certificate from istiod, as the edge's
	// service account.
	IstioCA Source = "istio-ca"
	// Agent: the publisher in the pod takes the certificate from the agent's files.
	Agent Source = "agent"
	// CertManager: cert-manager issues the certificate.
	CertManager Source = "cert-manager"
	// Mirror: the certificate is copied from another Secret.
	Mirror Source = "mirror"
)

var sources = []Source{IstioCA, Agent, CertManager, Mirror}

// Known reports whether s is one of the sources.
func (s Source) Known() bool { return slices.Contains(sources, s) }

// readSource decides where the Secret's certificate comes from. The annotations
// source and publish overlap, so they have to agree: the source is agent exactly
// when the publisher is in the pod.
func (r *resolver) readSource(o *Options, d Defaults) {
	explicit, isExplicit := r.ns.Annotations[SourceKey]
	o.Source = IstioCA
	r.readNamespace(SourceKey, string(d.Source), func(v string) string {
		o.Source = Source(v)
		switch {
		case !o.Source.Known():
			return "want istio-ca, agent, cert-manager or mirror"
		case o.Source == Agent && o.Mode != Sidecar && (isExplicit || !r.hasAnnotation(ModeKey)):
			return o.Mode.noAgentReason() + "; want istio-ca, cert-manager or mirror"
		default:
			return ""
		}
	})
	if o.Source == Agent && o.Mode != Sidecar && !isExplicit {
		o.Source = IstioCA // an explicit mode wins over a default source
	}
	o.Publish = o.Source == Agent
	r.read(PublishKey, "", func(v string) string {
		if problem := parseBool(&o.Publish)(v); problem != "" {
			return problem
		}
		switch {
		case o.Publish && o.Mode != Sidecar:
			return o.Mode.noAgentReason() + `, so there are no files to publish; want "false"`
		case isExplicit && o.Source.Known() && o.Publish != (o.Source == Agent):
			return fmt.Sprintf(`namespace %s has the annotation %s: %q, and publish must be "true" with source agent and "false" with any other source; change one of the two`, r.ns.Name, SourceKey, explicit)
		case o.Publish:
			o.Source = Agent
		case o.Source == Agent:
			o.Source = IstioCA
		}
		return ""
	})
}

// readNamespaceOnly reads the options that a pod cannot set.
func (r *resolver) readNamespaceOnly(o *Options, d Defaults, names Names) {
	if o.Source == Mirror {
		r.readNamespace(MirrorSecretKey, "", func(v string) string {
			o.MirrorSecret = v
			if v == o.SecretName {
				return "Isthmus writes that Secret itself; want the name of another Secret"
			}
			return nameProblem(v, "a Secret")
		})
	}
	r.readNamespace(ServiceAccountKey, "", func(v string) string {
		o.ServiceAccount = v
		return nameProblem(v, "a service account")
	})
	if d.TLSContext {
		o.TLSContext = names.defaultTLSContext()
	}
	r.readNamespace(TLSContextKey, "", func(v string) string {
		switch {
		case v == "true":
			o.TLSContext = names.defaultTLSContext()
		case v == "false":
			o.TLSContext = ""
		case slices.Contains(names.TLSContexts, v):
			o.TLSContext = v
		default:
			return `want "true", "false" or one of the names that the chart allows: ` + strings.Join(names.TLSContexts, ", ")
		}
		return ""
	})
}

// hasAnnotation reports whether pod or namespace has the annotation.
func (r *resolver) hasAnnotation(key string) bool {
	_, onPod := r.podAnnotations[key]
	_, onNamespace := r.ns.Annotations[key]
	return onPod || onNamespace
}

// nameProblem returns what is wrong with the name of an object, or "". Secrets and
// service accounts are both named by DNS subdomains (pkg/apis/core/validation of
// Kubernetes).
func nameProblem(v, kind string) string {
	if len(validation.IsDNS1123Subdomain(v)) > 0 {
		return "want the name of " + kind + ": lower case letters, digits, dashes and dots"
	}
	return ""
}

// MinCertManagerTTL is the shortest lifetime that cert-manager issues
// (MinimumCertificateDuration of its API).
const MinCertManagerTTL = time.Hour
