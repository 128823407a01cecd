package policy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// annotations of a pod or namespace.
type annotations map[string]string

// The annotations source and publish have to agree.
func TestSource(t *testing.T) {
	type options = policy.Options
	for name, c := range map[string]struct {
		pod, namespace annotations
		defaults       policy.Defaults
		want           options
		// problem is the message; ofNamespace is true for a problem of the namespace.
		problem     string
		ofNamespace bool
	}{
		"if nothing is set, expect istio-ca": {want: options{Source: policy.IstioCA}},
		"if the namespace sets agent, expect the publisher": {
			namespace: annotations{policy.SourceKey: "agent"}, want: options{Source: policy.Agent, Publish: true},
		},
		"if the pod publishes, expect source agent": {
			pod: annotations{policy.PublishKey: "true"}, want: options{Source: policy.Agent, Publish: true},
		},
		"if the namespace publishes, expect source agent": {
			namespace: annotations{policy.PublishKey: "true"}, want: options{Source: policy.Agent, Publish: true},
		},
		"if namespace and pod agree, expect agent": {
			pod: annotations{policy.PublishKey: "true"}, namespace: annotations{policy.SourceKey: "agent"}, want: options{Source: policy.Agent, Publish: true},
		},
		"if the chart sets cert-manager and the pod publishes, expect agent": {
			pod: annotations{policy.PublishKey: "true"}, defaults: policy.Defaults{Source: policy.CertManager}, want: options{Source: policy.Agent, Publish: true},
		},
		"if the chart sets agent, expect the publisher": {
			defaults: policy.Defaults{Source: policy.Agent}, want: options{Source: policy.Agent, Publish: true},
		},
		"if the chart sets agent and the pod does not publish, expect istio-ca": {
			pod: annotations{policy.PublishKey: "false"}, defaults: policy.Defaults{Source: policy.Agent}, want: options{Source: policy.IstioCA},
		},
		"if the chart sets agent and the namespace mode secret, expect istio-ca": {
			namespace: annotations{policy.ModeKey: "secret"}, defaults: policy.Defaults{Source: policy.Agent}, want: options{Source: policy.IstioCA},
		},
		"if the namespace sets mirror, expect the default name": {
			namespace: annotations{policy.SourceKey: "mirror"}, want: options{Source: policy.Mirror},
		},
		"if the namespace names the Secret to mirror, expect that name": {
			namespace: annotations{policy.SourceKey: "mirror", policy.MirrorSecretKey: "istio.edge"}, want: options{Source: policy.Mirror, MirrorSecret: "istio.edge"},
		},
		"if nothing is mirrored, expect no name": {
			namespace: annotations{policy.MirrorSecretKey: "A_B"}, want: options{Source: policy.IstioCA},
		},
		"if a pod has a namespace's annotations, expect no effect": {
			pod:  annotations{policy.SourceKey: "x", policy.ServiceAccountKey: "y", policy.MirrorSecretKey: "z", policy.TLSContextKey: "true"},
			want: options{Source: policy.IstioCA},
		},
		"if the namespace names a service account, expect that name": {
			namespace: annotations{policy.ServiceAccountKey: "emissary.edge", policy.TLSContextKey: "true"},
			want:      options{Source: policy.IstioCA, ServiceAccount: "emissary.edge", TLSContext: "istio-upstream"},
		},
		"if the namespace names an allowed TLSContext, expect that name": {
			namespace: annotations{policy.TLSContextKey: "mesh-upstream"}, want: options{Source: policy.IstioCA, TLSContext: "mesh-upstream"},
		},
		"if the chart requests a TLSContext, expect the default name": {
			defaults: policy.Defaults{TLSContext: true}, want: options{Source: policy.IstioCA, TLSContext: "istio-upstream"},
		},
		"if the namespace wants no TLSContext, expect the namespace to win": {
			namespace: annotations{policy.TLSContextKey: "false"}, defaults: policy.Defaults{TLSContext: true}, want: options{Source: policy.IstioCA},
		},

		"if the source is not known, expect the known ones": {
			namespace: annotations{policy.SourceKey: "vault"}, ofNamespace: true,
			problem: `namespace shop: annotation isthmus.dev/source: "vault" is not allowed; want istio-ca, agent, cert-manager or mirror`,
		},
		"if the default source is not known, expect the known ones": {
			defaults: policy.Defaults{Source: "vault"}, ofNamespace: true,
			problem: `default for isthmus.dev/source: "vault" is not allowed; want istio-ca, agent, cert-manager or mirror`,
		},
		"if the pod publishes against the namespace's source, expect a problem of the pod": {
			pod: annotations{policy.PublishKey: "true"}, namespace: annotations{policy.SourceKey: "cert-manager"},
			problem: `annotation isthmus.dev/publish: "true" is not allowed; namespace shop has the annotation isthmus.dev/source: "cert-manager", and publish must be "true" with source agent and "false" with any other source; change one of the two`,
		},
		"if the namespace contradicts itself, expect a problem of the namespace": {
			namespace: annotations{policy.SourceKey: "istio-ca", policy.PublishKey: "true"}, ofNamespace: true,
			problem: `namespace shop: annotation isthmus.dev/publish: "true" is not allowed; namespace shop has the annotation isthmus.dev/source: "istio-ca", and publish must be "true" with source agent and "false" with any other source; change one of the two`,
		},
		"if the pod does not publish for the namespace's agent, expect a problem of the pod": {
			pod: annotations{policy.PublishKey: "false"}, namespace: annotations{policy.SourceKey: "agent"},
			problem: `annotation isthmus.dev/publish: "false" is not allowed; namespace shop has the annotation isthmus.dev/source: "agent", and publish must be "true" with source agent and "false" with any other source; change one of the two`,
		},
		"if publish is not a boolean, expect the allowed values": {
			pod:     annotations{policy.PublishKey: "yes"},
			problem: `annotation isthmus.dev/publish: "yes" is not allowed; want "true" or "false"`,
		},
		"if mode secret publishes, expect a problem": {
			pod:     annotations{policy.ModeKey: "secret", policy.PublishKey: "true"},
			problem: `annotation isthmus.dev/publish: "true" is not allowed; mode secret has no agent in the pod, so there are no files to publish; want "false"`,
		},
		"if mode secret has source agent, expect a problem": {
			pod: annotations{policy.ModeKey: "secret"}, namespace: annotations{policy.SourceKey: "agent"}, ofNamespace: true,
			problem: `namespace shop: annotation isthmus.dev/source: "agent" is not allowed; mode secret has no agent in the pod; want istio-ca, cert-manager or mirror`,
		},
		"if the chart combines mode secret with source agent, expect a problem": {
			defaults: policy.Defaults{Mode: policy.Secret, Source: policy.Agent}, ofNamespace: true,
			problem: `default for isthmus.dev/source: "agent" is not allowed; mode secret has no agent in the pod; want istio-ca, cert-manager or mirror`,
		},
		"if the Secret would mirror itself, expect a problem": {
			namespace: annotations{policy.SourceKey: "mirror", policy.MirrorSecretKey: "istio-certs"}, ofNamespace: true,
			problem: `namespace shop: annotation isthmus.dev/mirror-secret: "istio-certs" is not allowed; Isthmus writes that Secret itself; want the name of another Secret`,
		},
		"if the name of the Secret to mirror is invalid, expect a problem": {
			namespace: annotations{policy.SourceKey: "mirror", policy.MirrorSecretKey: "A_B"}, ofNamespace: true,
			problem: `namespace shop: annotation isthmus.dev/mirror-secret: "A_B" is not allowed; want the name of a Secret: lower case letters, digits, dashes and dots`,
		},
		"if the name of the service account is empty, expect a problem": {
			namespace: annotations{policy.ServiceAccountKey: ""}, ofNamespace: true,
			problem: `namespace shop: annotation isthmus.dev/service-account: "" is not allowed; want the name of a service account: lower case letters, digits, dashes and dots`,
		},
		"if the TLSContext's name is not allowed, expect the allowed names": {
			namespace: annotations{policy.TLSContextKey: "on"}, ofNamespace: true,
			problem: `namespace shop: annotation isthmus.dev/tls-context: "on" is not allowed; want "true", "false" or one of the names that the chart allows: istio-upstream, mesh-upstream`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := policy.Namespace{Name: "shop", Annotations: c.namespace}
			got, problem := policy.Resolve(nil, c.pod, ns, c.defaults, policy.Names{Secrets: []string{"istio-certs"}, TLSContexts: []string{"istio-upstream", "mesh-upstream"}})
			if c.problem != "" {
				assert.Equal(t, &policy.Problem{OfNamespace: c.ofNamespace, Message: c.problem}, problem)
				return
			}
			assert.Nil(t, problem)
			assert.Equal(t, c.want, options{
				Source: got.Source, Publish: got.Publish, MirrorSecret: got.MirrorSecret, ServiceAccount: got.ServiceAccount, TLSContext: got.TLSContext,
			})
		})
	}
}
