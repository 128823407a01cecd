package inject_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// hidden returns the texts of the warnings about what the edge does not see.
func hidden(t *testing.T, result inject.Result) (texts []string) {
	t.Helper()
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	for _, w := range result.Warnings {
		if w.Code == inject.HiddenCode {
			texts = append(texts, w.Text)
		}
	}
	return texts
}

func fromField(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

// A setting of the edge must not hide from it, in silence, what the controller keeps.
func TestHiddenFromTheEdge(t *testing.T) {
	const kept = "Secret istio-certs, Secret istio-certs-roots and TLSContext istio-upstream"
	label, field := "AMBASSADOR_LABEL_SELECTOR", "AMBASSADOR_FIELD_SELECTOR"
	single, own := "AMBASSADOR_SINGLE_NAMESPACE", "AMBASSADOR_NAMESPACE"
	variables := func(pairs ...string) (env []corev1.EnvVar) {
		for i := 0; i < len(pairs); i += 2 {
			env = append(env, corev1.EnvVar{Name: pairs[i], Value: pairs[i+1]})
		}
		return env
	}
	for name, c := range map[string]struct {
		env         []corev1.EnvVar
		envFrom     []corev1.EnvFromSource
		annotations map[string]string
		labels      map[string]string
		want        string
	}{
		"if no selector is set, expect none":                          {},
		"if a selector is empty, expect none":                         {env: variables(label, "", field, "")},
		"if a label is wanted that nothing has, expect a warning":     {env: variables(label, "edge=blue"), want: label + ` of container ambassador is "edge=blue", so the edge does not see ` + kept + ` in namespace edge; add labels that it selects to the chart's value secretLabels`},
		"if one label of a set is wanted, expect a warning":           {env: variables(label, "edge in (blue,green)"), want: `is "edge in (blue,green)", so`},
		"if another label is excluded, expect none":                   {env: variables(label, "edge!=red")},
		"if the label must be absent, expect none":                    {env: variables(label, "!edge")},
		"if the chart sets the label, expect none":                    {env: variables(label, "edge=blue"), labels: map[string]string{"edge": "blue"}},
		"if the chart sets one of a set, expect none":                 {env: variables(label, "edge in (blue,green)"), labels: map[string]string{"edge": "blue"}},
		"if the chart sets another value, expect a warning":           {env: variables(label, "edge=blue"), labels: map[string]string{"edge": "red"}, want: `is "edge=blue"`},
		"if the chart sets the excluded value, expect a warning":      {env: variables(label, "edge!=red"), labels: map[string]string{"edge": "red"}, want: `is "edge!=red"`},
		"if our own label is selected, expect none":                   {env: variables(label, "app.kubernetes.io/managed-by=isthmus")},
		"if the selector cannot be read, expect that":                 {env: variables(label, "edge in blue"), want: `is "edge in blue", which cannot be read as a selector`},
		"if the selector is long, expect it to be cut":                {env: variables(label, strings.Repeat("x", 5000)), want: `it has 5000 bytes`},
		"if the value comes from a ConfigMap, expect that":            {env: []corev1.EnvVar{{Name: label, ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Key: "selector"}}}}, want: label + " of container ambassador comes from key selector of ConfigMap settings, so it is unknown"},
		"if all keys of a ConfigMap are variables, expect none":       {envFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}},
		"if the last entry of two selects nothing, expect a warning":  {env: variables(label, "edge!=red", label, "edge=blue"), want: `is "edge=blue"`},
		"if the Secret has another name, expect that name":            {env: variables(label, "edge=blue"), annotations: map[string]string{policy.SecretNameKey: "other-certs"}, want: "Secret other-certs, Secret other-certs-roots and TLSContext"},
		"if another namespace is selected, expect a warning":          {env: variables(field, "metadata.namespace=shop"), want: field + ` of container ambassador is "metadata.namespace=shop", so the edge does not see ` + kept + ` in namespace edge; change it so that it selects them`},
		"if the own namespace is selected, expect none":               {env: variables(field, "metadata.namespace=edge")},
		"if another namespace is excluded, expect none":               {env: variables(field, "metadata.namespace!=kube-system")},
		"if one name is selected, expect a warning":                   {env: variables(field, "metadata.name=istio-certs"), want: `is "metadata.name=istio-certs"`},
		"if the selector of fields cannot be read, expect that":       {env: variables(field, "metadata.namespace"), want: "cannot be read as a selector"},
		"if the edge sees one other namespace, expect a warning":      {env: variables(single, "yes", own, "shop"), want: own + ` of container ambassador is "shop", so the edge does not see ` + kept + ` in namespace edge; AMBASSADOR_SINGLE_NAMESPACE limits the edge`},
		"if the edge sees its own namespace only, expect none":        {env: append(variables(single, "yes"), corev1.EnvVar{Name: own, ValueFrom: fromField("metadata.namespace")})},
		"if its own namespace is named and it sees all, expect none":  {env: variables(own, "shop")},
		"if mode ambient keeps nothing, expect none":                  {env: variables(label, "edge=blue"), annotations: map[string]string{policy.ModeKey: "ambient"}},
		"if the edge reads the Secret, expect a warning all the same": {env: variables(label, "edge=blue"), annotations: map[string]string{policy.DeliveryKey: "secret"}, want: `is "edge=blue"`},
	} {
		t.Run(name, func(t *testing.T) {
			engine := newEngine(t, inject.Options{Settings: inject.Settings{SecretNames: []string{"istio-certs", "other-certs"}, SecretLabels: c.labels}})
			pod := annotated()
			pod.Annotations = c.annotations
			pod.Spec.Containers[0].Name = "ambassador"
			pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, c.env...)
			pod.Spec.Containers[0].EnvFrom = c.envFrom
			texts := hidden(t, engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")}))
			if c.want == "" {
				assert.Empty(t, texts)
				return
			}
			require.Len(t, texts, 1)
			assert.Contains(t, texts[0], c.want)
			assert.Less(t, len(texts[0]), 500)
		})
	}
}

// A variable of that name in a container that is not the edge does not count, and a
// profile without the fact has no such variable.
func TestHiddenFromTheEdgeCountsTheEdgeAlone(t *testing.T) {
	selector := []corev1.EnvVar{{Name: "AMBASSADOR_LABEL_SELECTOR", Value: "edge=blue"}}
	pod := annotated()
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "helper", Image: "registry.example/helper:1", Env: selector})
	assert.Empty(t, hidden(t, newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})))

	pod = annotated(policy.ProfileKey, "generic")
	pod.Spec.Containers[0].Env = selector
	assert.Empty(t, hidden(t, newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})))
}

// casesFolder is a folder of small inputs beside the repository. A clone of the repository
// does not have it.
const casesFolder = "../../../shared/cases/pods/"

func TestSelectorCases(t *testing.T) {
	for file, c := range map[string]struct{ variable, value string }{
		"label-selector.yaml": {"AMBASSADOR_LABEL_SELECTOR", "team=front"},
		"field-selector.yaml": {"AMBASSADOR_FIELD_SELECTOR", "metadata.namespace=shop"},
	} {
		t.Run(file, func(t *testing.T) {
			content, err := os.ReadFile(casesFolder + file)
			if os.IsNotExist(err) {
				t.Skipf("%s is not there; TestHiddenFromTheEdge has the same cases", casesFolder)
			}
			require.NoError(t, err)
			documents := strings.Split(string(content), "\n---\n")
			pod := &corev1.Pod{}
			require.NoError(t, yaml.Unmarshal([]byte(documents[len(documents)-1]), pod))
			result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			texts := hidden(t, result)
			require.Len(t, texts, 1)
			assert.Len(t, result.Warnings, 1)
			for _, word := range []string{c.variable, c.value, "istio-certs", "istio-upstream"} {
				assert.Contains(t, texts[0], word)
			}
			if strings.HasPrefix(file, "label") {
				labelled := policy.Namespace{Name: "edge", Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}
				engine := newEngine(t, inject.Options{Settings: inject.Settings{SecretLabels: map[string]string{"team": "front"}}})
				assert.Empty(t, hidden(t, engine.Inject(inject.Request{Pod: pod, Namespace: labelled})))
			}
		})
	}
}
