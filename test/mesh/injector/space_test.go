package injector

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// space is a namespace of one test, and a user who works in it.
type space struct {
	t      *testing.T
	name   string
	client kubernetes.Interface
	// warnings are those that the user saw.
	warnings *controlplane.Warnings
}

// keys are labels, or annotations.
type keys map[string]string

// with adds keys to a copy.
func (k keys) with(others ...keys) keys {
	all := keys{}
	for _, other := range append([]keys{k}, others...) {
		for key, value := range other {
			all[key] = value
		}
	}
	return all
}

var enabled = keys{"isthmus.dev/injection": "enabled"}

func newSpace(t *testing.T, labels, annotations keys) *space {
	t.Helper()
	name, err := createNamespace(t.Context(), "", labels, annotations)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, chain.Kube.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}))
	})
	s := &space{t: t, name: name, warnings: &controlplane.Warnings{}}
	config := rest.CopyConfig(chain.Admin)
	config.WarningHandlerWithContext = s.warnings
	s.client, err = kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return s
}

// createNamespace makes a namespace with the service account that its pods need:
// nothing else here makes one.
func createNamespace(ctx context.Context, name string, labels, annotations keys) (string, error) {
	meta := metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations}
	if name == "" {
		meta.GenerateName = "chain-"
	}
	namespace, err := chain.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: meta}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, err = chain.Kube.CoreV1().ServiceAccounts(namespace.Name).Create(ctx, account, metav1.CreateOptions{})
	return namespace.Name, err
}

// create creates the pod and returns it as it is stored.
func (s *space) create(pod *corev1.Pod) (*corev1.Pod, error) {
	s.t.Helper()
	created, err := s.client.CoreV1().Pods(s.name).Create(s.t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return s.client.CoreV1().Pods(s.name).Get(s.t.Context(), created.Name, metav1.GetOptions{})
}

// dryRun has the API server do everything but keep the pod.
func (s *space) dryRun(pod *corev1.Pod) (*corev1.Pod, error) {
	s.t.Helper()
	return s.client.CoreV1().Pods(s.name).Create(s.t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// await calls check until it returns nil; its last error is the one returned.
func await(ctx context.Context, check func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// ready returns when the API server calls all three webhooks: configurations
// reach it a moment after they are written.
func ready(ctx context.Context) error {
	_, err := createNamespace(ctx, excluded, keys{"istio-injection": "disabled"}, nil)
	if err != nil && !apierrors.IsAlreadyExists(err) { // of a cluster that was given
		return err
	}
	if err := awaitProbe(ctx, enabled, edge, proxies(1)); err != nil {
		return fmt.Errorf("await Isthmus' injection: %w", err)
	}
	return awaitInjectors(ctx)
}

// awaitInjectors returns when the API server calls both injectors of Istio, with
// every tag. It hears of configurations in the order in which they are written,
// so it has forgotten by then what was removed before.
func awaitInjectors(ctx context.Context) error {
	for name, labels := range map[string]keys{
		"of the default revision": istioEnabled, "of the tag " + prod: {"istio.io/rev": prod},
		"of the revision " + canary: {"istio.io/rev": canary}, "of the tag " + next: {"istio.io/rev": next},
	} {
		if err := awaitProbe(ctx, labels, other, proxies(1)); err != nil {
			return fmt.Errorf("await the injector %s: %w", name, err)
		}
	}
	return nil
}

// awaitProbe returns when a pod in a namespace with these labels comes out as is
// wanted.
func awaitProbe(ctx context.Context, labels keys, pod func() *corev1.Pod, want func(*corev1.Pod) error) (err error) {
	name, err := createNamespace(ctx, "", labels, nil)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, chain.Kube.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{}))
	}()
	return await(ctx, func(ctx context.Context) error {
		got, err := chain.Kube.CoreV1().Pods(name).Create(ctx, pod(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return err
		}
		return want(got)
	})
}

// proxies wants that many containers istio-proxy.
func proxies(want int) func(*corev1.Pod) error {
	return func(pod *corev1.Pod) error {
		got := 0
		for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			if c.Name == "istio-proxy" {
				got++
			}
		}
		if got != want {
			return fmt.Errorf("the pod came out with %d containers istio-proxy, want %d", got, want)
		}
		return nil
	}
}
