package mesh

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// change modifies a configuration that Istio's chart renders.
type change func(*admissionv1.MutatingWebhookConfiguration)

// newConfiguration returns a configuration for a revision or tag, with the selectors of
// mutatingwebhook.yaml in Istio's chart.
func newConfiguration(name, selected string, changes ...change) *admissionv1.MutatingWebhookConfiguration {
	c := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{"app": "sidecar-injector", revisionLabel: selected},
	}}
	type requirement = metav1.LabelSelectorRequirement
	in := func(key string, values ...string) requirement {
		return requirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: values}
	}
	absent := func(key string) requirement {
		return requirement{Key: key, Operator: metav1.LabelSelectorOpDoesNotExist}
	}
	notFalse := requirement{Key: injectLabel, Operator: metav1.LabelSelectorOpNotIn, Values: []string{"false"}}
	add := func(prefix string, namespace, object []requirement) {
		c.Webhooks = append(c.Webhooks, admissionv1.MutatingWebhook{
			Name:               prefix + "sidecar-injector.istio.io",
			ReinvocationPolicy: ptr.To(admissionv1.NeverReinvocationPolicy),
			NamespaceSelector:  &metav1.LabelSelector{MatchExpressions: namespace},
			ObjectSelector:     &metav1.LabelSelector{MatchExpressions: object},
			ClientConfig: admissionv1.WebhookClientConfig{
				Service: &admissionv1.ServiceReference{Namespace: DefaultNamespace, Name: "istiod"}, CABundle: []byte("large"),
			},
			Rules: []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{admissionv1.Create}}},
		})
	}
	add("rev.namespace.", []requirement{in(revisionLabel, selected), absent(injectionLabel)}, []requirement{notFalse})
	add("rev.object.", []requirement{absent(revisionLabel), absent(injectionLabel)}, []requirement{notFalse, in(revisionLabel, selected)})
	if selected == defaultRevision {
		add("namespace.", []requirement{in(injectionLabel, "enabled")}, []requirement{notFalse})
		add("object.", []requirement{absent(injectionLabel), absent(revisionLabel)}, []requirement{in(injectLabel, "true"), absent(revisionLabel)})
	}
	for _, change := range changes {
		change(c)
	}
	return c
}

// withTag turns the configuration into that of a tag that points to revision.
func withTag(revision string) change {
	return func(c *admissionv1.MutatingWebhookConfiguration) {
		c.Labels[tagLabel], c.Labels[revisionLabel] = c.Labels[revisionLabel], revision
	}
}

func withReinvocation(policy *admissionv1.ReinvocationPolicyType) change {
	return func(c *admissionv1.MutatingWebhookConfiguration) {
		for i := range c.Webhooks {
			c.Webhooks[i].ReinvocationPolicy = policy
		}
	}
}

var ifNeeded = withReinvocation(ptr.To(admissionv1.IfNeededReinvocationPolicy))

// eachWebhook edits every webhook of a configuration.
func eachWebhook(edit func(*admissionv1.MutatingWebhook)) change {
	return func(c *admissionv1.MutatingWebhookConfiguration) {
		for i := range c.Webhooks {
			edit(&c.Webhooks[i])
		}
	}
}

// deactivated changes the default revision's configuration as istioctl does when it
// sets the tag default.
var deactivated = eachWebhook(func(w *admissionv1.MutatingWebhook) {
	never := &metav1.LabelSelector{MatchLabels: map[string]string{"istio.io/deactivated": "never-match"}}
	w.NamespaceSelector, w.ObjectSelector = never, never
})

func withServiceNamespace(namespace string) change {
	return eachWebhook(func(w *admissionv1.MutatingWebhook) { w.ClientConfig.Service.Namespace = namespace })
}

func TestInjectors(t *testing.T) {
	type list = []*admissionv1.MutatingWebhookConfiguration
	istioDefault := func(changes ...change) *admissionv1.MutatingWebhookConfiguration {
		return newConfiguration("istio-sidecar-injector", defaultRevision, changes...)
	}
	tests := map[string]struct {
		configurations list
		requested      string
		want           inject.Injector
		err            string
	}{
		"if the request is empty, expect the default injector": {
			configurations: list{istioDefault(), newConfiguration("istio-sidecar-injector-a", "a")},
			want:           inject.Injector{Configuration: "istio-sidecar-injector"},
		},
		"if the request is default, expect the default injector": {
			configurations: list{istioDefault(), newConfiguration("istio-sidecar-injector-a", "a")}, requested: "default",
			want: inject.Injector{Configuration: "istio-sidecar-injector"},
		},
		"if it is a revision, expect the revision's injector": {
			configurations: list{istioDefault(), newConfiguration("istio-sidecar-injector-a", "a")}, requested: "a",
			want: inject.Injector{Configuration: "istio-sidecar-injector-a"},
		},
		"if it is a tag, expect the tag's injector": {
			configurations: list{newConfiguration("istio-sidecar-injector-a", "a"), newConfiguration("istio-revision-tag-prod", "prod", withTag("a"))}, requested: "prod",
			want: inject.Injector{Configuration: "istio-revision-tag-prod"},
		},
		"if there is a tag default, expect its injector for an empty request": {
			configurations: list{newConfiguration("istio-sidecar-injector-a", "a"), newConfiguration("istio-revision-tag-default", "default", withTag("a"))},
			want:           inject.Injector{Configuration: "istio-revision-tag-default"},
		},
		"if istioctl deactivated the default revision's injector, expect that of the tag": {
			configurations: list{istioDefault(deactivated), newConfiguration("istio-x", "default", withTag("a"))},
			want:           inject.Injector{Configuration: "istio-x"},
		},
		"if no injector serves an empty request, expect those that are served": {
			configurations: list{newConfiguration("istio-sidecar-injector-a", "a"), newConfiguration("istio-revision-tag-prod", "prod", withTag("a"))},
			err: "no injector of Istio serves pods that name no revision, only a (istio-sidecar-injector-a), prod (istio-revision-tag-prod): " +
				"name one of these with label istio.io/rev",
		},
		"if no injector serves the revision, expect those that are served": {
			configurations: list{istioDefault()}, requested: "b",
			err: `no injector of Istio serves revision or tag "b", only default (istio-sidecar-injector): name one of these with label istio.io/rev`,
		},
		"if there is no injector, expect an error": {
			configurations: list{istioDefault(deactivated)},
			err:            "istio has no injector in this cluster: no MutatingWebhookConfiguration with labels app=sidecar-injector,istio.io/rev that selects pods",
		},
		"if its name sorts before ours, expect it to run first": {
			configurations: list{newConfiguration("acme-istio", defaultRevision)},
			want:           inject.Injector{Configuration: "acme-istio", RunsFirst: true},
		},
		"if its name sorts before ours and it is reinvoked, expect both": {
			configurations: list{newConfiguration("acme-istio", defaultRevision, ifNeeded)},
			want:           inject.Injector{Configuration: "acme-istio", RunsFirst: true, Reinvoked: true},
		},
		"if only one webhook is reinvoked, expect no reinvocation": {
			configurations: list{istioDefault(func(c *admissionv1.MutatingWebhookConfiguration) {
				c.Webhooks[1].ReinvocationPolicy = ptr.To(admissionv1.IfNeededReinvocationPolicy)
			})},
			want: inject.Injector{Configuration: "istio-sidecar-injector"},
		},
		"if no policy is set, expect Never": {
			configurations: list{istioDefault(withReinvocation(nil))},
			want:           inject.Injector{Configuration: "istio-sidecar-injector"},
		},
		"if two serve it and one runs first, expect that one": {
			configurations: list{istioDefault(), newConfiguration("acme-istio", "default", withTag("a"), ifNeeded)},
			want:           inject.Injector{Configuration: "acme-istio", RunsFirst: true, Reinvoked: true},
		},
		"if two serve it and both run first, expect no reinvocation unless both are reinvoked": {
			configurations: list{newConfiguration("b-istio", defaultRevision), newConfiguration("acme-istio", defaultRevision, ifNeeded)},
			want:           inject.Injector{Configuration: "acme-istio", RunsFirst: true},
		},
		"if two serve it after ours, expect the first": {
			configurations: list{istioDefault(ifNeeded), newConfiguration("istio-revision-tag-default", "default", withTag("a"), ifNeeded)},
			want:           inject.Injector{Configuration: "istio-revision-tag-default", Reinvoked: true},
		},
		"if the operator excluded the platform's namespaces, expect it nevertheless": {
			configurations: list{istioDefault(eachWebhook(func(w *admissionv1.MutatingWebhook) {
				w.NamespaceSelector.MatchExpressions = append(w.NamespaceSelector.MatchExpressions,
					metav1.LabelSelectorRequirement{Key: "team", Operator: metav1.LabelSelectorOpIn, Values: []string{"web"}})
			}))},
			want: inject.Injector{Configuration: "istio-sidecar-injector"},
		},
		"if it selects everything, expect it to serve the default": {
			configurations: list{istioDefault(eachWebhook(func(w *admissionv1.MutatingWebhook) { w.NamespaceSelector, w.ObjectSelector = nil, nil }))},
			want:           inject.Injector{Configuration: "istio-sidecar-injector"},
		},
		"if pods alone can name the revision, expect it": {
			configurations: list{newConfiguration("istio-sidecar-injector-a", "a", func(c *admissionv1.MutatingWebhookConfiguration) { c.Webhooks = c.Webhooks[1:2] })}, requested: "a",
			want: inject.Injector{Configuration: "istio-sidecar-injector-a"},
		},
		"if namespaces alone can name the revision, expect it": {
			configurations: list{newConfiguration("istio-sidecar-injector-a", "a", func(c *admissionv1.MutatingWebhookConfiguration) { c.Webhooks = c.Webhooks[:1] })}, requested: "a",
			want: inject.Injector{Configuration: "istio-sidecar-injector-a"},
		},
		"if it is of an Istio in another namespace, expect it: the API server calls it": {
			configurations: list{istioDefault(withServiceNamespace("other"))},
			want:           inject.Injector{Configuration: "istio-sidecar-injector"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for i, c := range tt.configurations {
				trimmed, err := trimObject(c)
				require.NoError(t, err)
				tt.configurations[i] = trimmed.(*admissionv1.MutatingWebhookConfiguration)
			}
			found := readInjectors(DefaultNamespace, DefaultWebhookConfiguration, tt.configurations)
			got, err := found.injectorFor(tt.requested)
			if tt.err != "" {
				assert.EqualError(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestUnreadableInjectorsAreNoError(t *testing.T) {
	unknown := injectors{unreadableReason: "forbidden"}
	got, err := unknown.injectorFor("a")
	require.NoError(t, err)
	assert.Zero(t, got)
}

func TestTags(t *testing.T) {
	byURL := eachWebhook(func(w *admissionv1.MutatingWebhook) {
		w.ClientConfig = admissionv1.WebhookClientConfig{URL: ptr.To("https://istiod.example")}
	})
	found := readTags(DefaultNamespace, []*admissionv1.MutatingWebhookConfiguration{
		newConfiguration("istio-revision-tag-dev", "dev", withTag("a")),
		newConfiguration("istio-revision-tag-far", "far", withTag("b"), withServiceNamespace("other")),
		newConfiguration("istio-revision-tag-prod", "prod", withTag("default")),
		newConfiguration("istio-revision-tag-remote", "remote", withTag("c"), byURL),
		newConfiguration("istio-revision-tag-twice", "twice", withTag("a")),
		newConfiguration("istio-revision-tag-twice-again", "twice", withTag("b")),
		newConfiguration("istio-sidecar-injector", "default"),
	})
	assert.Equal(t, "dev (revision a), prod (revision default), remote (revision c), twice (revision b)", describeTags(found))
	assert.Equal(t, tag{revision: "a", source: "MutatingWebhookConfiguration istio-revision-tag-dev"}, found["dev"])
	assert.EqualError(t, found["twice"].err, `istio's tag "twice" points to revision a in MutatingWebhookConfiguration istio-revision-tag-twice `+
		"and to b in MutatingWebhookConfiguration istio-revision-tag-twice-again: remove one of them")
}

// TestTrimmedConfiguration shows which fields of a configuration are cached.
func TestTrimmedConfiguration(t *testing.T) {
	full := newConfiguration("istio-revision-tag-default", "default", withTag("a"))
	full.Annotations = map[string]string{"long": "text"}
	o, err := trimObject(full)
	require.NoError(t, err)
	trimmed := o.(*admissionv1.MutatingWebhookConfiguration)
	assert.Equal(t, map[string]string{tagLabel: "default", revisionLabel: "a"}, trimmed.Labels)
	assert.Empty(t, trimmed.Annotations)
	require.Len(t, trimmed.Webhooks, len(full.Webhooks))
	for _, w := range trimmed.Webhooks {
		assert.Empty(t, w.ClientConfig.CABundle)
		assert.Empty(t, w.Rules)
	}
	assert.Len(t, full.Webhooks[0].ClientConfig.CABundle, 5, "the original object is not changed")
}
