package inject_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestRestricted shows that Pod Security "restricted" still admits a pod after the injection, in
// every mode.
func TestRestricted(t *testing.T) {
	evaluator, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	require.NoError(t, err)
	for name, annotations := range map[string][]string{
		"sidecar":             nil,
		"envoy":               {policy.EnvoyKey, "true"},
		"publish":             {policy.PublishKey, "true"},
		"publish, envoy":      {policy.PublishKey, "true", policy.EnvoyKey, "true"},
		"secret":              {policy.ModeKey, "secret"},
		"secret read as file": {policy.ModeKey, "secret", policy.ProfileKey, "generic"},
	} {
		for _, openShift := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				pod := annotated(annotations...)
				pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
					RunAsNonRoot: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
					Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
					SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
				}
				pod = decode(t, encode(t, pod)) // as the API server sends it: nothing empty
				ns := labelled("edge")
				if openShift {
					ns.Annotations = map[string]string{policy.OpenShiftUIDRangeKey: "1000680000/10000"}
				}
				result := newEngine(t, withPublisher).Inject(inject.Request{Pod: pod, Namespace: ns})
				require.Equal(t, policy.Injected, result.Reason, result.Message)
				after := decode(t, apply(t, encode(t, pod), result))
				for _, list := range [][]corev1.Container{after.Spec.InitContainers, after.Spec.Containers[1:]} {
					for i := range list {
						security := list[i].SecurityContext
						assert.Equal(t, openShift, security.RunAsUser == nil, list[i].Name)
						assert.Equal(t, openShift, security.RunAsGroup == nil, list[i].Name)
						assert.Equal(t, openShift, security.SeccompProfile == nil, list[i].Name)
						// OpenShift's security context constraints set it.
						security.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
					}
				}
				verdict := podsecurity.AggregateCheckResults(evaluator.EvaluatePod(
					api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &after.ObjectMeta, &after.Spec))
				assert.True(t, verdict.Allowed, verdict.ForbiddenDetail())
			})
		}
	}
}

// TestGuaranteedStaysGuaranteed shows that requests equal limits in every container.
func TestGuaranteedStaysGuaranteed(t *testing.T) {
	for name, annotations := range map[string][]string{"sidecar": nil, "publish": {policy.PublishKey, "true"}, "secret": {policy.ModeKey, "secret"}} {
		t.Run(name, func(t *testing.T) {
			list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
			pod := annotated(annotations...)
			pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
			after := inMode(t, pod, withPublisher)
			for _, c := range append(after.Spec.InitContainers, after.Spec.Containers...) {
				assert.NotEmpty(t, c.Resources.Limits, c.Name)
				assert.Equal(t, c.Resources.Limits, c.Resources.Requests, c.Name)
			}
		})
	}
}

// TestNoOtherToken shows that the publisher has its API token at the path where the API server
// would mount one, and that neither agent nor edge has it.
func TestNoOtherToken(t *testing.T) {
	pod := inMode(t, annotated(policy.PublishKey, "true"), withPublisher)
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		var at []string
		for _, m := range c.VolumeMounts {
			if m.Name == "isthmus-publish-token" {
				at = append(at, m.MountPath)
				assert.True(t, m.ReadOnly)
			}
		}
		if c.Name == "isthmus-publish" {
			assert.Equal(t, []string{"/var/run/secrets/kubernetes.io/serviceaccount"}, at)
			assert.Empty(t, c.Ports)
			assert.Nil(t, c.ReadinessProbe)
			assert.Nil(t, c.StartupProbe)
		} else {
			assert.Empty(t, at, c.Name)
		}
	}
}
