package policy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestDecide(t *testing.T) {
	inject := func(v string) map[string]string { return map[string]string{policy.InjectKey: v} }
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
		"neither pod nor namespace opts in":   {ns: namespace(""), want: policy.Verdict{Reason: policy.OptedOut}},
		"the namespace opts in":               {ns: namespace("enabled"), want: policy.Verdict{OptIn: policy.OptedInByNamespace}},
		"the namespace is locked":             {ns: namespace("disabled"), want: policy.Verdict{Reason: policy.OptedOut}},
		"the namespace's label is misspelt":   {ns: namespace("true"), want: policy.Verdict{Reason: policy.OptedOut}},
		"the pod's annotation opts in":        {annotations: inject("true"), ns: namespace(""), want: policy.Verdict{OptIn: policy.OptedInByPod}},
		"the pod's label opts in":             {labels: inject("true"), ns: namespace("enabled"), want: policy.Verdict{OptIn: policy.OptedInByPod}},
		"label and annotation opt in":         {labels: inject("true"), annotations: inject("true"), ns: namespace(""), want: policy.Verdict{OptIn: policy.OptedInByPod}},
		"the pod opts out":                    {annotations: inject("false"), ns: namespace("enabled"), want: policy.Verdict{Reason: policy.OptedOut}},
		"the pod opts out of a locked one":    {labels: inject("false"), ns: namespace("disabled"), want: policy.Verdict{Reason: policy.OptedOut}},
		"an excluded namespace":               {ns: namespace("enabled"), excluded: []string{"shop"}, want: policy.Verdict{Reason: policy.ExcludedNamespace}},
		"an excluded namespace, pod opts out": {labels: inject("false"), ns: namespace(""), excluded: []string{"shop"}, want: policy.Verdict{Reason: policy.OptedOut}},
		"label and annotation disagree": {labels: inject("true"), annotations: inject("false"), ns: namespace("enabled"), want: policy.Verdict{
			Reason: policy.Conflict, Denied: true,
			Message: `label isthmus.dev/inject is "true" and annotation isthmus.dev/inject is "false"; remove one of them`,
		}},
		"a label of another value": {labels: inject("True"), ns: namespace("enabled"), want: policy.Verdict{
			Reason: policy.InvalidOverride, Denied: true,
			Message: `label isthmus.dev/inject: "True" is not allowed; want "true" or "false"`,
		}},
		"an empty annotation": {annotations: inject(""), ns: namespace("enabled"), want: policy.Verdict{
			Reason: policy.InvalidOverride, Denied: true,
			Message: `annotation isthmus.dev/inject: "" is not allowed; want "true" or "false"`,
		}},
		"opting in within a locked namespace": {annotations: inject("true"), ns: namespace("disabled"), want: policy.Verdict{
			Reason: policy.ExcludedNamespace, Denied: true,
			Message: `isthmus.dev/inject is "true" but namespace shop is locked by its label isthmus.dev/injection=disabled; remove the key, or ask the namespace's owner to remove the label`,
		}},
		"opting in within an excluded namespace": {labels: inject("true"), ns: namespace("enabled"), excluded: []string{"shop"}, want: policy.Verdict{
			Reason: policy.ExcludedNamespace, Denied: true,
			Message: `isthmus.dev/inject is "true" but namespace shop is excluded from injection; remove the key, or run the pod in another namespace`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, policy.Decide(c.labels, c.annotations, c.ns, c.excluded))
		})
	}
}
