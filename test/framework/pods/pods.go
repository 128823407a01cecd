// Package pods stands for clients that create pods: it creates pods for as long as a test
// runs, and counts which were injected, refused or admitted without injection.
//
// Tiers: test/e2e.
package pods

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// createTimeout is how long the creation of a pod may take: longer than the API server
// waits for a webhook.
const createTimeout = 20 * time.Second

// maxReasons is how many different refusals are recorded with their text.
const maxReasons = 5

// Creator creates pods that should be injected, one after the other. Each creation is a
// dry run: it passes the API server and the webhook, and is not stored.
type Creator struct {
	client    kubernetes.Interface
	namespace string
	template  *corev1.Pod
	cancel    context.CancelFunc
	done      sync.WaitGroup

	mu    sync.Mutex
	count Count
}

// Count are the outcomes of the creations.
type Count struct {
	// Requested is the number of creations; the other numbers add up to it.
	Requested, Injected int
	// NotInjected were created without a sidecar.
	NotInjected int
	// Refused were refused by admission, so that the client has to retry.
	Refused int
	// Unanswered got no answer from the API server.
	Unanswered int
	// First and Last are the times of the first and last failure: refused or unanswered.
	First, Last time.Time
	// Reasons are the texts of the first different refusals.
	Reasons []string
}

// Failed is the number of pods that were refused or unanswered.
func (c Count) Failed() int { return c.Refused + c.Unanswered }

// String summarizes the outcomes in one line.
func (c Count) String() string {
	text := fmt.Sprintf("%d pods asked for, %d injected, %d bare, %d refused, %d unanswered", c.Requested, c.Injected, c.NotInjected, c.Refused, c.Unanswered)
	if c.Failed() > 0 {
		text += fmt.Sprintf(" within %s", c.Last.Sub(c.First).Round(time.Millisecond))
	}
	if len(c.Reasons) > 0 {
		text += ": " + strings.Join(c.Reasons, "; ")
	}
	return text
}

// Start starts to create a pod from the template at this interval, or less often if the
// answers take longer.
func Start(client kubernetes.Interface, namespace string, template *corev1.Pod, every time.Duration) *Creator {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Creator{client: client, namespace: namespace, template: template, cancel: cancel}
	c.done.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for ctx.Err() == nil {
			c.createPod(ctx)
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
	})
	return c
}

// Stop stops the Creator, and returns the outcomes since the last Drain.
func (c *Creator) Stop() Count {
	c.cancel()
	c.done.Wait()
	return c.Drain()
}

// Drain returns the outcomes since the last Drain, and clears them.
func (c *Creator) Drain() Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := c.count
	c.count = Count{}
	return count
}

// Snapshot returns the outcomes since the last Drain, and keeps them.
func (c *Creator) Snapshot() Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	snapshot := c.count
	snapshot.Reasons = slices.Clone(snapshot.Reasons)
	return snapshot
}

func (c *Creator) createPod(ctx context.Context) {
	requestCtx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	pod, err := c.client.CoreV1().Pods(c.namespace).Create(requestCtx, c.template, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count.record(pod, err, time.Now())
}

func (c *Count) record(pod *corev1.Pod, err error, now time.Time) {
	c.Requested++
	switch {
	case err == nil && pod.Labels[policy.InjectedLabel] != "":
		c.Injected++
		return
	case err == nil:
		c.NotInjected++
		return
	case IsRefusal(err):
		c.Refused++
		if reason := err.Error(); len(c.Reasons) < maxReasons && !slices.Contains(c.Reasons, reason) {
			c.Reasons = append(c.Reasons, reason)
		}
	default:
		c.Unanswered++
	}
	if c.First.IsZero() {
		c.First = now
	}
	c.Last = now
}

// IsRefusal reports whether admission refused an object: a webhook denied it, or could not
// be called. It is false if the API server is away.
func IsRefusal(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && (apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || strings.Contains(err.Error(), "webhook"))
}
