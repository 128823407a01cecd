package policy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestDecide(t *testing.T) {
	says := func(v string) map[string]string { return map[string]string{policy.InjectKey: v} }
	namespace := func(v string) policy.Namespace {
		ns := policy.Namespace{Name: "shop"}
		if v != "" {
			ns.Labels = map[string]string{policy.InjectionLabel: v}
		}
		return ns
	}
	for name, c := range map[string]struct {
		labels, annotations map[string]string
		ns                  policy.Namespace
		excluded            []string
		want                policy.Verdict
	}{
		"nobody asks":                        {ns: namespace(""), want: policy.Verdict{Reason: policy.OptedOut}},
		"the namespace asks":                 {ns: namespace("enabled"), want: policy.Verdict{Asked: policy.ByNamespace}},
		"the namespace is locked":            {ns: namespace("disabled"), want: policy.Verdict{Reason: policy.OptedOut}},
		"the namespace's label is misspelt":  {ns: namespace("true"), want: policy.Verdict{Reason: policy.OptedOut}},
		"the pod's annotation asks":          {annotations: says("true"), ns: namespace(""), want: policy.Verdict{Asked: policy.ByPod}},
		"the pod's label asks":               {labels: says("true"), ns: namespace("enabled"), want: policy.Verdict{Asked: policy.ByPod}},
		"both ask":                           {labels: says("true"), annotations: says("true"), ns: namespace(""), want: policy.Verdict{Asked: policy.ByPod}},
		"the pod refuses":                    {annotations: says("false"), ns: namespace("enabled"), want: policy.Verdict{Reason: policy.OptedOut}},
		"the pod refuses in a locked one":    {labels: says("false"), ns: namespace("disabled"), want: policy.Verdict{Reason: policy.OptedOut}},
		"an excluded namespace":              {ns: namespace("enabled"), excluded: []string{"shop"}, want: policy.Verdict{Reason: policy.ExcludedNamespace}},
		"an excluded namespace, pod refuses": {labels: says("false"), ns: namespace(""), excluded: []string{"shop"}, want: policy.Verdict{Reason: policy.OptedOut}},
		"label and annotation disagree": {labels: says("true"), annotations: says("false"), ns: namespace("enabled"), want: policy.Verdict{
			Reason: policy.Conflict, Denied: true,
			Message: `label isthmus.dev/inject is "true" and annotation isthmus.dev/inject is "false"; remove one of them`,
		}},
		"a label of another value": {labels: says("True"), ns: namespace("enabled"), want: policy.Verdict{
			Reason: policy.InvalidOverride, Denied: true,
			Message: `label isthmus.dev/inject: "True" is not allowed; want "true" or "false"`,
		}},
		"an empty annotation": {annotations: says(""), ns: namespace("enabled"), want: policy.Verdict{
			Reason: policy.InvalidOverride, Denied: true,
			Message: `annotation isthmus.dev/inject: "" is not allowed; want "true" or "false"`,
		}},
		"asking in a locked namespace": {annotations: says("true"), ns: namespace("disabled"), want: policy.Verdict{
			Reason: policy.ExcludedNamespace, Denied: true,
			Message: `isthmus.dev/inject is "true" but namespace shop is locked by its label isthmus.dev/injection=disabled; remove the key, or ask the namespace's owner to remove the label`,
		}},
		"asking in an excluded namespace": {labels: says("true"), ns: namespace("enabled"), excluded: []string{"shop"}, want: policy.Verdict{
			Reason: policy.ExcludedNamespace, Denied: true,
			Message: `isthmus.dev/inject is "true" but namespace shop is excluded from injection; remove the key, or run the pod in another namespace`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, policy.Decide(c.labels, c.annotations, c.ns, c.excluded))
		})
	}
}

func TestUnknownKeys(t *testing.T) {
	got := policy.UnknownKeys(
		map[string]string{"isthmus.dev/mode": "sidecar", "app": "edge"},
		map[string]string{"isthmus.dev/certdir": "/x", "isthmus.dev/secretname": "a", "isthmus.dev/tls-context": "b", "isthmus.dev/inject": "true", "isthmus.dev/restart-when-stale": "true"},
		policy.Namespace{Name: "shop", Labels: map[string]string{"isthmus.dev/inject": "true"}, Annotations: map[string]string{"isthmus.dev/sources": "agent", "isthmus.dev/restart-if-stale": "true", "isthmus.dev/restarted-for": "x"}},
	)
	assert.Equal(t, []policy.Warning{
		{Code: "misplaced-key", Text: "label isthmus.dev/mode has no effect there; it is an annotation of a pod or an annotation of a namespace"},
		{Code: "unknown-key", Text: "annotation isthmus.dev/certdir is not known and has no effect; did you mean isthmus.dev/cert-dir?"},
		{Code: "misplaced-key", Text: "annotation isthmus.dev/restart-when-stale has no effect there; it is an annotation of a workload itself (Deployment, StatefulSet, DaemonSet) or an annotation of a namespace"},
		{Code: "unknown-key", Text: "annotation isthmus.dev/secretname is not known and has no effect; did you mean isthmus.dev/secret-name?"},
		{Code: "misplaced-key", Text: "annotation isthmus.dev/tls-context has no effect there; it is an annotation of a namespace"},
		{Code: "misplaced-key", Text: "label of namespace shop: isthmus.dev/inject has no effect there; it is an annotation of a pod or a label of a pod"},
		{Code: "unknown-key", Text: "annotation of namespace shop: isthmus.dev/restart-if-stale is not known and has no effect; did you mean isthmus.dev/restart-when-stale?"},
		{Code: "misplaced-key", Text: "annotation of namespace shop: isthmus.dev/restarted-for has no effect there; it is an annotation of a workload itself (Deployment, StatefulSet, DaemonSet)"},
		{Code: "unknown-key", Text: "annotation of namespace shop: isthmus.dev/sources is not known and has no effect; did you mean isthmus.dev/source?"},
	}, got)
}

// TestPrecedence: pod before namespace before defaults before built in.
func TestPrecedence(t *testing.T) {
	ns := policy.Namespace{Name: "shop", Annotations: map[string]string{policy.CertDirKey: "/namespace/", policy.DeliveryKey: "secret"}}
	defaults := policy.Defaults{CertDir: "/chart", Delivery: policy.Files, CertTTL: "2h"}
	names := []string{"istio-certs"}
	options, problem := policy.Resolve(nil, map[string]string{policy.CertDirKey: "/pod/./certs/"}, ns, defaults, names)
	assert.Nil(t, problem)
	assert.Equal(t, "/pod/certs", options.CertDir)
	assert.Equal(t, policy.BySecret, options.Delivery)
	assert.Equal(t, "2h0m0s", options.CertTTL.String())

	options, problem = policy.Resolve(nil, nil, ns, defaults, names)
	assert.Nil(t, problem)
	assert.Equal(t, "/namespace", options.CertDir)

	options, problem = policy.Resolve(nil, nil, policy.Namespace{}, defaults, names)
	assert.Nil(t, problem)
	assert.Equal(t, "/chart", options.CertDir)

	options, problem = policy.Resolve(nil, nil, policy.Namespace{}, policy.Defaults{}, names)
	assert.Nil(t, problem)
	assert.Equal(t, policy.Options{Mode: policy.Sidecar, Delivery: policy.Files, CertDir: "/etc/istio-certs", SecretName: "istio-certs", Source: policy.IstioCA}, options)
}
