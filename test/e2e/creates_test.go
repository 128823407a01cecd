//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// creates creates edge pods of a namespace that is opted in, all the time: each
// passes the webhook and the API server, and is not stored.
type creates struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	count    int
	bare     int
	failures []failure
}

// failure is a pod that could not be created.
type failure struct {
	at  time.Time
	err error
}

// createPods begins, with one pod every so often, and ends with the test.
func createPods(t *testing.T, client kubernetes.Interface, namespace string, every time.Duration) *creates {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	c := &creates{cancel: cancel}
	t.Cleanup(c.end)
	c.done.Go(func() {
		for tick := time.NewTicker(every); ; {
			c.create(ctx, client, namespace)
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	})
	require.Eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.count > 0 }, time.Minute, every)
	return c
}

func (c *creates) create(ctx context.Context, client kubernetes.Interface, namespace string) {
	pod, err := client.CoreV1().Pods(namespace).Create(ctx, edgePod("created"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	switch {
	case err != nil:
		c.failures = append(c.failures, failure{time.Now(), err})
	case pod.Labels[policy.InjectedLabel] == "":
		c.bare++
	}
}

func (c *creates) end() {
	c.cancel()
	c.done.Wait()
}

// take returns what happened since the last time: pods asked for, those that came
// out without an injection, and those that were refused.
func (c *creates) take() (count, bare int, failures []failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	count, bare, failures = c.count, c.bare, c.failures
	c.count, c.bare, c.failures = 0, 0, nil
	return count, bare, failures
}

// asked is how many were asked for since the last time.
func (c *creates) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// none judges that all that were created since the last time came out injected.
func (c *creates) none(t *testing.T, what string) {
	t.Helper()
	count, bare, failures := c.take()
	t.Logf("%s: %d pods asked for, %s, %d not injected", what, count, window(failures), bare)
	if len(failures) > 0 {
		t.Errorf("%s: a pod was refused: %v", what, failures[0].err)
	}
	if bare > 0 {
		t.Errorf("%s: %d pods came out without an injection", what, bare)
	}
}

// window says how many failed, and how long it was from the first to the last.
func window(failures []failure) string {
	if len(failures) == 0 {
		return "none refused"
	}
	return fmt.Sprintf("%d refused within %s", len(failures), failures[len(failures)-1].at.Sub(failures[0].at).Round(time.Millisecond))
}

// edgePod is one that every profile leaves alone, and that asks for the generic one.
func edgePod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name + "-", Annotations: map[string]string{policy.ProfileKey: "generic"}},
		Spec:       edgeSpec(),
	}
}

// edgeSpec is a container that does nothing, with what every namespace allows.
func edgeSpec() corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "edge", Image: "registry.k8s.io/pause:3.10"}}}
}
