package helm

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

func complaint(t *testing.T, level api.Level, meta metav1.ObjectMeta, spec corev1.PodSpec) string {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &meta, &spec))
	return result.ForbiddenDetail()
}

func TestPodsAreRestricted(t *testing.T) {
	cases := map[string]string{
		"the defaults":            "",
		"everything":              everything,
		"a certificate of theirs": existing,
		"no metrics":              "metrics: {enabled: false}",
	}
	for name, values := range cases {
		t.Run(name, func(t *testing.T) {
			list := objects(t, "front", "mesh-tools", values)
			template := find[appsv1.Deployment](t, list, "Deployment", "isthmus-webhook").Spec.Template
			assert.Empty(t, complaint(t, api.LevelRestricted, template.ObjectMeta, template.Spec))
			test := find[corev1.Pod](t, list, "Pod", "isthmus-test")
			assert.Empty(t, complaint(t, api.LevelRestricted, test.ObjectMeta, test.Spec))
		})
	}
}

func TestHostNetworkIsAllThatPodSecurityMinds(t *testing.T) {
	list := objects(t, "front", "mesh-tools", "{hostNetwork: true, port: 9443}")
	template := find[appsv1.Deployment](t, list, "Deployment", "isthmus-webhook").Spec.Template
	assert.Contains(t, complaint(t, api.LevelRestricted, template.ObjectMeta, template.Spec), "hostNetwork=true")
	template.Spec.HostNetwork = false
	for i := range template.Spec.Containers[0].Ports {
		template.Spec.Containers[0].Ports[i].HostPort = 0
	}
	assert.Empty(t, complaint(t, api.LevelRestricted, template.ObjectMeta, template.Spec))
}

func TestContainerIsClosed(t *testing.T) {
	template := find[appsv1.Deployment](t, objects(t, "front", "mesh-tools", ""), "Deployment", "isthmus-webhook").Spec.Template
	require.Len(t, template.Spec.Containers, 1)
	security := template.Spec.Containers[0].SecurityContext
	assert.True(t, *security.ReadOnlyRootFilesystem)
	assert.Nil(t, security.RunAsUser, "OpenShift gives a uid of the namespace's range and refuses a fixed one")
	for _, volume := range template.Spec.Volumes {
		assert.Nil(t, volume.HostPath)
		assert.Nil(t, volume.EmptyDir)
	}
}

// Nothing may be read or written cluster-wide but namespaces and our own
// webhook configuration.
func TestClusterRoleGrantsNoMore(t *testing.T) {
	for name, values := range map[string]string{"the defaults": "", "everything": everything} {
		t.Run(name, func(t *testing.T) {
			role := find[rbacv1.ClusterRole](t, objects(t, "front", "mesh-tools", values), "ClusterRole", "isthmus-webhook")
			for _, rule := range role.Rules {
				switch rule.Resources[0] {
				case "namespaces":
					assert.Equal(t, []string{"get", "list", "watch"}, rule.Verbs)
				case "mutatingwebhookconfigurations":
					assert.Equal(t, []string{"isthmus-injector"}, rule.ResourceNames)
				default:
					assert.Failf(t, "granted too", "%v", rule)
				}
				assert.Len(t, rule.Resources, 1)
			}
		})
	}
}

const existing = `
certificate:
  mode: existing
  existing:
    secretName: corporate-tls
    caBundle: |
      -----BEGIN CERTIFICATE-----
      bm8gY2VydGlmaWNhdGU=
      -----END CERTIFICATE-----
`
