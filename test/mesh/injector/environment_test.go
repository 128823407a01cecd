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

// testNamespace is a namespace of one test, and a user who works in it.
type testNamespace struct {
	t      *testing.T
	name   string
	client kubernetes.Interface
	// warnings are those that the user saw.
	warnings *controlplane.Warnings
}

// keyValues are labels or annotations.
type keyValues map[string]string

// merge returns a copy with the keys of more added.
func (kv keyValues) merge(more ...keyValues) keyValues {
	all := keyValues{}
	for _, additional := range append([]keyValues{kv}, more...) {
		for key, value := range additional {
			all[key] = value
		}
	}
	return all
}

var injectionEnabled = keyValues{"isthmus.dev/injection": "enabled"}

func newNamespace(t *testing.T, labels, annotations keyValues) *testNamespace {
	t.Helper()
	name, err := createNamespace(t.Context(), "", labels, annotations)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, env.Kube.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}))
	})
	ns := &testNamespace{t: t, name: name, warnings: &controlplane.Warnings{}}
	config := rest.CopyConfig(env.Admin)
	config.WarningHandlerWithContext = ns.warnings
	ns.client, err = kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return ns
}

// createNamespace creates a namespace with the service account that its pods need: no
// controller creates one here.
func createNamespace(ctx context.Context, name string, labels, annotations keyValues) (string, error) {
	metadata := metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations}
	if name == "" {
		metadata.GenerateName = "chain-"
	}
	namespace, err := env.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metadata}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, err = env.Kube.CoreV1().ServiceAccounts(namespace.Name).Create(ctx, account, metav1.CreateOptions{})
	return namespace.Name, err
}

// create creates the pod and returns it as it is stored.
func (ns *testNamespace) create(pod *corev1.Pod) (*corev1.Pod, error) {
	ns.t.Helper()
	created, err := ns.client.CoreV1().Pods(ns.name).Create(ns.t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return ns.client.CoreV1().Pods(ns.name).Get(ns.t.Context(), created.Name, metav1.GetOptions{})
}

// dryRun creates the pod in a dry run.
func (ns *testNamespace) dryRun(pod *corev1.Pod) (*corev1.Pod, error) {
	ns.t.Helper()
	return ns.client.CoreV1().Pods(ns.name).Create(ns.t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// await calls check until it returns nil. On a timeout it also returns the last error of
// check.
func await(ctx context.Context, check func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, timeout, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// awaitWebhooks waits until the API server calls all three webhooks: configurations reach it
// a moment after they are written.
func awaitWebhooks(ctx context.Context) error {
	_, err := createNamespace(ctx, excludedNamespace, keyValues{"istio-injection": "disabled"}, nil)
	if err != nil && !apierrors.IsAlreadyExists(err) { // in a cluster that KUBECONFIG names
		return err
	}
	if err := awaitPod(ctx, injectionEnabled, edgePod, wantProxies(1)); err != nil {
		return fmt.Errorf("await Isthmus' injection: %w", err)
	}
	return awaitInjectors(ctx)
}

// awaitInjectors waits until the API server calls both injectors of Istio, with every tag.
// The API server receives configurations in the order in which they are written, so by then
// it has dropped those that were removed before.
func awaitInjectors(ctx context.Context) error {
	for name, labels := range map[string]keyValues{
		"of the default revision": istioInjectionEnabled, "of the tag " + prod: {"istio.io/rev": prod},
		"of the revision " + canary: {"istio.io/rev": canary}, "of the tag " + next: {"istio.io/rev": next},
	} {
		if err := awaitPod(ctx, labels, otherPod, wantProxies(1)); err != nil {
			return fmt.Errorf("await the injector %s: %w", name, err)
		}
	}
	return nil
}

// awaitPod waits until a pod in a namespace with these labels satisfies want, in a dry run.
func awaitPod(ctx context.Context, labels keyValues, pod func() *corev1.Pod, want func(*corev1.Pod) error) (err error) {
	name, err := createNamespace(ctx, "", labels, nil)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, env.Kube.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{}))
	}()
	return await(ctx, func(ctx context.Context) error {
		got, err := env.Kube.CoreV1().Pods(name).Create(ctx, pod(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return err
		}
		return want(got)
	})
}

// wantProxies returns a check for the number of containers istio-proxy.
func wantProxies(want int) func(*corev1.Pod) error {
	return func(pod *corev1.Pod) error {
		got := 0
		for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			if c.Name == "istio-proxy" {
				got++
			}
		}
		if got != want {
			return fmt.Errorf("the pod has %d containers istio-proxy, want %d", got, want)
		}
		return nil
	}
}
