package manifest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestJSON(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"YAML":                 {"# x\nb: yes\na: [1, 0777]\n", "{\n    \"a\": [\n        1,\n        511\n    ],\n    \"b\": true\n}\n"},
		"nothing":              {"# x\n---\n---\n", ""},
		"JSON keeps its order": {"{\"b\":1.50,\"a\":2}", "{\n    \"b\": 1.50,\n    \"a\": 2\n}\n"},
		"several":              {"a: 1\n---\nb: 2\n", "{\n    \"a\": 1\n}\n{\n    \"b\": 2\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := transform(t, fakeEditor, test.in).JSON()
			require.NoError(t, err)
			assert.Equal(t, test.want, string(got))
		})
	}
	t.Run("YAML without a JSON equivalent", func(t *testing.T) {
		_, err := transform(t, fakeEditor, "a: 1\n---\n{{ x }}: 1\n").JSON()
		require.Error(t, err)
		assert.Contains(t, err.Error(), "a:3: document 2: does not parse: invalid map key")
	})
}

// TestWorkloadString shows how the report names workloads.
func TestWorkloadString(t *testing.T) {
	assert.Equal(t, "deployment/emissary/edge", fmt.Sprint(Workload{Kind: "Deployment", Namespace: "emissary", Name: "edge"}))
}

// TestKinds shows which kinds are workloads and where their pods are.
func TestKinds(t *testing.T) {
	for k, want := range map[typeMeta]string{
		{"v1", "Pod"}: "", {"v1", "ReplicationController"}: "/spec/template",
		{"apps/v1", "Deployment"}: "/spec/template", {"apps/v1beta1", "Deployment"}: "/spec/template", {"apps/v1beta2", "Deployment"}: "/spec/template", {"extensions/v1beta1", "Deployment"}: "/spec/template",
		{"apps/v1", "DaemonSet"}: "/spec/template", {"extensions/v1beta1", "DaemonSet"}: "/spec/template", {"apps/v1", "ReplicaSet"}: "/spec/template", {"extensions/v1beta1", "ReplicaSet"}: "/spec/template",
		{"argoproj.io/v1alpha1", "Rollout"}: "/spec/template", {"apps.openshift.io/v1", "DeploymentConfig"}: "/spec/template", {"v1", "DeploymentConfig"}: "/spec/template",
		{"apps/v1", "StatefulSet"}: "/spec/template", {"apps/v1beta1", "StatefulSet"}: "/spec/template",
		{"batch/v1", "Job"}: "/spec/template", {"extensions/v1beta1", "Job"}: "/spec/template",
		{"batch/v1", "CronJob"}: "/spec/jobTemplate/spec/template", {"batch/v1beta1", "CronJob"}: "/spec/jobTemplate/spec/template", {"batch/v2alpha1", "CronJob"}: "/spec/jobTemplate/spec/template", {"batch/v2alpha1", "ScheduledJob"}: "/spec/jobTemplate/spec/template",
	} {
		keys, ok := k.podTemplatePath()
		assert.True(t, ok, k)
		assert.Equal(t, want, jsonPointer(keys), k)
	}
	for _, k := range []typeMeta{{"v1", "Deployment"}, {"apps/v1", "Pod"}, {"extensions/v1beta1", "StatefulSet"}, {"batch.volcano.sh/v1alpha1", "Job"}, {"example.com/v1", "DeploymentConfig"}, {"example.com/v1", "Rollout"}, {"v1", "PodTemplate"}, {"", ""}, {"apps", "Deployment"}} {
		_, ok := k.podTemplatePath()
		assert.False(t, ok, k)
	}
	for k, want := range map[typeMeta]bool{
		{"v1", "List"}: true, {"v1", "PodList"}: true, {"apps/v1", "DeploymentList"}: true, {"extensions/v1beta1", "DeploymentList"}: true,
		{"v1", "ConfigMapList"}: false, {"example.com/v1", "List"}: false, {"example.com/v1", "DeploymentList"}: false, {"apps/v1", "List"}: false,
	} {
		assert.Equal(t, want, k.isList(), k)
	}
}
