package events

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// apiServer answers the creation of Events.
type apiServer struct {
	answers  []error
	requests int
	created  []*eventsv1.Event
}

func (s *apiServer) create(_ context.Context, event *eventsv1.Event) error {
	s.requests++
	if s.requests <= len(s.answers) && s.answers[s.requests-1] != nil {
		return s.answers[s.requests-1]
	}
	s.created = append(s.created, event)
	return nil
}

var certsSecret = corev1.ObjectReference{APIVersion: "v1", Kind: "Secret", Namespace: "edge", Name: "istio-certs"}

func TestRecorderRetries(t *testing.T) {
	unavailable := errors.New("connection refused")
	forever := []error{unavailable, unavailable, unavailable, unavailable, unavailable, unavailable, unavailable, unavailable, unavailable, unavailable}
	for name, test := range map[string]struct {
		answers           []error
		requests, created int
	}{
		"if all is well, expect one request":               {nil, 1, 1},
		"if the API server is unavailable, expect another": {[]error{unavailable, unavailable}, 3, 1},
		"if it is busy, expect another":                    {[]error{apierrors.NewTooManyRequests("busy", 1)}, 2, 1},
		"if it fails, expect another":                      {[]error{apierrors.NewInternalError(unavailable)}, 2, 1},
		"if it refuses, expect no other":                   {[]error{apierrors.NewForbidden(eventsv1.Resource("events"), "e", unavailable)}, 1, 0},
		"if it stays unavailable, expect an end":           {forever, retries().Steps, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &apiServer{answers: test.answers}
				r := NewRecorder(s.create, "isthmus-controller", logr.Discard())
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- r.Start(ctx) }()
				r.Record(Normal(certsSecret, "Published", "a note"))
				time.Sleep(10 * time.Minute) // in the bubble's own time
				cancel()
				require.NoError(t, <-ended)
				assert.Equal(t, test.requests, s.requests)
				require.Len(t, s.created, test.created)
				for _, event := range s.created {
					assert.Equal(t, "edge", event.Namespace)
					assert.Equal(t, "Published: a note", event.Reason+": "+event.Note)
					assert.Equal(t, "istio-certs", event.Regarding.Name)
					assert.Equal(t, "isthmus-controller", event.ReportingController)
				}
			})
		})
	}
}

func TestRecorderDoesNotBlock(t *testing.T) {
	r := NewRecorder((&apiServer{}).create, "isthmus-controller", logr.Discard()) // not started
	for range queueLength + 10 {
		r.Record(Normal(certsSecret, "Published", "a note"))
	}
	assert.Len(t, r.queue, queueLength)
}

func TestRecorderCutsLongNotes(t *testing.T) {
	r := NewRecorder((&apiServer{}).create, "isthmus-controller", logr.Discard())
	r.Record(Warning(certsSecret, "Failed", strings.Repeat("n", maxNote+1)))
	event := <-r.queue
	assert.Len(t, event.Note, maxNote)
	assert.True(t, strings.HasSuffix(event.Note, "n..."), event.Note)
	assert.Equal(t, corev1.EventTypeWarning, event.Type)
}
