package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// recorder writes Events. client-go's starts a goroutine for each Event and
// remembers each for up to twelve minutes, to count repetitions: of thousands of
// Secrets that is more memory than everything else. Here nothing repeats, for
// tell says everything once.
type recorder struct {
	client client.Writer
	// instance is this replica, as Events name it.
	instance string
	queue    chan *eventsv1.Event
}

const (
	// queuedEvents is how many Events wait at most. What comes on top is lost, in
	// favour of the Secrets that the Events are about.
	queuedEvents = 8192
	// recorders is how many Events are written at once.
	recorders = 4
)

func newRecorder(c client.Writer) *recorder {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &recorder{client: c, instance: Name + "-" + host, queue: make(chan *eventsv1.Event, queuedEvents)}
}

// Start implements manager.Runnable.
func (e *recorder) Start(ctx context.Context) error {
	var running sync.WaitGroup
	for range recorders {
		running.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case event := <-e.queue:
					e.write(ctx, event)
				}
			}
		})
	}
	running.Wait()
	return nil
}

// persistence is for how long an Event is tried again while the API server is
// away: about two minutes.
func persistence() wait.Backoff {
	return wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: 8}
}

func (e *recorder) write(ctx context.Context, event *eventsv1.Event) {
	var last error
	_ = wait.ExponentialBackoffWithContext(ctx, persistence(), func(ctx context.Context) (bool, error) {
		last = e.client.Create(ctx, event)
		var answer apierrors.APIStatus
		refused := errors.As(last, &answer) && !apierrors.IsTooManyRequests(last) && answer.Status().Code < 500
		return last == nil || refused, nil
	})
	if last != nil {
		log.FromContext(ctx).V(1).Info("event is lost", "namespace", event.Namespace, "regarding", event.Regarding.Name, "reason", event.Reason, "why", last.Error())
	}
}

// record has an Event written, in the namespace of what it is about.
func (e *recorder) record(regarding *corev1.ObjectReference, kind, reason, note string) {
	now := time.Now()
	event := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: regarding.Namespace,
			// As client-go names them.
			Name: fmt.Sprintf("%s.%x", regarding.Name, now.UnixNano()),
		},
		EventTime: metav1.NewMicroTime(now), ReportingController: Name, ReportingInstance: e.instance,
		Action: "Keep", Reason: reason, Regarding: *regarding, Note: note, Type: kind,
	}
	select {
	case e.queue <- event:
	default:
	}
}
