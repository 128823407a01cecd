package inject_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func inMode(t *testing.T, pod *corev1.Pod, o inject.Options) *corev1.Pod {
	t.Helper()
	pod = decode(t, encode(t, pod)) // as the API server sends it: nothing empty
	result := newEngine(t, o).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	return decode(t, apply(t, encode(t, pod), result))
}

// TestModeSecretNeedsTheLabel guards against a pod that waits for ever: the controller writes
// no Secret in an unlabelled namespace.
func TestModeSecretNeedsTheLabel(t *testing.T) {
	for name, c := range map[string]struct {
		pod      *corev1.Pod
		settings inject.Settings
	}{
		"if the pod says secret":   {pod: annotated(policy.InjectKey, "true", policy.ModeKey, "secret")},
		"if the chart says secret": {annotated(policy.InjectKey, "true"), inject.Settings{Defaults: policy.Defaults{Mode: policy.Secret}}},
	} {
		t.Run(name, func(t *testing.T) {
			engine := newEngine(t, inject.Options{Settings: c.settings})
			result := engine.Inject(inject.Request{Pod: c.pod, Namespace: policy.Namespace{Name: "shop"}})
			assert.True(t, result.Denied)
			assert.Equal(t, policy.Conflict, result.Reason)
			assert.Equal(t, `isthmus.dev/inject is "true" with isthmus.dev/mode secret, but namespace shop has no label isthmus.dev/injection=enabled, so no Secret is kept there; label the namespace, or choose isthmus.dev/mode sidecar`, result.Message)
			assert.Empty(t, result.Patch)

			result = engine.Inject(inject.Request{Pod: c.pod, Namespace: labelled("shop")})
			assert.Equal(t, policy.Injected, result.Reason, result.Message)
			assert.Empty(t, result.Warnings)
		})
	}
}

// TestModeSecretNeedsNoMesh shows that a pod without an agent needs no mesh settings.
func TestModeSecretNeedsNoMesh(t *testing.T) {
	engine := newEngine(t, inject.Options{Mesh: func(string) (patches.Mesh, error) { return patches.Mesh{}, assert.AnError }})
	result := engine.Inject(inject.Request{Pod: annotated(policy.ModeKey, "secret", policy.CertTTLKey, "8760h"), Namespace: labelled("edge")})
	assert.Equal(t, policy.Injected, result.Reason, result.Message)
}

// TestModeSecretLeavesManualIntegration shows that a pod that is integrated by hand stays
// unchanged, even if it mounts the same Secret.
func TestModeSecretLeavesManualIntegration(t *testing.T) {
	pod := annotated(policy.ModeKey, "secret", policy.ProfileKey, "generic")
	pod.Spec.Volumes = []corev1.Volume{{Name: "istio-certs", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "istio-certs"}}}}
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.Equal(t, policy.ManualIntegration, result.Reason)
	assert.Empty(t, result.Patch)
}

// TestStaleInModeSecret shows that the hash covers what mode secret adds.
func TestStaleInModeSecret(t *testing.T) {
	withNames := func(names ...string) inject.Options {
		return inject.Options{Settings: inject.Settings{SecretNames: names, Defaults: policy.Defaults{SecretName: names[0]}}}
	}
	for name, c := range map[string]struct {
		profile string
		want    []string
	}{
		"if the Secret is mounted, expect its name to count": {"generic", []string{"stale-template"}},
		"if it is not, expect nothing to be stale":           {"emissary", nil},
	} {
		t.Run(name, func(t *testing.T) {
			pod := inMode(t, annotated(policy.ModeKey, "secret", policy.ProfileKey, c.profile), withNames("a", "b"))
			result := newEngine(t, withNames("b", "a")).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			assert.Equal(t, policy.AlreadyInjected, result.Reason, result.Message)
			assert.Equal(t, c.want, codes(result))
		})
	}
	pod := inMode(t, annotated(policy.ModeKey, "secret"), inject.Options{})
	delete(pod.Annotations, policy.ModeKey)
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.Equal(t, []string{"stale-template"}, codes(result), "today it would get a sidecar")
}

func TestUninjectModeSecretRefusesWhatWasChanged(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"the Secret": {func(p *corev1.Pod) { p.Spec.Volumes[0].Secret.SecretName = "other" }, "spec.volumes[0]: volume istio-certs was changed since it was injected"},
		"an item":    {func(p *corev1.Pod) { p.Spec.Volumes[0].Secret.Items[4].Path = "chain.pem" }, "spec.volumes[0]: volume istio-certs was changed since it was injected"},
		"the mount":  {func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = nil }, "spec.containers[0].volumeMounts: the mount of istio-certs at /etc/istio-certs is gone"},
		"the marker": {func(p *corev1.Pod) { p.Labels[policy.InjectedLabel] = "sidecar" }, `metadata.labels: isthmus.dev/injected is "sidecar" and was "secret" when it was injected`},
	} {
		t.Run(name, func(t *testing.T) {
			pod := inMode(t, annotated(policy.ModeKey, "secret", policy.ProfileKey, "generic"), inject.Options{})
			c.change(pod)
			ops, err := inject.Uninject(pod)
			assert.ErrorContains(t, err, c.want)
			assert.Empty(t, ops)
		})
	}
}

// withPublisher sets an image of the publisher.
var withPublisher = inject.Options{Settings: inject.Settings{PublisherImage: "corp/isthmus:1"}}

func TestPublisherIsDroppedWithoutTheLabel(t *testing.T) {
	for name, c := range map[string]struct {
		delivery, want string
	}{
		"if the pod publishes, expect that said":            {"files", `this pod gets certificate files only, not isthmus.dev/publish: "true"`},
		"if it reads the Secret, too, expect both be named": {"secret", `this pod gets certificate files only, not isthmus.dev/delivery: secret and isthmus.dev/publish: "true"`},
	} {
		t.Run(name, func(t *testing.T) {
			engine, pod := newEngine(t, withPublisher), annotated(policy.InjectKey, "true", policy.PublishKey, "true", policy.DeliveryKey, c.delivery)
			alone := policy.Namespace{Name: "shop"}
			result := engine.Inject(inject.Request{Pod: pod, Namespace: alone})
			require.Equal(t, policy.Injected, result.Reason, result.Message)
			assert.Equal(t, []policy.Warning{{Code: "files-only", Text: "namespace shop has no label isthmus.dev/injection=enabled, so no Secret is kept there: " + c.want}}, result.Warnings)
			checkInjected(t, engine, pod, alone, result)
			assert.Len(t, decode(t, apply(t, encode(t, pod), result)).Spec.Containers, 1)
		})
	}
}

func TestPublisherRefused(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*corev1.Pod)
		want string
	}{
		"if its name is taken": {
			func(p *corev1.Pod) {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "isthmus-publish", Image: "corp/x"})
			},
			"the pod has a container isthmus-publish (image corp/x) and Isthmus adds one of that name; rename it",
		},
		"if its volume is taken": {
			func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "isthmus-publish-token"}} },
			"the pod has a volume isthmus-publish-token and Isthmus adds one of that name; rename it",
		},
		"if the pod is to end": {
			func(p *corev1.Pod) {
				p.Annotations[policy.ProfileKey] = "generic"
				p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
			},
			`isthmus.dev/publish is "true", but the pod's restartPolicy is OnFailure: such a pod is meant to complete, but the publisher keeps running; set isthmus.dev/publish: "false"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := annotated(policy.PublishKey, "true")
			c.edit(pod)
			result := newEngine(t, withPublisher).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			assert.Equal(t, policy.Conflict, result.Reason)
			assert.Equal(t, c.want, result.Message)
			assert.Empty(t, result.Patch)

			pod.Annotations[policy.PublishKey] = "false"
			result = newEngine(t, withPublisher).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			assert.Equal(t, policy.Injected, result.Reason, "only the publisher was in the way")
		})
	}
}

// TestPublisherImage shows that the image of a release is the default.
func TestPublisherImage(t *testing.T) {
	for name, c := range map[string]struct {
		options inject.Options
		want    string
	}{
		"if it is set, expect it":                 {inject.Options{Version: "v1.2.3", Settings: withPublisher.Settings}, "corp/isthmus:1"},
		"if a release says nothing, expect its":   {inject.Options{Version: "v1.2.3"}, "ghcr.io/isthmus-mesh/isthmus:1.2.3"},
		"if a candidate says nothing, expect its": {inject.Options{Version: "1.2.3-rc.1"}, "ghcr.io/isthmus-mesh/isthmus:1.2.3-rc.1"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := inMode(t, annotated(policy.PublishKey, "true"), c.options)
			require.Len(t, pod.Spec.Containers, 2)
			assert.Equal(t, c.want, pod.Spec.Containers[1].Image)
		})
	}
}

func TestStalePublisher(t *testing.T) {
	pod := inMode(t, annotated(policy.PublishKey, "true"), withPublisher)
	newer := newEngine(t, inject.Options{Settings: inject.Settings{PublisherImage: "corp/isthmus:2"}})
	assert.Equal(t, []string{"stale-template"}, codes(newer.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})))
}

// TestInjectedPodWithoutItsPublisher shows that a pod that lacks what its status lists is a
// conflict.
func TestInjectedPodWithoutItsPublisher(t *testing.T) {
	pod := inMode(t, annotated(policy.PublishKey, "true"), withPublisher)
	pod.Spec.Containers = pod.Spec.Containers[:1]
	result := newEngine(t, withPublisher).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.Equal(t, policy.Conflict, result.Reason)
	assert.Equal(t, "annotation isthmus.dev/status says that Isthmus added container isthmus-publish, which is missing; remove the annotation to have the pod injected", result.Message)
}

// TestResizedPublisher shows that a resized publisher does not change the pod's quality of
// service class.
func TestResizedPublisher(t *testing.T) {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
	pod := annotated(policy.PublishKey, "true")
	pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
	pod = inMode(t, pod, withPublisher)
	pod.Spec.Containers[1].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("1m")
	second := newEngine(t, withPublisher).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.Equal(t, policy.AlreadyInjected, second.Reason, second.Message)
	assert.Empty(t, second.Warnings)
}

// TestPublishedLivePod shows that what the API server adds to the containers of Isthmus is no
// change and not stale, and that a manifest may list the publisher first.
func TestPublishedLivePod(t *testing.T) {
	before := annotated(policy.PublishKey, "true")
	pod := inMode(t, before, withPublisher)
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		c.TerminationMessagePath, c.ImagePullPolicy = "/dev/termination-log", corev1.PullIfNotPresent
	}
	publisher := &pod.Spec.Containers[1]
	publisher.Env = append(publisher.Env, corev1.EnvVar{Name: "HTTP_PROXY", Value: "http://proxy:3128"})
	pod.Spec.Containers[0], pod.Spec.Containers[1] = pod.Spec.Containers[1], pod.Spec.Containers[0]
	second := newEngine(t, withPublisher).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.Equal(t, policy.AlreadyInjected, second.Reason, second.Message)
	assert.Empty(t, second.Warnings)

	ops, err := inject.Uninject(pod)
	require.NoError(t, err)
	reverted := decode(t, applyOps(t, encode(t, pod), ops))
	require.Len(t, reverted.Spec.Containers, 1)
	edge := reverted.Spec.Containers[0]
	assert.Equal(t, "emissary", edge.Name)
	assert.Empty(t, edge.Env)
	assert.Empty(t, edge.VolumeMounts)
	assert.Empty(t, reverted.Spec.Volumes)
	assert.Equal(t, before.Annotations, reverted.Annotations)
}

func TestUninjectPublisherRefusesWhatWasChanged(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"its image":    {func(p *corev1.Pod) { p.Spec.Containers[1].Image = "x" }, "spec.containers[1].image: container isthmus-publish was changed since it was injected"},
		"its command":  {func(p *corev1.Pod) { p.Spec.Containers[1].Command = []string{"/bin/sh"} }, "spec.containers[1].command: container isthmus-publish was changed"},
		"no command":   {func(p *corev1.Pod) { p.Spec.Containers[1].Command = nil }, "spec.containers[1].command: container isthmus-publish was changed"},
		"its security": {func(p *corev1.Pod) { p.Spec.Containers[1].SecurityContext.RunAsUser = ptr.To(int64(0)) }, "spec.containers[1].securityContext: container isthmus-publish was changed"},
		"it is gone":   {func(p *corev1.Pod) { p.Spec.Containers = p.Spec.Containers[:1] }, "spec.containers: isthmus-publish is gone"},
		"its token": {func(p *corev1.Pod) {
			v := &p.Spec.Volumes[len(p.Spec.Volumes)-1]
			v.Projected.Sources[0].ServiceAccountToken.Audience = "vault"
		}, "volume isthmus-publish-token was changed since it was injected"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := inMode(t, annotated(policy.PublishKey, "true"), withPublisher)
			c.change(pod)
			ops, err := inject.Uninject(pod)
			assert.ErrorContains(t, err, c.want)
			assert.Empty(t, ops)
		})
	}
}

// In a namespace that the controller is not limited to, nobody keeps a Secret.
func TestEdgesOutsideOfTheControllersNamespaces(t *testing.T) {
	settings := inject.Settings{ControllerNamespaces: []string{"front"}, PublisherImage: "corp/isthmus:1"}
	const left = "namespace shop is not one of those to which the chart's value controller.namespaces limits the controller (front), so no Secret is kept there"
	shop := labelled("shop")
	for name, c := range map[string]struct {
		annotations []string
		namespace   policy.Namespace
		reason      policy.Reason
		denied      bool
		text        string
	}{
		"if it is one of them, expect all": {[]string{policy.DeliveryKey, "secret"}, labelled("front"), policy.Injected, false, ""},
		"if it reads files, expect a warning": {
			nil, shop, policy.Injected, false, left + ": this pod gets certificate files only",
		},
		"if it reads the Secret, expect files": {
			[]string{policy.DeliveryKey, "secret"}, shop, policy.Injected, false, left + ": this pod gets certificate files only, not isthmus.dev/delivery: secret",
		},
		"if it publishes, expect no publisher": {
			[]string{policy.PublishKey, "true"}, shop, policy.Injected, false, left + `: this pod gets certificate files only, not isthmus.dev/publish: "true"`,
		},
		"if it has the Secret alone, expect no injection": {
			[]string{policy.ModeKey, "secret"}, shop, policy.Conflict, false,
			"left without an identity: isthmus.dev/mode is secret, but " + left + "; add the namespace there, or choose isthmus.dev/mode sidecar",
		},
		"if it asks for the Secret alone itself, expect a denial": {
			[]string{policy.ModeKey, "secret", policy.InjectKey, "true"}, shop, policy.Conflict, true,
			`isthmus.dev/inject is "true" with isthmus.dev/mode secret, but ` + left + "; add the namespace there, or choose isthmus.dev/mode sidecar",
		},
	} {
		t.Run(name, func(t *testing.T) {
			engine, pod := newEngine(t, inject.Options{Settings: settings}), annotated(c.annotations...)
			result := engine.Inject(inject.Request{Pod: pod, Namespace: c.namespace})
			assert.Equal(t, c.reason, result.Reason, result.Message)
			assert.Equal(t, c.denied, result.Denied)
			if c.denied {
				assert.Equal(t, c.text, result.Message)
				return
			}
			var texts []string
			for _, w := range result.Warnings {
				if w.Code == "files-only" || w.Code == string(policy.Conflict) {
					texts = append(texts, w.Text)
				}
			}
			if c.text == "" {
				assert.Empty(t, texts)
				return
			}
			assert.Equal(t, []string{c.text}, texts)
		})
	}
}
