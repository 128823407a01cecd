package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The pod of helm test is injected with the settings that the chart renders, and its
// command succeeds only if it is injected.
func TestPodOfHelmTestProvesTheInjection(t *testing.T) {
	const values = "defaults: {delivery: secret, envoy: true}"
	pod := findObject[corev1.Pod](t, renderObjects(t, "front", "mesh-tools", values), "Pod", "isthmus-test")
	_, settings := settingsOf(t, values)
	engine, err := inject.New(inject.Options{Settings: settings})
	require.NoError(t, err)
	result := engine.Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{Name: pod.Namespace}})
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	assert.Equal(t, "generic", result.Profile)

	// The kubelet writes the volume's file, and sets the command's variable to the label
	// that the injection sets.
	program, folder := build(t), t.TempDir()
	item := pod.Spec.Volumes[0].DownwardAPI.Items[0]
	require.Equal(t, "metadata.annotations['isthmus-test']", item.FieldRef.FieldPath)
	require.NoError(t, os.WriteFile(filepath.Join(folder, item.Path), []byte(pod.Annotations["isthmus-test"]), 0o600))
	run := func(label string) error {
		arguments := slices.Clone(pod.Spec.Containers[0].Args)
		for i, argument := range arguments {
			argument = strings.ReplaceAll(argument, "$(INJECTED)", label)
			arguments[i] = strings.ReplaceAll(argument, pod.Spec.Containers[0].VolumeMounts[0].MountPath, folder)
		}
		return exec.CommandContext(t.Context(), program, arguments...).Run()
	}
	require.Equal(t, "metadata.labels['"+policy.InjectedLabel+"']", pod.Spec.Containers[0].Env[0].ValueFrom.FieldRef.FieldPath)
	assert.NoError(t, run(string(result.Mode)), "injected")
	assert.Error(t, run(""), "not injected")
}

// build builds isthmus and returns its path.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "isthmus")
	command := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../../cmd/isthmus")
	command.Stderr = os.Stderr
	require.NoError(t, command.Run())
	return program
}
