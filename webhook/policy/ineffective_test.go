package policy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestIneffectiveKeys(t *testing.T) {
	ns := policy.Namespace{Name: "shop", Annotations: annotations{policy.MirrorSecretKey: "istio.edge"}}
	pod := annotations{policy.EnvoyKey: "true", policy.IstioProxyCPUKey: "1", policy.CertTTLKey: "1h"}
	assert.Equal(t, []policy.Warning{
		{Code: "no-effect", Text: `namespace shop: annotation isthmus.dev/mirror-secret: "istio.edge" has no effect because the source is istio-ca; set isthmus.dev/source: mirror, or remove the annotation`},
		{Code: "no-effect", Text: `annotation isthmus.dev/envoy: "true" has no effect because mode secret adds no sidecar; remove the annotation`},
		{Code: "no-effect", Text: `annotation sidecar.istio.io/proxyCPU: "1" has no effect because mode secret adds no sidecar; remove the annotation`},
	}, policy.IneffectiveKeys(pod, ns, policy.Options{Mode: policy.Secret, Source: policy.IstioCA}))
	assert.Empty(t, policy.IneffectiveKeys(pod, ns, policy.Options{Mode: policy.Sidecar, Source: policy.Mirror}))
	assert.Empty(t, policy.IneffectiveKeys(annotations{policy.EnvoyKey: "false"}, policy.Namespace{}, policy.Options{Mode: policy.Secret, Source: policy.IstioCA}))
}
