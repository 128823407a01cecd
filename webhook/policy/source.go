package policy

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
)

// readSource settles who writes the Secret. Source and publish say the same
// thing twice, so they have to agree: the source is agent exactly when the
// publisher is in the pod.
func (r *resolver) readSource(o *Options, d Defaults) {
	explicit, isExplicit := r.ns.Annotations[SourceKey]
	o.Source = IstioCA
	r.readNamespace(SourceKey, string(d.Source), func(v string) string {
		o.Source = Source(v)
		switch {
		case !slices.Contains(sources, o.Source):
			return "want istio-ca, agent, cert-manager or mirror"
		case o.Source == Agent && o.Mode != Sidecar && (isExplicit || !r.says(ModeKey)):
			return fmt.Sprintf("%s; want istio-ca, cert-manager or mirror", o.Mode.noAgent())
		default:
			return ""
		}
	})
	if o.Source == Agent && o.Mode != Sidecar && !isExplicit {
		o.Source = IstioCA // a mode that somebody chose counts for more than a default source
	}
	o.Publish = o.Source == Agent
	r.read(PublishKey, "", func(v string) string {
		if wrong := boolean(&o.Publish)(v); wrong != "" {
			return wrong
		}
		switch {
		case o.Publish && o.Mode != Sidecar:
			return o.Mode.noAgent() + ` whose files could be published; want "false"`
		case isExplicit && slices.Contains(sources, o.Source) && o.Publish != (o.Source == Agent):
			return fmt.Sprintf("annotation %s of namespace %s is %q, and publish is \"true\" exactly when the source is agent; change one of the two", SourceKey, r.ns.Name, explicit)
		case o.Publish:
			o.Source = Agent
		case o.Source == Agent:
			o.Source = IstioCA
		}
		return ""
	})
}

// readNamespaceOnly reads what a pod has no say in.
func (r *resolver) readNamespaceOnly(o *Options, d Defaults) {
	if o.Source == Mirror {
		r.readNamespace(MirrorSecretKey, "", func(v string) string {
			o.MirrorSecret = v
			if v == o.SecretName {
				return "that Secret is the one that is kept; want the name of another"
			}
			return name(v, "a Secret")
		})
	}
	r.readNamespace(ServiceAccountKey, "", func(v string) string {
		o.ServiceAccount = v
		return name(v, "a service account")
	})
	o.TLSContext = d.TLSContext
	r.readNamespace(TLSContextKey, "", boolean(&o.TLSContext))
}

// says reports whether pod or namespace has the annotation.
func (r *resolver) says(key string) bool {
	_, byPod := r.pod[key]
	_, byNamespace := r.ns.Annotations[key]
	return byPod || byNamespace
}

// name says what is wrong with a name. Secrets and service accounts are both
// named by DNS subdomains (pkg/apis/core/validation of Kubernetes).
func name(v, of string) string {
	if len(validation.IsDNS1123Subdomain(v)) > 0 {
		return "want the name of " + of + ": lower case letters, digits, dashes and dots"
	}
	return ""
}
