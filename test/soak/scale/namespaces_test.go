package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	account = "edge"
	secret  = "istio-certs"
	// workers is the number of concurrent requests of the benchmark itself.
	workers = 32
)

// edges are the namespaces with one edge each.
type edges struct {
	kube kubernetes.Interface
	pod  *corev1.Pod
	n    int
}

func newEdges(b *testing.B, w *environment.Environment) *edges {
	b.Helper()
	return &edges{kube: w.Kube, pod: injected(b)}
}

// injected returns an Emissary as the webhook injects it.
func injected(b *testing.B) *corev1.Pod {
	b.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "front"},
		Spec: corev1.PodSpec{
			ServiceAccountName: account, AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:3.9.1"}},
		},
	}
	engine, err := inject.New(inject.Options{})
	require.NoError(b, err)
	result := engine.Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{Name: "any", Labels: labels()}})
	require.Equal(b, policy.Injected, result.Reason, result.Message)
	patch, err := jsonpatch.DecodePatch(result.EncodedPatch)
	require.NoError(b, err)
	document, err := json.Marshal(pod)
	require.NoError(b, err)
	document, err = patch.Apply(document)
	require.NoError(b, err)
	pod = &corev1.Pod{}
	require.NoError(b, json.Unmarshal(document, pod))
	return pod
}

func labels() map[string]string {
	return map[string]string{policy.InjectionLabel: policy.InjectionEnabled}
}

func namespaceName(i int) string { return fmt.Sprintf("edge-%04d", i) }

// createUntil creates namespaces until there are n: each opted in, with a service account
// and one injected pod, which never runs.
func (e *edges) createUntil(b *testing.B, n int) {
	b.Helper()
	from := e.n
	e.n = n
	inParallel(b, "edge namespaces made", from, n, func(ctx context.Context, i int) error {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceName(i), Labels: labels()}}
		if _, err := e.kube.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
			return err
		}
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}
		if _, err := e.kube.CoreV1().ServiceAccounts(namespaceName(i)).Create(ctx, sa, metav1.CreateOptions{}); err != nil {
			return err
		}
		_, err := e.kube.CoreV1().Pods(namespaceName(i)).Create(ctx, e.pod, metav1.CreateOptions{})
		return err
	})
}

// removeSecrets deletes the Secrets, so that the next controller starts without any.
func (e *edges) removeSecrets(b *testing.B) {
	b.Helper()
	inParallel(b, "Secrets removed", 0, e.n, func(ctx context.Context, i int) error {
		err := e.kube.CoreV1().Secrets(namespaceName(i)).Delete(ctx, secret, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// removeNamespaces deletes the namespaces in a control plane that stays.
func (e *edges) removeNamespaces(b *testing.B) {
	b.Helper()
	inParallel(b, "edge namespaces removed", 0, e.n, func(ctx context.Context, i int) error {
		err := e.kube.CoreV1().Namespaces().Delete(ctx, namespaceName(i), metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// checkSecrets reads every Secret: it has to exist, with the namespace's own identity and
// this number of roots.
func (e *edges) checkSecrets(b *testing.B, roots int) {
	b.Helper()
	inParallel(b, "Secrets checked", 0, e.n, func(ctx context.Context, i int) error {
		s, err := e.kube.CoreV1().Secrets(namespaceName(i)).Get(ctx, secret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		id := "spiffe://cluster.local/ns/" + namespaceName(i) + "/sa/" + account
		if got := s.Annotations[policy.SPIFFEIDKey]; got != id {
			return fmt.Errorf("secret of %s: got identity %q, want %q", namespaceName(i), got, id)
		}
		list, err := certs.ParseCertificates(s.Data["ca.crt"])
		if err == nil && len(list) != roots {
			err = fmt.Errorf("got %d roots, want %d", len(list), roots)
		}
		if err != nil {
			return fmt.Errorf("secret of %s: ca.crt: %w", namespaceName(i), err)
		}
		return nil
	})
}

// inParallel calls do for every number, many at a time, until one call fails.
func inParallel(b *testing.B, description string, from, to int, do func(ctx context.Context, i int) error) {
	b.Helper()
	var done atomic.Int64
	stop := progress(func() string { return fmt.Sprintf("%d of %d %s", done.Load(), to-from, description) })
	defer stop()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(b.Context())) // because cleanups run after its end
	defer cancel(nil)
	numbers := make(chan int)
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for i := range numbers {
				if err := do(ctx, i); err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	for i := from; i < to && ctx.Err() == nil; i++ {
		select {
		case numbers <- i:
		case <-ctx.Done():
		}
	}
	close(numbers)
	running.Wait()
	require.NoError(b, context.Cause(ctx))
}
