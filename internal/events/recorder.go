package events

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Recorder writes Events to the API server. The recorder of client-go starts a
// goroutine for each Event and remembers each for up to twelve minutes, to count
// repetitions: with thousands of Secrets that is more memory than everything
// else. Callers of this Recorder do not repeat an Event; see Once.
type Recorder struct {
	create     func(context.Context, *eventsv1.Event) error
	controller string
	// instance is this replica, as Events name it.
	instance string
	log      logr.Logger
	queue    chan *eventsv1.Event
}

const (
	// queueLength is how many Events wait at most. Record drops the rest, because a
	// slow API server must not block its callers.
	queueLength = 8192
	// writers is how many Events are written concurrently.
	writers = 4
	// action is the action that every Event names; the API requires one.
	action = "Keep"
)

// NewRecorder returns a Recorder that writes with create, reports as the named
// controller, and logs every Event. Nothing is written before Start.
func NewRecorder(create func(context.Context, *eventsv1.Event) error, controller string, log logr.Logger) *Recorder {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &Recorder{create: create, controller: controller, instance: limitText(controller+"-"+host, maxInstance), log: log, queue: make(chan *eventsv1.Event, queueLength)}
}

// Start writes Events until ctx ends. It implements manager.Runnable of
// controller-runtime.
func (r *Recorder) Start(ctx context.Context) error {
	var running sync.WaitGroup
	for range writers {
		running.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case event := <-r.queue:
					r.write(ctx, event)
				}
			}
		})
	}
	running.Wait()
	return nil
}

// retries is how long an Event is retried while the API server is unavailable:
// about two minutes.
func retries() wait.Backoff {
	return wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: 8}
}

func (r *Recorder) write(ctx context.Context, event *eventsv1.Event) {
	var last error
	_ = wait.ExponentialBackoffWithContext(ctx, retries(), func(ctx context.Context) (bool, error) {
		last = r.create(ctx, event)
		var answer apierrors.APIStatus
		refused := errors.As(last, &answer) && !apierrors.IsTooManyRequests(last) && answer.Status().Code < 500
		return last == nil || refused, nil
	})
	if last != nil {
		r.log.V(1).Info("dropped an event that could not be written", "namespace", event.Namespace, "regarding", event.Regarding.Name, "reason", event.Reason, "why", last.Error())
	}
}

// Record logs the Event and queues it. It never blocks.
func (r *Recorder) Record(e Event) {
	e.Note = limitText(e.Note, maxNote)
	r.log.Info("event", "kind", e.Regarding.Kind, "namespace", e.Regarding.Namespace, "name", e.Regarding.Name, "type", e.Type, "reason", e.Reason, "note", e.Note)
	now := time.Now()
	event := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Regarding.Namespace,
			Name:      nameOf(e.Regarding.Name, now),
		},
		EventTime: metav1.NewMicroTime(now), ReportingController: r.controller, ReportingInstance: r.instance,
		Action: action, Reason: e.Reason, Regarding: e.Regarding, Note: e.Note, Type: e.Type,
	}
	select {
	case r.queue <- event:
	default:
	}
}
