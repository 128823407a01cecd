package policy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The pod wins over the namespace, the namespace over the defaults, and those over
// the built-in values.
func TestPrecedence(t *testing.T) {
	ns := policy.Namespace{Name: "shop", Annotations: map[string]string{policy.CertDirKey: "/namespace/", policy.DeliveryKey: "secret"}}
	defaults := policy.Defaults{CertDir: "/chart", Delivery: policy.DeliveryFiles, CertTTL: "2h"}
	names := policy.Names{Secrets: []string{"istio-certs"}}
	options, problem := policy.Resolve(nil, map[string]string{policy.CertDirKey: "/pod/./certs/"}, ns, defaults, names)
	assert.Nil(t, problem)
	assert.Equal(t, "/pod/certs", options.CertDir)
	assert.Equal(t, policy.DeliverySecret, options.Delivery)
	assert.Equal(t, "2h0m0s", options.CertTTL.String())

	options, problem = policy.Resolve(nil, nil, ns, defaults, names)
	assert.Nil(t, problem)
	assert.Equal(t, "/namespace", options.CertDir)

	options, problem = policy.Resolve(nil, nil, policy.Namespace{}, defaults, names)
	assert.Nil(t, problem)
	assert.Equal(t, "/chart", options.CertDir)

	options, problem = policy.Resolve(nil, nil, policy.Namespace{}, policy.Defaults{}, names)
	assert.Nil(t, problem)
	assert.Equal(t, policy.Options{Mode: policy.Sidecar, Delivery: policy.DeliveryFiles, CertDir: "/etc/istio-certs", SecretName: "istio-certs", Source: policy.IstioCA}, options)
}

// In mode secret the Secret is the only delivery.
func TestModeSecretDeliversTheSecret(t *testing.T) {
	names := policy.Names{Secrets: []string{"istio-certs"}}
	secret := annotations{policy.ModeKey: "secret", policy.EnvoyKey: "true"}
	options, problem := policy.Resolve(nil, secret, policy.Namespace{Name: "shop"}, policy.Defaults{Delivery: policy.DeliveryFiles, Envoy: true}, names)
	assert.Nil(t, problem, "a default does not contradict the mode")
	assert.Equal(t, policy.DeliverySecret, options.Delivery)
	assert.False(t, options.Envoy)

	_, problem = policy.Resolve(nil, annotations{policy.ModeKey: "secret", policy.DeliveryKey: "files"}, policy.Namespace{Name: "shop"}, policy.Defaults{}, names)
	assert.Equal(t, &policy.Problem{Message: `annotation isthmus.dev/delivery: "files" is not allowed; mode secret has no agent that writes files; want secret`}, problem)
	_, problem = policy.Resolve(nil, secret, policy.Namespace{Name: "shop", Annotations: annotations{policy.DeliveryKey: "files"}}, policy.Defaults{}, names)
	assert.Equal(t, &policy.Problem{
		OfNamespace: true,
		Message:     `namespace shop: annotation isthmus.dev/delivery: "files" is not allowed; mode secret has no agent that writes files; want secret`,
	}, problem)
}

// "true" stands for istio-upstream where that name is allowed, otherwise for the first
// allowed name.
func TestDefaultNameOfTheTLSContext(t *testing.T) {
	ns := policy.Namespace{Name: "shop", Annotations: map[string]string{policy.TLSContextKey: "true"}}
	for name, c := range map[string]struct {
		allowed []string
		want    string
	}{
		"if nothing is set, expect istio-upstream":                        {nil, "istio-upstream"},
		"if istio-upstream is not the first, expect it nevertheless":      {[]string{"mesh", "istio-upstream"}, "istio-upstream"},
		"if istio-upstream is not allowed, expect the first allowed name": {[]string{"mesh", "other"}, "mesh"},
	} {
		t.Run(name, func(t *testing.T) {
			got, problem := policy.Resolve(nil, nil, ns, policy.Defaults{}, policy.Names{Secrets: []string{"istio-certs"}, TLSContexts: c.allowed})
			assert.Nil(t, problem)
			assert.Equal(t, c.want, got.TLSContext)
		})
	}
}
