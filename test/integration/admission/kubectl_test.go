package admission

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// kubectl runs kubectl in the namespace, with an object as its standard input.
func (s *testNamespace) kubectl(object any, arguments ...string) (stdout, stderr string, err error) {
	s.t.Helper()
	data, err := json.Marshal(object)
	require.NoError(s.t, err)
	var outBuffer, errBuffer strings.Builder
	kubectl, err := controlplane.Tool(s.t.Context(), "kubectl")
	require.NoError(s.t, err)
	command := exec.CommandContext(s.t.Context(), kubectl, append([]string{"--kubeconfig", env.plane.Kubeconfig, "--namespace", s.name}, arguments...)...)
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(string(data)), &outBuffer, &errBuffer
	err = command.Run()
	return outBuffer.String(), errBuffer.String(), err
}

// withTypeMeta sets the pod's type, which Go clients omit.
func withTypeMeta(pod *corev1.Pod) *corev1.Pod {
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	return pod
}

func TestServerSideDryRun(t *testing.T) {
	s := newNamespace(t, enabled)

	stdout, stderr, err := s.kubectl(withTypeMeta(edgePod("edge", annotated("isthmus.dev/cert-dri", "/certs"))), "apply", "--dry-run=server", "-o", "json", "-f", "-")

	require.NoError(t, err, stderr)
	pod := &corev1.Pod{}
	require.NoError(t, json.Unmarshal([]byte(stdout), pod))
	assert.Equal(t, 1, sidecars(pod))
	assert.Equal(t, "Warning: isthmus: annotation isthmus.dev/cert-dri is not known and has no effect; did you mean isthmus.dev/cert-dir?\n", stderr)
	_, err = s.client.CoreV1().Pods(s.name).Get(t.Context(), "edge", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "a dry run leaves no pod")
}

func TestKubectlShowsTheDenial(t *testing.T) {
	s := newNamespace(t)

	_, stderr, err := s.kubectl(withTypeMeta(edgePod("edge", annotated("isthmus.dev/inject", "yes"))), "create", "-f", "-")

	require.Error(t, err)
	assert.Equal(t, `Error from server (Forbidden): error when creating "STDIN": admission webhook "pod.isthmus.dev" denied the request: `+
		`invalid-override: annotation isthmus.dev/inject: "yes" is not allowed; want "true" or "false"`+"\n", stderr)
}
