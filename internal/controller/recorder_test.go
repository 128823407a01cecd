package controller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// sink is an API server that answers the creation of Events.
type sink struct {
	client.Writer
	answers []error
	asked   int
	created []*eventsv1.Event
}

func (s *sink) Create(_ context.Context, o client.Object, _ ...client.CreateOption) error {
	s.asked++
	if s.asked <= len(s.answers) && s.answers[s.asked-1] != nil {
		return s.answers[s.asked-1]
	}
	event, ok := o.(*eventsv1.Event)
	if !ok {
		return errors.New("no Event")
	}
	s.created = append(s.created, event)
	return nil
}

func TestRecorderTriesAgain(t *testing.T) {
	away := errors.New("connection refused")
	forever := []error{away, away, away, away, away, away, away, away, away, away}
	for name, test := range map[string]struct {
		answers        []error
		asked, created int
	}{
		"if all is well, expect one request":        {nil, 1, 1},
		"if the API server is away, expect another": {[]error{away, away}, 3, 1},
		"if it is busy, expect another":             {[]error{apierrors.NewTooManyRequests("busy", 1)}, 2, 1},
		"if it fails, expect another":               {[]error{apierrors.NewInternalError(away)}, 2, 1},
		"if it refuses, expect no other":            {[]error{apierrors.NewForbidden(eventsv1.Resource("events"), "e", away)}, 1, 0},
		"if it stays away, expect an end":           {forever, persistence().Steps, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sink{answers: test.answers}
				e := newRecorder(s)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- e.Start(ctx) }()
				e.record(aboutSecret("edge", "istio-certs"), corev1.EventTypeNormal, EventPublished, "a note")
				time.Sleep(10 * time.Minute) // of the bubble's own clock
				cancel()
				require.NoError(t, <-ended)
				assert.Equal(t, test.asked, s.asked)
				require.Len(t, s.created, test.created)
				for _, event := range s.created {
					assert.Equal(t, "edge", event.Namespace)
					assert.Equal(t, "Published: a note", event.Reason+": "+event.Note)
					assert.Equal(t, "istio-certs", event.Regarding.Name)
				}
			})
		})
	}
}

func TestRecorderDoesNotHoldUpSecrets(t *testing.T) {
	s := &sink{}
	e := newRecorder(s) // which nobody reads from
	for range queuedEvents + 10 {
		e.record(aboutSecret("edge", "istio-certs"), corev1.EventTypeNormal, EventPublished, "a note")
	}
	assert.Len(t, e.queue, queuedEvents)
}
