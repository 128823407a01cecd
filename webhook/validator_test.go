package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func newValidator(t testing.TB, m *webhook.Metrics, log logr.Logger) *webhook.Validator {
	t.Helper()
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	return &webhook.Validator{Engine: engine, Namespaces: labelledNamespaces(), Memory: webhook.NewMemoryBudget(), Metrics: m, Log: log}
}

// templateWith returns an edge's pod template with changes.
func templateWith(t testing.TB, edits ...func(*corev1.PodTemplateSpec)) corev1.PodTemplateSpec {
	t.Helper()
	pod := edgePod(t, "4KB")
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "edge"}, Annotations: map[string]string{}}, Spec: pod.Spec}
	template.Spec.Containers[0].Image = "emissaryingress/emissary:4.1.0"
	for _, edit := range edits {
		edit(&template)
	}
	return template
}

func annotate(key, value string) func(*corev1.PodTemplateSpec) {
	return func(p *corev1.PodTemplateSpec) { p.Annotations[key] = value }
}

// resourceOf maps a kind to its resource.
var resourceOf = map[string]metav1.GroupVersionResource{
	"Namespace":             {Version: "v1", Resource: "namespaces"},
	"Deployment":            {Group: "apps", Version: "v1", Resource: "deployments"},
	"DaemonSet":             {Group: "apps", Version: "v1", Resource: "daemonsets"},
	"StatefulSet":           {Group: "apps", Version: "v1", Resource: "statefulsets"},
	"ReplicaSet":            {Group: "apps", Version: "v1", Resource: "replicasets"},
	"Job":                   {Group: "batch", Version: "v1", Resource: "jobs"},
	"CronJob":               {Group: "batch", Version: "v1", Resource: "cronjobs"},
	"ReplicationController": {Version: "v1", Resource: "replicationcontrollers"},
}

// workloadOf returns an object of a kind with the template.
func workloadOf(kind string, template corev1.PodTemplateSpec) map[string]any {
	spec := map[string]any{"template": template}
	if kind == "CronJob" {
		spec = map[string]any{"schedule": "@daily", "jobTemplate": map[string]any{"spec": spec}}
	}
	return map[string]any{"metadata": map[string]any{"name": "edge"}, "spec": spec}
}

// validationOf returns the review that the API server sends; old is nil for a CREATE.
func validationOf(t testing.TB, kind string, now, old any) []byte {
	t.Helper()
	request := &admissionv1.AdmissionRequest{
		UID: "705ab4f5-6393-11e8-b7cc-42010a800002", Name: "edge", Namespace: "emissary", Operation: admissionv1.Create,
		Kind: metav1.GroupVersionKind{Version: "v1", Kind: kind}, Resource: resourceOf[kind],
	}
	raw := func(value any) runtime.RawExtension {
		data, err := json.Marshal(value)
		require.NoError(t, err)
		return runtime.RawExtension{Raw: data}
	}
	request.Object = raw(now)
	if old != nil {
		request.Operation, request.OldObject = admissionv1.Update, raw(old)
	}
	data, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	require.NoError(t, err)
	return data
}

func TestWorkloadIsReviewedLikeItsPods(t *testing.T) {
	invalid, misspelt := annotate(policy.DeliveryKey, "pigeon"), annotate("isthmus.dev/delivry", "secret")
	for kind := range resourceOf {
		if kind == "Namespace" {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			v := newValidator(t, nil, logr.Discard())

			r := responseOf(t, post(v, validationOf(t, kind, workloadOf(kind, templateWith(t, invalid)), nil)))
			require.False(t, r.Allowed)
			assert.Equal(t, `invalid-override: pod template of `+kind+` edge: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret`, r.Result.Message)
			assert.EqualValues(t, http.StatusForbidden, r.Result.Code)
			assert.Equal(t, "invalid-override", r.AuditAnnotations["reason"])

			r = responseOf(t, post(v, validationOf(t, kind, workloadOf(kind, templateWith(t, misspelt)), nil)))
			assert.True(t, r.Allowed)
			assert.Empty(t, r.Patch, "nothing is changed")
			assert.Equal(t, []string{"isthmus: annotation isthmus.dev/delivry is not known and has no effect; did you mean isthmus.dev/delivery?"}, r.Warnings)
			assert.Equal(t, map[string]string{"reason": "injected", "profile": "emissary", "mode": "sidecar"}, r.AuditAnnotations)

			r = responseOf(t, post(v, validationOf(t, kind, workloadOf(kind, templateWith(t)), nil)))
			assert.True(t, r.Allowed)
			assert.Empty(t, r.Warnings)
		})
	}
}

// The review of a template has the outcome of the review of its pods.
func TestTemplateGetsTheResponseOfItsPods(t *testing.T) {
	for name, edit := range map[string]func(*corev1.PodTemplateSpec){
		"nothing wrong": func(*corev1.PodTemplateSpec) {},
		"wrong value":   annotate(policy.ModeKey, "sidcar"),
		"asks and collides": func(p *corev1.PodTemplateSpec) {
			annotate(policy.InjectKey, "true")(p)
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "istiod-ca-cert"})
		},
		"collides": func(p *corev1.PodTemplateSpec) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "istiod-ca-cert"})
		},
		"Windows": func(p *corev1.PodTemplateSpec) {
			p.Spec.NodeSelector = map[string]string{corev1.LabelOSStable: "windows"}
		},
		"an old edge": func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "emissaryingress/emissary:3.9.1" },
		"no edge": func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].Image = "corp/app:1"
			p.Spec.Containers[0].Env = nil
		},
		"opted out": annotate(policy.InjectKey, "false"),
		"integrated by hand": func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: "AMBASSADOR_ISTIO_SECRET_DIR", Value: "/x"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			template := templateWith(t, edit)
			pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}

			want := responseOf(t, post(newHandler(t, nil, logr.Discard()), reviewOf(t, pod)))
			got := responseOf(t, post(newValidator(t, nil, logr.Discard()), validationOf(t, "Deployment", workloadOf("Deployment", template), nil)))

			assert.Equal(t, want.Allowed, got.Allowed)
			assert.Equal(t, want.Warnings, got.Warnings)
			assert.Equal(t, want.AuditAnnotations, got.AuditAnnotations)
			if !want.Allowed {
				assert.Equal(t, strings.Replace(want.Result.Message, ": ", ": pod template of Deployment edge: ", 1), got.Result.Message)
			}
		})
	}
}

func TestUpdatedWorkloadIsReviewed(t *testing.T) {
	invalid := annotate(policy.DeliveryKey, "pigeon")
	restarted := annotate("kubectl.kubernetes.io/restartedAt", "2026-11-21T18:00:00Z")
	const sentence = `invalid-override: pod template of Deployment edge: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret`
	scaled := func(template corev1.PodTemplateSpec) map[string]any {
		changed := workloadOf("Deployment", template)
		changed["spec"].(map[string]any)["replicas"] = 3
		return changed
	}
	deleted := func(template corev1.PodTemplateSpec) map[string]any {
		changed := workloadOf("Deployment", template)
		changed["metadata"].(map[string]any)["deletionTimestamp"] = "2026-11-21T18:00:00Z"
		return changed
	}
	for name, c := range map[string]struct {
		old, now any
		denied   string
		warnings []string
	}{
		"if an invalid template is unchanged, expect no warning": {old: workloadOf("Deployment", templateWith(t, invalid)), now: scaled(templateWith(t, invalid))},
		"if an invalid template is restarted, expect a warning": {
			old: workloadOf("Deployment", templateWith(t, invalid)), now: workloadOf("Deployment", templateWith(t, invalid, restarted)),
			warnings: []string{"isthmus: new pods will be refused: " + sentence},
		},
		"if a template becomes invalid, expect a denial":                    {old: workloadOf("Deployment", templateWith(t)), now: workloadOf("Deployment", templateWith(t, invalid)), denied: sentence},
		"if a template becomes invalid with a restart, expect a denial":     {old: workloadOf("Deployment", templateWith(t)), now: workloadOf("Deployment", templateWith(t, invalid, restarted)), denied: sentence},
		"if an invalid template becomes valid, expect no warning":           {old: workloadOf("Deployment", templateWith(t, invalid)), now: workloadOf("Deployment", templateWith(t))},
		"if an invalid template changes and stays invalid, expect a denial": {old: workloadOf("Deployment", templateWith(t, invalid)), now: workloadOf("Deployment", templateWith(t, invalid, annotate("note", "x"))), denied: sentence},
		"if the workload is being deleted, expect no warning":               {old: workloadOf("Deployment", templateWith(t)), now: deleted(templateWith(t, invalid))},
		"if a CronJob's template is unchanged, expect no warning":           {old: workloadOf("CronJob", templateWith(t, invalid)), now: workloadOf("CronJob", templateWith(t, invalid))},
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			metrics, err := webhook.NewMetrics(registry)
			require.NoError(t, err)

			r := responseOf(t, post(newValidator(t, metrics, logr.Discard()), validationOf(t, "Deployment", c.now, c.old)))

			assert.Equal(t, c.denied == "", r.Allowed)
			if c.denied != "" {
				assert.Equal(t, c.denied, r.Result.Message)
			}
			assert.Equal(t, c.warnings, r.Warnings)
		})
	}
}

func TestNamespaceIsReviewed(t *testing.T) {
	namespace := func(name string, labels, annotations map[string]string) any {
		return map[string]any{"metadata": map[string]any{"name": name, "labels": labels, "annotations": annotations}}
	}
	enabled := map[string]string{policy.InjectionLabel: "enabled"}
	const ttl = `namespace emissary: annotation isthmus.dev/cert-ttl: "soon" is not allowed; want a Go duration of at least one minute, such as 12h`
	const delivery = `namespace emissary: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret`
	for name, c := range map[string]struct {
		old, now any
		denied   string
		warnings []string
		audit    map[string]string
	}{
		"if the namespace is labelled, expect no warning": {now: namespace("emissary", enabled, nil)},
		"if the label is invalid, expect a denial": {
			now:    namespace("emissary", map[string]string{policy.InjectionLabel: "on"}, nil),
			denied: `namespace emissary: label isthmus.dev/injection: "on" is not allowed; want enabled or disabled`,
		},
		"if two values are invalid, expect a denial of the first and a warning of the other": {
			now:    namespace("emissary", enabled, map[string]string{policy.CertTTLKey: "soon", policy.DeliveryKey: "pigeon"}),
			denied: delivery, warnings: []string{"isthmus: " + ttl},
		},
		"if one of two invalid values is fixed, expect a warning of the other": {
			old:      namespace("emissary", enabled, map[string]string{policy.CertTTLKey: "soon", policy.DeliveryKey: "pigeon"}),
			now:      namespace("emissary", enabled, map[string]string{policy.CertTTLKey: "soon"}),
			warnings: []string{"isthmus: " + ttl}, audit: map[string]string{"reason": "invalid-override"},
		},
		"if a second value becomes invalid, expect a denial of that one": {
			old:    namespace("emissary", enabled, map[string]string{policy.DeliveryKey: "pigeon"}),
			now:    namespace("emissary", enabled, map[string]string{policy.CertTTLKey: "soon", policy.DeliveryKey: "pigeon"}),
			denied: ttl, warnings: []string{"isthmus: " + delivery},
		},
		"if only keys of others change, expect no warning": {
			old: namespace("emissary", enabled, map[string]string{policy.DeliveryKey: "pigeon"}),
			now: namespace("emissary", map[string]string{policy.InjectionLabel: "enabled", "team": "edge"}, map[string]string{policy.DeliveryKey: "pigeon"}),
		},
		"if the namespace is excluded, expect a warning": {
			now:      namespace("kube-system", enabled, nil),
			warnings: []string{"isthmus: namespace kube-system is excluded from injection, so its keys have no effect (isthmus.dev/injection); remove them"},
			audit:    map[string]string{"reason": "excluded-namespace"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := responseOf(t, post(newValidator(t, nil, logr.Discard()), validationOf(t, "Namespace", c.now, c.old)))
			assert.Equal(t, c.denied == "", r.Allowed)
			if c.denied != "" {
				assert.Equal(t, "invalid-override: "+c.denied, r.Result.Message)
				c.audit = map[string]string{"reason": "invalid-override"}
			}
			assert.Equal(t, c.warnings, r.Warnings)
			assert.Equal(t, c.audit, r.AuditAnnotations)
		})
	}
}

// A revision that is not installed is reported when the label is set, although the
// label is Istio's.
func TestRevisionOfANamespaceIsReviewed(t *testing.T) {
	engine, err := inject.New(inject.Options{Mesh: func(revision string) (patches.Mesh, error) {
		if revision == "canary" {
			return patches.Mesh{}, errors.New("only default is installed")
		}
		return patches.Mesh{}, nil
	}})
	require.NoError(t, err)
	v := newValidator(t, nil, logr.Discard())
	v.Engine = engine
	namespace := func(labels map[string]string) any {
		return map[string]any{"metadata": map[string]any{"name": "emissary", "labels": labels}}
	}
	before := namespace(map[string]string{policy.InjectionLabel: "enabled"})
	now := namespace(map[string]string{policy.InjectionLabel: "enabled", policy.IstioRevisionLabel: "canary"})

	r := responseOf(t, post(v, validationOf(t, "Namespace", now, before)))

	require.False(t, r.Allowed)
	assert.Equal(t, `invalid-override: namespace emissary: label istio.io/rev: "canary" cannot be used; only default is installed`, r.Result.Message)
}

// recordingNamespaces records the parameter labelled of every call.
type recordingNamespaces struct {
	fixedNamespaces
	labelled []bool
}

func (r *recordingNamespaces) Namespace(ctx context.Context, name string, labelled bool) (policy.Namespace, error) {
	r.labelled = append(r.labelled, labelled)
	return r.fixedNamespaces.Namespace(ctx, name, labelled)
}

// A template without the inject key is sent because of its namespace's label, which
// may be newer than the cache.
func TestTemplateWithoutKeyExpectsALabelledNamespace(t *testing.T) {
	v, recorder := newValidator(t, nil, logr.Discard()), &recordingNamespaces{fixedNamespaces: labelledNamespaces()}
	v.Namespaces = recorder

	post(v, validationOf(t, "Deployment", workloadOf("Deployment", templateWith(t)), nil))
	post(v, validationOf(t, "Deployment", workloadOf("Deployment", templateWith(t, annotate(policy.InjectKey, "true"))), nil))
	post(v, validationOf(t, "Deployment", workloadOf("Deployment", templateWith(t, func(p *corev1.PodTemplateSpec) { p.Labels[policy.InjectKey] = "true" })), nil))

	assert.Equal(t, []bool{true, false, false}, recorder.labelled)
}

// Metric and log record every validation once, and none as an admission of a pod.
func TestValidationsAreRecorded(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics, err := webhook.NewMetrics(registry)
	require.NoError(t, err)
	var lines []string
	log := funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{Verbosity: 1})
	v := newValidator(t, metrics, log)

	good, warned := workloadOf("Deployment", templateWith(t)), workloadOf("CronJob", templateWith(t, annotate("isthmus.dev/x", "y")))
	post(v, validationOf(t, "Deployment", good, nil))
	post(v, validationOf(t, "Deployment", good, good)) // unchanged, so not recorded
	post(v, validationOf(t, "CronJob", warned, nil))
	post(v, validationOf(t, "Job", workloadOf("Job", templateWith(t, annotate(policy.ModeKey, "sidcar"))), nil))
	post(v, validationOf(t, "Namespace", map[string]any{"metadata": map[string]any{"name": "emissary"}}, nil))
	v.Namespaces = fixedNamespaces{err: errors.New("connection refused")}
	w := post(v, validationOf(t, "StatefulSet", workloadOf("StatefulSet", templateWith(t)), nil))
	assert.Equal(t, http.StatusInternalServerError, w.Code, "the failurePolicy decides")
	assert.Equal(t, "internal-error: read namespace emissary: connection refused\n", w.Body.String())
	v.Engine = nil
	assert.Equal(t, http.StatusInternalServerError, post(v, validationOf(t, "Namespace", map[string]any{}, nil)).Code)
	assert.Equal(t, http.StatusInternalServerError, post(v, reviewOf(t, edgePod(t, "4KB"))).Code, "pods are not sent here")

	assert.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
		# HELP isthmus_validation_total Reviews of workload templates and namespaces, by kind (lower case), outcome (allowed, warned, denied, error) and reason (none when there is none).
		# TYPE isthmus_validation_total counter
		isthmus_validation_total{kind="deployment",outcome="allowed",reason="injected"} 1
		isthmus_validation_total{kind="cronjob",outcome="warned",reason="injected"} 1
		isthmus_validation_total{kind="job",outcome="denied",reason="invalid-override"} 1
		isthmus_validation_total{kind="namespace",outcome="allowed",reason="none"} 1
		isthmus_validation_total{kind="statefulset",outcome="error",reason="internal-error"} 1
		isthmus_validation_total{kind="namespace",outcome="error",reason="internal-error"} 1
		isthmus_validation_total{kind="none",outcome="error",reason="internal-error"} 1
	`), "isthmus_validation_total", "isthmus_admission_total"))
	require.Len(t, lines, 7)
	assert.Contains(t, lines[0], `"msg"="reviewed deployment" "namespace"="emissary" "name"="edge"`)
	assert.Contains(t, lines[1], `"outcome"="warned" "reason"="injected" "profile"="emissary" "mode"="sidecar"`)
	assert.Contains(t, lines[1], `"warnings"=["unknown-key"]`)
	assert.Contains(t, lines[2], `"outcome"="denied" "reason"="invalid-override"`)
}
