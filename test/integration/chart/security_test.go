package chart

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

func podSecurityViolations(t *testing.T, level api.Level, objectMeta metav1.ObjectMeta, spec corev1.PodSpec) string {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &objectMeta, &spec))
	return result.ForbiddenDetail()
}

func TestPodsAreRestricted(t *testing.T) {
	cases := map[string]string{
		"the defaults":            "",
		"everything":              everyOption,
		"an existing certificate": existingCertificate,
		"no metrics":              "metrics: {enabled: false}",
	}
	for name, values := range cases {
		t.Run(name, func(t *testing.T) {
			list := renderObjects(t, "front", "mesh-tools", values)
			for _, name := range []string{"isthmus-webhook", "isthmus-controller"} {
				template := findObject[appsv1.Deployment](t, list, "Deployment", name).Spec.Template
				assert.Empty(t, podSecurityViolations(t, api.LevelRestricted, template.ObjectMeta, template.Spec))
			}
			test := findObject[corev1.Pod](t, list, "Pod", "isthmus-test")
			assert.Empty(t, podSecurityViolations(t, api.LevelRestricted, test.ObjectMeta, test.Spec))
		})
	}
}

func TestHostNetworkIsTheOnlyPodSecurityViolation(t *testing.T) {
	list := renderObjects(t, "front", "mesh-tools", "{hostNetwork: true, port: 9443}")
	template := findObject[appsv1.Deployment](t, list, "Deployment", "isthmus-webhook").Spec.Template
	assert.Contains(t, podSecurityViolations(t, api.LevelRestricted, template.ObjectMeta, template.Spec), "hostNetwork=true")
	template.Spec.HostNetwork = false
	for i := range template.Spec.Containers[0].Ports {
		template.Spec.Containers[0].Ports[i].HostPort = 0
	}
	assert.Empty(t, podSecurityViolations(t, api.LevelRestricted, template.ObjectMeta, template.Spec))
}

func TestContainersAreHardened(t *testing.T) {
	for _, name := range []string{"isthmus-webhook", "isthmus-controller"} {
		t.Run(name, func(t *testing.T) {
			template := findObject[appsv1.Deployment](t, renderObjects(t, "front", "mesh-tools", ""), "Deployment", name).Spec.Template
			require.Len(t, template.Spec.Containers, 1)
			security := template.Spec.Containers[0].SecurityContext
			assert.True(t, *security.ReadOnlyRootFilesystem)
			assert.Nil(t, security.RunAsUser, "OpenShift gives a uid of the namespace's range and refuses a fixed one")
			assert.Equal(t, name, template.Spec.ServiceAccountName)
			for _, volume := range template.Spec.Volumes {
				assert.Nil(t, volume.HostPath)
				assert.Nil(t, volume.EmptyDir)
			}
		})
	}
}

// If the webhook's selector matched the controller's pods, reviews would be sent to them.
func TestComponentsDoNotShareASelector(t *testing.T) {
	list := renderObjects(t, "front", "mesh-tools", "")
	webhook := findObject[appsv1.Deployment](t, list, "Deployment", "isthmus-webhook")
	controller := findObject[appsv1.Deployment](t, list, "Deployment", "isthmus-controller")
	service := findObject[corev1.Service](t, list, "Service", "isthmus-webhook")
	assert.True(t, matches(t, service.Spec.Selector, webhook.Spec.Template.Labels))
	assert.False(t, matches(t, service.Spec.Selector, controller.Spec.Template.Labels))
	assert.False(t, matches(t, webhook.Spec.Selector.MatchLabels, controller.Spec.Template.Labels))
	assert.False(t, matches(t, controller.Spec.Selector.MatchLabels, webhook.Spec.Template.Labels))
	assert.True(t, matches(t, controller.Spec.Selector.MatchLabels, controller.Spec.Template.Labels))
}

func matches(t *testing.T, selector, podLabels map[string]string) bool {
	t.Helper()
	require.NotEmpty(t, selector)
	return labels.SelectorFromSet(selector).Matches(labels.Set(podLabels))
}

// No role has a wildcard, Secrets are read by name only, and write
// permissions have resource names. The exceptions are Events, which have no name before
// they are created, and tokens, which the policy restricts.
func TestRolesNameWhatTheyWrite(t *testing.T) {
	for name, values := range map[string]string{"the defaults": "", "everything": everyOption} {
		t.Run(name, func(t *testing.T) {
			list := renderObjects(t, "front", "mesh-tools", values)
			for _, role := range []string{"isthmus-webhook", "isthmus-controller", "isthmus-publisher"} {
				for _, rule := range findObject[rbacv1.ClusterRole](t, list, "ClusterRole", role).Rules {
					assertRestricted(t, role, rule)
				}
			}
		})
	}
}

func assertRestricted(t *testing.T, role string, rule rbacv1.PolicyRule) {
	t.Helper()
	assert.NotContains(t, slices.Concat(rule.Verbs, rule.Resources, rule.APIGroups, rule.ResourceNames), "*", "%s: %v", role, rule)
	require.Len(t, rule.Resources, 1)
	reads := sets.New("get", "list", "watch").HasAll(rule.Verbs...)
	switch resource := rule.Resources[0]; {
	case reads && slices.Contains([]string{"namespaces", "pods", "tlscontexts", "clustertrustbundles"}, resource):
	case resource == "events", resource == "serviceaccounts/token":
		assert.Equal(t, "isthmus-controller", role)
	default:
		assert.NotEmpty(t, rule.ResourceNames, "%s: %v", role, rule)
	}
}

const existingCertificate = `
certificate:
  mode: existing
  existing:
    secretName: corporate-tls
    caBundle: |
      -----BEGIN CERTIFICATE-----
      bm8gY2VydGlmaWNhdGU=
      -----END CERTIFICATE-----
`
