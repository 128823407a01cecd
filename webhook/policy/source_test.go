package policy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

type keys map[string]string

// TestSource: who writes the Secret, and what contradicts it.
func TestSource(t *testing.T) {
	type options = policy.Options
	for name, c := range map[string]struct {
		pod, namespace keys
		defaults       policy.Defaults
		want           options
		// problem is its message; ofNamespace says whose it is.
		problem     string
		ofNamespace bool
	}{
		"if nobody says, expect istio-ca": {want: options{Source: policy.IstioCA}},
		"if the namespace says agent, expect the publisher": {
			namespace: keys{policy.SourceKey: "agent"}, want: options{Source: policy.Agent, Publish: true},
		},
		"if the pod publishes, expect source agent": {
			pod: keys{policy.PublishKey: "true"}, want: options{Source: policy.Agent, Publish: true},
		},
		"if the namespace publishes, expect source agent": {
			namespace: keys{policy.PublishKey: "true"}, want: options{Source: policy.Agent, Publish: true},
		},
		"if namespace and pod agree, expect it": {
			pod: keys{policy.PublishKey: "true"}, namespace: keys{policy.SourceKey: "agent"}, want: options{Source: policy.Agent, Publish: true},
		},
		"if the chart says cert-manager and the pod publishes, expect the pod": {
			pod: keys{policy.PublishKey: "true"}, defaults: policy.Defaults{Source: policy.CertManager}, want: options{Source: policy.Agent, Publish: true},
		},
		"if the chart says agent, expect the publisher": {
			defaults: policy.Defaults{Source: policy.Agent}, want: options{Source: policy.Agent, Publish: true},
		},
		"if the chart says agent and the pod says no, expect istio-ca": {
			pod: keys{policy.PublishKey: "false"}, defaults: policy.Defaults{Source: policy.Agent}, want: options{Source: policy.IstioCA},
		},
		"if the chart says agent and the namespace mode secret, expect istio-ca": {
			namespace: keys{policy.ModeKey: "secret"}, defaults: policy.Defaults{Source: policy.Agent}, want: options{Source: policy.IstioCA},
		},
		"if the namespace says mirror, expect the default name": {
			namespace: keys{policy.SourceKey: "mirror"}, want: options{Source: policy.Mirror},
		},
		"if the namespace names the Secret to mirror, expect it": {
			namespace: keys{policy.SourceKey: "mirror", policy.MirrorSecretKey: "istio.edge"}, want: options{Source: policy.Mirror, MirrorSecret: "istio.edge"},
		},
		"if nothing is mirrored, expect no name": {
			namespace: keys{policy.MirrorSecretKey: "A_B"}, want: options{Source: policy.IstioCA},
		},
		"if a pod has a namespace's keys, expect no effect": {
			pod:  keys{policy.SourceKey: "x", policy.ServiceAccountKey: "y", policy.MirrorSecretKey: "z", policy.TLSContextKey: "true"},
			want: options{Source: policy.IstioCA},
		},
		"if the namespace names a service account, expect it": {
			namespace: keys{policy.ServiceAccountKey: "emissary.edge", policy.TLSContextKey: "true"},
			want:      options{Source: policy.IstioCA, ServiceAccount: "emissary.edge", TLSContext: true},
		},
		"if the namespace wants no TLSContext, expect it to win": {
			namespace: keys{policy.TLSContextKey: "false"}, defaults: policy.Defaults{TLSContext: true}, want: options{Source: policy.IstioCA},
		},

		"if the source is not known, expect the known ones": {
			namespace: keys{policy.SourceKey: "vault"}, ofNamespace: true,
			problem: `annotation of namespace shop isthmus.dev/source: "vault" is not allowed; want istio-ca, agent, cert-manager or mirror`,
		},
		"if the default source is not known, expect the known ones": {
			defaults: policy.Defaults{Source: "vault"}, ofNamespace: true,
			problem: `default for isthmus.dev/source: "vault" is not allowed; want istio-ca, agent, cert-manager or mirror`,
		},
		"if the pod publishes and the namespace says otherwise, expect the pod blamed": {
			pod: keys{policy.PublishKey: "true"}, namespace: keys{policy.SourceKey: "cert-manager"},
			problem: `annotation isthmus.dev/publish: "true" is not allowed; annotation isthmus.dev/source of namespace shop is "cert-manager", and publish is "true" exactly when the source is agent; change one of the two`,
		},
		"if the namespace contradicts itself, expect it blamed": {
			namespace: keys{policy.SourceKey: "istio-ca", policy.PublishKey: "true"}, ofNamespace: true,
			problem: `annotation of namespace shop isthmus.dev/publish: "true" is not allowed; annotation isthmus.dev/source of namespace shop is "istio-ca", and publish is "true" exactly when the source is agent; change one of the two`,
		},
		"if the pod refuses the namespace's agent, expect the pod blamed": {
			pod: keys{policy.PublishKey: "false"}, namespace: keys{policy.SourceKey: "agent"},
			problem: `annotation isthmus.dev/publish: "false" is not allowed; annotation isthmus.dev/source of namespace shop is "agent", and publish is "true" exactly when the source is agent; change one of the two`,
		},
		"if publish is no boolean, expect what is": {
			pod:     keys{policy.PublishKey: "yes"},
			problem: `annotation isthmus.dev/publish: "yes" is not allowed; want "true" or "false"`,
		},
		"if mode secret publishes, expect no": {
			pod:     keys{policy.ModeKey: "secret", policy.PublishKey: "true"},
			problem: `annotation isthmus.dev/publish: "true" is not allowed; mode secret has no agent in the pod whose files could be published; want "false"`,
		},
		"if mode secret has source agent, expect no": {
			pod: keys{policy.ModeKey: "secret"}, namespace: keys{policy.SourceKey: "agent"}, ofNamespace: true,
			problem: `annotation of namespace shop isthmus.dev/source: "agent" is not allowed; mode secret has no agent in the pod; want istio-ca, cert-manager or mirror`,
		},
		"if the chart wants mode secret of an agent, expect no": {
			defaults: policy.Defaults{Mode: policy.Secret, Source: policy.Agent}, ofNamespace: true,
			problem: `default for isthmus.dev/source: "agent" is not allowed; mode secret has no agent in the pod; want istio-ca, cert-manager or mirror`,
		},
		"if the Secret would mirror itself, expect no": {
			namespace: keys{policy.SourceKey: "mirror", policy.MirrorSecretKey: "istio-certs"}, ofNamespace: true,
			problem: `annotation of namespace shop isthmus.dev/mirror-secret: "istio-certs" is not allowed; that Secret is the one that is kept; want the name of another`,
		},
		"if the Secret to mirror has no valid name, expect no": {
			namespace: keys{policy.SourceKey: "mirror", policy.MirrorSecretKey: "A_B"}, ofNamespace: true,
			problem: `annotation of namespace shop isthmus.dev/mirror-secret: "A_B" is not allowed; want the name of a Secret: lower case letters, digits, dashes and dots`,
		},
		"if the service account has no name, expect no": {
			namespace: keys{policy.ServiceAccountKey: ""}, ofNamespace: true,
			problem: `annotation of namespace shop isthmus.dev/service-account: "" is not allowed; want the name of a service account: lower case letters, digits, dashes and dots`,
		},
		"if tls-context is no boolean, expect no": {
			namespace: keys{policy.TLSContextKey: "on"}, ofNamespace: true,
			problem: `annotation of namespace shop isthmus.dev/tls-context: "on" is not allowed; want "true" or "false"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := policy.Namespace{Name: "shop", Annotations: c.namespace}
			got, problem := policy.Resolve(nil, c.pod, ns, c.defaults, []string{"istio-certs"})
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

// TestModeSecretReadsTheSecret: there is nothing else to read.
func TestModeSecretReadsTheSecret(t *testing.T) {
	names := []string{"istio-certs"}
	secret := keys{policy.ModeKey: "secret", policy.EnvoyKey: "true"}
	options, problem := policy.Resolve(nil, secret, policy.Namespace{Name: "shop"}, policy.Defaults{Delivery: policy.Files, Envoy: true}, names)
	assert.Nil(t, problem, "a default is no contradiction")
	assert.Equal(t, policy.BySecret, options.Delivery)
	assert.False(t, options.Envoy)

	_, problem = policy.Resolve(nil, keys{policy.ModeKey: "secret", policy.DeliveryKey: "files"}, policy.Namespace{Name: "shop"}, policy.Defaults{}, names)
	assert.Equal(t, &policy.Problem{Message: `annotation isthmus.dev/delivery: "files" is not allowed; mode secret has no agent that writes files; want secret`}, problem)
	_, problem = policy.Resolve(nil, secret, policy.Namespace{Name: "shop", Annotations: keys{policy.DeliveryKey: "files"}}, policy.Defaults{}, names)
	assert.Equal(t, &policy.Problem{
		OfNamespace: true,
		Message:     `annotation of namespace shop isthmus.dev/delivery: "files" is not allowed; mode secret has no agent that writes files; want secret`,
	}, problem)
}

func TestIneffective(t *testing.T) {
	ns := policy.Namespace{Name: "shop", Annotations: keys{policy.MirrorSecretKey: "istio.edge"}}
	pod := keys{policy.EnvoyKey: "true", policy.IstioProxyCPUKey: "1", policy.CertTTLKey: "1h"}
	assert.Equal(t, []policy.Warning{
		{Code: "no-effect", Text: `annotation of namespace shop isthmus.dev/mirror-secret: "istio.edge" has no effect, for the source is istio-ca; set isthmus.dev/source: mirror, or remove it`},
		{Code: "no-effect", Text: `annotation isthmus.dev/envoy: "true" has no effect, for mode secret adds no sidecar; remove it`},
		{Code: "no-effect", Text: `annotation sidecar.istio.io/proxyCPU: "1" has no effect, for mode secret adds no sidecar; remove it`},
	}, policy.Ineffective(pod, ns, policy.Options{Mode: policy.Secret, Source: policy.IstioCA}))
	assert.Empty(t, policy.Ineffective(pod, ns, policy.Options{Mode: policy.Sidecar, Source: policy.Mirror}))
	assert.Empty(t, policy.Ineffective(keys{policy.EnvoyKey: "false"}, policy.Namespace{}, policy.Options{Mode: policy.Secret, Source: policy.IstioCA}))
}
