//go:build e2e

package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	// meshImage is the image of test/tools/images/meshservice. With its command look it is an
	// edge that only reports the state of its certificates.
	meshImage = "isthmus.test/mesh:dev"
	// edgeUID is the user of Emissary.
	edgeUID = 8888
	// agentUID is the user of Istio's agent.
	agentUID = 1337
	// securityLevel is the label for the level that Pod Security enforces in a namespace.
	securityLevel = "pod-security.kubernetes.io/enforce"
)

// podTimeout limits each wait for a node, with room for a busy machine.
const podTimeout = 3 * time.Minute

// testNamespace is a namespace of one test.
type testNamespace struct {
	*node.Cluster
	name string
}

// newNamespace creates a namespace that is opted in, with these annotations, until the test
// ends. Isthmus stays installed until then. Pod Security "restricted" is enforced.
func newNamespace(t *testing.T, name string, annotations map[string]string) *testNamespace {
	return newNamespaceAtLevel(t, name, "restricted", annotations)
}

// newNamespaceAtLevel is newNamespace with another level of Pod Security.
func newNamespaceAtLevel(t *testing.T, name, level string, annotations map[string]string) *testNamespace {
	t.Helper()
	isthmusInstalled.RLock()
	t.Cleanup(isthmusInstalled.RUnlock)
	s := &testNamespace{Cluster: cluster, name: "e2e-" + name}
	_, err := s.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: s.name, Annotations: annotations,
		Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled, securityLevel: level},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			s.logState(t)
		}
		if err := s.Client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), s.name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("remove namespace %s: %v", s.name, err)
		}
	})
	return s
}

// logState logs the pods and Events.
func (s *testNamespace) logState(t *testing.T) {
	t.Helper()
	for _, arguments := range [][]string{{"get", "pods", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}} {
		text, err := s.Kubectl(context.WithoutCancel(t.Context()), "", append([]string{"--namespace", s.name}, arguments...)...)
		t.Logf("%s: %v\n%s", s.name, err, text)
	}
}

// await waits until check returns nil; its last error is the failure.
func (s *testNamespace) await(t *testing.T, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, podTimeout, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	require.NoError(t, errors.Join(err, last))
}

// inspectorPod returns a pod whose edge runs mesh look with these arguments. It requests the
// generic profile, and passes Pod Security "restricted".
func inspectorPod(name string, arguments ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}, Annotations: map[string]string{policy.ProfileKey: "generic"}},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken:  ptr.To(false),
			TerminationGracePeriodSeconds: ptr.To[int64](30),
			Containers:                    []corev1.Container{inspectorContainer("edge", edgeUID, arguments...)},
		},
	}
}

// inspectorContainer returns a container that runs mesh look.
func inspectorContainer(name string, uid int64, arguments ...string) corev1.Container {
	return corev1.Container{
		Name: name, Image: meshImage, ImagePullPolicy: corev1.PullIfNotPresent, Args: append([]string{"look"}, arguments...), SecurityContext: restricted(uid),
	}
}

// restricted returns the security context that Pod Security "restricted" requires.
func restricted(uid int64) *corev1.SecurityContext {
	return &corev1.SecurityContext{
		RunAsUser: ptr.To(uid), RunAsGroup: ptr.To(uid), RunAsNonRoot: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// annotated sets annotations of a pod.
func annotated(pod *corev1.Pod, annotations map[string]string) *corev1.Pod {
	maps.Copy(pod.Annotations, annotations)
	return pod
}

// create creates a pod.
func (s *testNamespace) create(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := s.Client.CoreV1().Pods(s.name).Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	return created
}

// createReady creates a pod and waits until it is ready.
func (s *testNamespace) createReady(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	s.create(t, pod)
	return s.awaitPod(t, pod.Name, isReady)
}

// awaitPod waits until check returns nil for a pod, and returns the pod.
func (s *testNamespace) awaitPod(t *testing.T, name string, check func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	s.await(t, func(ctx context.Context) error {
		pod, err := s.Client.CoreV1().Pods(s.name).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		found = pod
		if err := check(pod); err != nil {
			return fmt.Errorf("pod %s/%s: %w: %s", s.name, name, err, describeContainers(pod))
		}
		return nil
	})
	return found
}

// hasCondition reports whether a condition of a pod is true.
func hasCondition(pod *corev1.Pod, condition corev1.PodConditionType) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == condition && c.Status == corev1.ConditionTrue
	})
}

// containerStatus returns the status of a container of any kind; empty if the kubelet has
// not reported one yet.
func containerStatus(pod *corev1.Pod, container string) corev1.ContainerStatus {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if s.Name == container {
			return s
		}
	}
	return corev1.ContainerStatus{}
}

// nativeSidecar returns the agent of an injected pod.
func nativeSidecar(t *testing.T, pod *corev1.Pod) corev1.Container {
	t.Helper()
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == patches.SidecarName })
	require.GreaterOrEqual(t, i, 0, "pod %s/%s has no native sidecar", pod.Namespace, pod.Name)
	return pod.Spec.InitContainers[i]
}

// describeContainers describes the state of a pod's containers in one line.
func describeContainers(pod *corev1.Pod) string {
	text := string(pod.Status.Phase)
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		switch {
		case s.State.Running != nil:
			text += fmt.Sprintf(", %s runs (%d restarts)", s.Name, s.RestartCount)
		case s.State.Waiting != nil:
			text += fmt.Sprintf(", %s waits: %s (%d restarts)", s.Name, s.State.Waiting.Reason, s.RestartCount)
		case s.State.Terminated != nil:
			text += fmt.Sprintf(", %s ended with %d", s.Name, s.State.Terminated.ExitCode)
		}
	}
	return text
}

// view is the output of mesh look; see View in test/tools/images/meshservice.
type view struct {
	UID, GID int64
	Files    []struct {
		Name, Mode string
		UID, GID   int64
		Bytes      int64
		Read       string
	}
	ID, Serial, Pair string
	Write            string
	Capacity         int64
	Filled, Charged  int64
	Full             string
	Reads            int    `json:"looks"`
	FailedReads      int    `json:"lacks"`
	ReadError        string `json:"lack"`
}

// firstView returns the first view of a container that runs mesh look.
func (s *testNamespace) firstView(t *testing.T, pod, container string) view {
	t.Helper()
	var v view
	s.await(t, func(ctx context.Context) error {
		text, err := s.Client.CoreV1().Pods(s.name).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(ctx)
		if err != nil {
			return err
		}
		v = view{}
		if err := json.NewDecoder(bytes.NewReader(text)).Decode(&v); err != nil {
			return fmt.Errorf("%s of pod %s has logged %q: %w", container, pod, text, err)
		}
		return nil
	})
	return v
}

// lastView returns the view that a container wrote as its termination message.
func lastView(t *testing.T, pod *corev1.Pod, container string) view {
	t.Helper()
	ended := containerStatus(pod, container).State.Terminated
	require.NotNil(t, ended, describeContainers(pod))
	var v view
	require.NoError(t, json.Unmarshal([]byte(ended.Message), &v), "%s of pod %s left %q", container, pod.Name, ended.Message)
	return v
}

// identity returns the SPIFFE ID of a service account in the namespace.
func (s *testNamespace) identity(account string) string {
	return fmt.Sprintf("spiffe://cluster.local/ns/%s/sa/%s", s.name, account)
}
