// Package pods stands for clients that create pods: it creates pods for as long as a trial
// lasts, and counts which were injected, refused or admitted without injection.
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

// patience is how long one pod may take: longer than the API server waits for a
// webhook.
const patience = 20 * time.Second

// keptReasons is how many different refusals are kept with their text.
const keptReasons = 5

// Creator asks for pods that shall be injected, one after the other. Each passes the
// webhook and the API server, and is not stored.
type Creator struct {
	client    kubernetes.Interface
	namespace string
	template  *corev1.Pod
	cancel    context.CancelFunc
	done      sync.WaitGroup

	mu    sync.Mutex
	count Count
}

// Count is how pods came out.
type Count struct {
	// Asked is their number: that of the others together.
	Asked, Injected int
	// Bare came out without an injection.
	Bare int
	// Refused were by admission: whoever asked has to ask again.
	Refused int
	// Unanswered met an API server that is away or has no answer.
	Unanswered int
	// First and Last are when pods were refused or unanswered.
	First, Last time.Time
	// Reasons are some of the refusals' texts.
	Reasons []string
}

// Waited is how many have to be asked for again.
func (c Count) Waited() int { return c.Refused + c.Unanswered }

// String says it in a few words.
func (c Count) String() string {
	text := fmt.Sprintf("%d pods asked for, %d injected, %d bare, %d refused, %d unanswered", c.Asked, c.Injected, c.Bare, c.Refused, c.Unanswered)
	if c.Waited() > 0 {
		text += fmt.Sprintf(" within %s", c.Last.Sub(c.First).Round(time.Millisecond))
	}
	if len(c.Reasons) > 0 {
		text += ": " + strings.Join(c.Reasons, "; ")
	}
	return text
}

// Start begins to ask for a pod like the template every so often, or as fast as they
// are answered.
func Start(client kubernetes.Interface, namespace string, template *corev1.Pod, every time.Duration) *Creator {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Creator{client: client, namespace: namespace, template: template, cancel: cancel}
	c.done.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for ctx.Err() == nil {
			c.ask(ctx)
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
	})
	return c
}

// Stop ends it, and returns what there was since the last Take.
func (c *Creator) Stop() Count {
	c.cancel()
	c.done.Wait()
	return c.Take()
}

// Take returns what there was since the last time.
func (c *Creator) Take() Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.count
	c.count = Count{}
	return taken
}

// Seen is what there was since the last Take, and is not taken.
func (c *Creator) Seen() Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.count
	seen.Reasons = slices.Clone(seen.Reasons)
	return seen
}

func (c *Creator) ask(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pod, err := c.client.CoreV1().Pods(c.namespace).Create(asking, c.template, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count.enter(pod, err, time.Now())
}

func (c *Count) enter(pod *corev1.Pod, err error, now time.Time) {
	c.Asked++
	switch {
	case err == nil && pod.Labels[policy.InjectedLabel] != "":
		c.Injected++
		return
	case err == nil:
		c.Bare++
		return
	case IsRefusal(err):
		c.Refused++
		if reason := err.Error(); len(c.Reasons) < keptReasons && !slices.Contains(c.Reasons, reason) {
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

// IsRefusal says whether admission refused an object, rather than that the API server
// is away: a webhook denied it, or could not be called.
func IsRefusal(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && (apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || strings.Contains(err.Error(), "webhook"))
}
