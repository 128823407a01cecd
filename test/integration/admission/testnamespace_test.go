package admission

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// testNamespace is a namespace for one test, and the client of a user.
type testNamespace struct {
	t      *testing.T
	name   string
	client kubernetes.Interface
	// warnings are the warnings that the user has received.
	warnings *controlplane.Warnings
}

// change changes a namespace before it is created.
type change func(*corev1.Namespace)

// enabled opts the namespace in.
func enabled(n *corev1.Namespace) { label("isthmus.dev/injection", "enabled")(n) }

// restricted makes Pod Security enforce "restricted".
func restricted(n *corev1.Namespace) { label("pod-security.kubernetes.io/enforce", "restricted")(n) }

func label(key, value string) change {
	return func(n *corev1.Namespace) { n.Labels[key] = value }
}

func annotation(key, value string) change {
	return func(n *corev1.Namespace) { n.Annotations[key] = value }
}

func newNamespace(t *testing.T, changes ...change) *testNamespace {
	t.Helper()
	name, remove, err := env.createNamespace(t.Context(), changes...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, remove(context.WithoutCancel(t.Context()))) })
	return existingNamespace(t, name)
}

// newUnreviewedNamespace creates a namespace while no server answers, so that it may have
// invalid keys, like one that existed before Isthmus.
func newUnreviewedNamespace(t *testing.T, changes ...change) *testNamespace {
	t.Helper()
	env.service.setReplicas()
	defer env.service.setReplicas(env.server)
	return newNamespace(t, changes...)
}

// existingNamespace returns a testNamespace for a namespace that exists.
func existingNamespace(t *testing.T, name string) *testNamespace {
	t.Helper()
	s := &testNamespace{t: t, name: name, warnings: &controlplane.Warnings{}}
	config := rest.CopyConfig(env.config)
	config.WarningHandlerWithContext = s.warnings
	var err error
	s.client, err = kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return s
}

// createNamespace creates a namespace with the default service account, which pods need
// and its controller may create too late. remove deletes the namespace.
func (e *environment) createNamespace(ctx context.Context, changes ...change) (name string, remove func(context.Context) error, err error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "isthmus-test-", Labels: map[string]string{}, Annotations: map[string]string{},
	}}
	for _, change := range changes {
		change(namespace)
	}
	namespace, err = e.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	if err != nil {
		return "", nil, err
	}
	remove = func(ctx context.Context) error {
		return e.client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{})
	}
	return namespace.Name, remove, e.createServiceAccount(ctx, namespace.Name, "default")
}

func (e *environment) createServiceAccount(ctx context.Context, namespace, name string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := e.client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// create creates the pod.
func (s *testNamespace) create(pod *corev1.Pod) (*corev1.Pod, error) {
	s.t.Helper()
	return s.client.CoreV1().Pods(s.name).Create(s.t.Context(), pod, metav1.CreateOptions{})
}

// dryRun creates the pod as a server-side dry run.
func (s *testNamespace) dryRun(pod *corev1.Pod) (*corev1.Pod, error) {
	s.t.Helper()
	return s.client.CoreV1().Pods(s.name).Create(s.t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// dryRunRaw is like dryRun but sends this JSON unchanged. Go clients omit empty maps.
func (s *testNamespace) dryRunRaw(body []byte) (*corev1.Pod, error) {
	s.t.Helper()
	pod := &corev1.Pod{}
	err := s.client.CoreV1().RESTClient().Post().Namespace(s.name).Resource("pods").
		Param("dryRun", "All").SetHeader("Content-Type", "application/json").Body(body).Do(s.t.Context()).Into(pod)
	return pod, err
}

// setLabel sets a label of the namespace. An empty value removes it.
func (s *testNamespace) setLabel(key, value string) {
	s.t.Helper()
	var v any = value
	if value == "" {
		v = nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{key: v}}})
	require.NoError(s.t, err)
	_, err = env.client.CoreV1().Namespaces().Patch(context.WithoutCancel(s.t.Context()), s.name, types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(s.t, err)
}

// withName sets the name of the namespace.
func withName(name string) change {
	return func(n *corev1.Namespace) { n.Name, n.GenerateName = name, "" }
}
