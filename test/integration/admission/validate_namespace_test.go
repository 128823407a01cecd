package admission

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestNamespaceIsValidated checks the denial or the warnings that a user gets who creates a
// namespace.
func TestNamespaceIsValidated(t *testing.T) {
	user := newNamespace(t)
	for name, c := range map[string]struct {
		changes  []change
		denied   string
		warnings []string
	}{
		"no key of Isthmus":           {changes: []change{label("team", "edge")}},
		"opted in":                    {changes: []change{enabled}},
		"opted in with right values":  {changes: []change{enabled, annotation("isthmus.dev/mode", "secret"), annotation("isthmus.dev/cert-ttl", "12h")}},
		"locked":                      {changes: []change{label("isthmus.dev/injection", "disabled")}},
		"another value of the label":  {changes: []change{label("isthmus.dev/injection", "true")}, denied: `namespace isthmus-test-told: label isthmus.dev/injection: "true" is not allowed; want enabled or disabled`},
		"wrong value, not opted in":   {changes: []change{annotation("isthmus.dev/envoy", "on")}, denied: `namespace isthmus-test-told: annotation isthmus.dev/envoy: "on" is not allowed; want "true" or "false"`},
		"wrong value":                 {changes: []change{enabled, annotation("isthmus.dev/cert-ttl", "soon")}, denied: `namespace isthmus-test-told: annotation isthmus.dev/cert-ttl: "soon" is not allowed; want a Go duration of at least one minute, such as 12h`},
		"source that does not exist":  {changes: []change{enabled, annotation("isthmus.dev/source", "vault")}, denied: `namespace isthmus-test-told: annotation isthmus.dev/source: "vault" is not allowed; want istio-ca, agent, cert-manager or mirror`},
		"source that is not allowed":  {changes: []change{enabled, annotation("isthmus.dev/source", "mirror")}, denied: `namespace isthmus-test-told: annotation isthmus.dev/source: "mirror" is not allowed; the chart allows no Secret to be mirrored, see its value controller.mirrorSecretNames`},
		"Secret that is not allowed":  {changes: []change{enabled, annotation("isthmus.dev/secret-name", "other")}, denied: `namespace isthmus-test-told: annotation isthmus.dev/secret-name: "other" is not allowed; want one of the names that the chart allows: istio-certs`},
		"profile that does not exist": {changes: []change{enabled, annotation("isthmus.dev/profile", "nginx")}, denied: `namespace isthmus-test-told: annotation isthmus.dev/profile: "nginx" is not a profile; known are aes, ambassador, emissary, generic`},
		"misspelt key":                {changes: []change{enabled, annotation("isthmus.dev/profil", "aes")}, warnings: []string{"isthmus: namespace isthmus-test-told: annotation isthmus.dev/profil is not known and has no effect; did you mean isthmus.dev/profile?"}},
		"misspelt label":              {changes: []change{label("isthmus.dev/injecton", "enabled")}, warnings: []string{"isthmus: namespace isthmus-test-told: label isthmus.dev/injecton is not known and has no effect; did you mean isthmus.dev/injection?"}},
		"value without effect":        {changes: []change{enabled, annotation("isthmus.dev/mirror-secret", "istio.edge")}, warnings: []string{`isthmus: namespace isthmus-test-told: annotation isthmus.dev/mirror-secret: "istio.edge" has no effect because the source is istio-ca; set isthmus.dev/source: mirror, or remove the annotation`}},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}, Annotations: map[string]string{}}}
			for _, change := range append(c.changes, withName("isthmus-test-told")) {
				change(namespace)
			}

			got, err := user.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})

			assert.Equal(t, c.warnings, user.warnings.Drain())
			if c.denied != "" {
				assert.EqualError(t, err, `admission webhook "key.namespace.isthmus.dev" denied the request: invalid-override: `+c.denied)
				assert.True(t, apierrors.IsForbidden(err))
				return
			}
			require.NoError(t, err)
			assert.Equal(t, namespace.Annotations["isthmus.dev/mode"], got.Annotations["isthmus.dev/mode"])
		})
	}
}

func TestKubectlLabelsANamespace(t *testing.T) {
	s := newNamespace(t)

	_, stderr, err := s.kubectl(nil, "label", "namespace", s.name, "isthmus.dev/injection=on")
	require.Error(t, err)
	assert.Contains(t, stderr, `invalid-override: namespace `+s.name+`: label isthmus.dev/injection: "on" is not allowed; want enabled or disabled`)
	_, stderr, err = s.kubectl(nil, "annotate", "namespace", s.name, "isthmus.dev/delivry=secret")
	require.NoError(t, err, stderr)
	assert.Equal(t, "Warning: isthmus: namespace "+s.name+": annotation isthmus.dev/delivry is not known and has no effect; did you mean isthmus.dev/delivery?\n", stderr)
}

// A namespace from before Isthmus with invalid keys can be corrected step by step, and can
// be changed in other ways meanwhile.
func TestExistingInvalidNamespaceIsNotBlocked(t *testing.T) {
	s := newUnreviewedNamespace(t, label("isthmus.dev/injection", "on"), annotation("isthmus.dev/cert-ttl", "soon"))
	const wrongLabel, wrongTTL = `: label isthmus.dev/injection: "on" is not allowed; want enabled or disabled`,
		`: annotation isthmus.dev/cert-ttl: "soon" is not allowed; want a Go duration of at least one minute, such as 12h`

	for _, c := range []struct {
		patch    string
		warnings []string
	}{
		{patch: `{"metadata":{"labels":{"team":"edge"}}}`},
		{patch: `{"metadata":{"annotations":{"note":"x"},"finalizers":["isthmus.dev/test"]}}`},
		{
			patch:    `{"metadata":{"annotations":{"isthmus.dev/mode":"secret"}}}`,
			warnings: []string{"isthmus: namespace " + s.name + wrongLabel, "isthmus: namespace " + s.name + wrongTTL},
		},
		{patch: `{"metadata":{"annotations":{"isthmus.dev/cert-ttl":"12h"}}}`, warnings: []string{"isthmus: namespace " + s.name + wrongLabel}},
		{patch: `{"metadata":{"labels":{"isthmus.dev/injection":"enabled"}}}`},
	} {
		_, err := s.client.CoreV1().Namespaces().Patch(t.Context(), s.name, types.MergePatchType, []byte(c.patch), metav1.PatchOptions{})
		require.NoError(t, err, c.patch)
		assert.Equal(t, c.warnings, s.warnings.Drain(), c.patch)
	}
	// Updates of neither label nor annotation, such as of finalizers, are not sent. (The
	// number of other reviews is not checked: after a conflict the API server patches again.)
	counters := snapshotCounters(t)
	_, err := s.client.CoreV1().Namespaces().Patch(t.Context(), s.name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	counters.assertGrowth(map[string]float64{})
}

func TestExcludedNamespaceGetsAWarning(t *testing.T) {
	s := existingNamespace(t, "kube-system")

	_, err := s.client.CoreV1().Namespaces().Patch(t.Context(), s.name, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"isthmus.dev/injection":"enabled"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})

	require.NoError(t, err)
	assert.Equal(t, []string{"isthmus: namespace kube-system is excluded from injection, so its keys have no effect (isthmus.dev/injection); remove them"}, s.warnings.Drain())
}

// Both configurations have the same caBundle.
func TestBothConfigurationsCarryTheCA(t *testing.T) {
	want, err := env.caBundle(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, want)

	got, err := env.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), configurationName, metav1.GetOptions{})

	require.NoError(t, err)
	require.Len(t, got.Webhooks, 3)
	for _, webhook := range got.Webhooks {
		assert.Equal(t, string(want), string(webhook.ClientConfig.CABundle), webhook.Name)
	}
}

// While no server answers, workloads and namespaces are admitted.
func TestServerDownBlocksNoWorkload(t *testing.T) {
	s := newNamespace(t, enabled)
	env.service.setReplicas()
	t.Cleanup(func() { env.service.setReplicas(env.server) })

	for kind, workload := range workloads {
		assert.NoError(t, s.dryRunWorkload(workload(edgeTemplate(annotated("isthmus.dev/delivery", "pigeon")))), kind)
	}
	name, remove, err := env.createNamespace(t.Context(), label("isthmus.dev/injection", "wrong"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove(context.WithoutCancel(t.Context()))) })
	assert.NotEmpty(t, name)
}

// Every review of a workload is counted, and none of them as one of a pod.
func TestValidationIsCounted(t *testing.T) {
	s := newNamespace(t, enabled)
	read := func(labels ...string) float64 {
		value, err := env.server.counter(t.Context(), "isthmus_validation_total", labels...)
		require.NoError(t, err)
		return value
	}
	denied, all, pods := read(`kind="cronjob"`, `outcome="denied"`, `reason="invalid-override"`), read(), snapshotCounters(t)

	_, _, err := s.kubectl(workloads["CronJob"](edgeTemplate(named, annotated("isthmus.dev/delivery", "pigeon"))), "apply", "-f", "-")

	require.Error(t, err)
	assert.InDelta(t, denied+1, read(`kind="cronjob"`, `outcome="denied"`, `reason="invalid-override"`), 0)
	assert.InDelta(t, all+1, read(), 0)
	pods.assertGrowth(map[string]float64{"decided": 0, "workload": 1})
}
