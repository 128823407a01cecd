package events

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"
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

func TestRecorderCutsWhatTheAPIWouldRefuse(t *testing.T) {
	long := func(n int) string { return strings.Repeat("n", n) }
	for name, test := range map[string]struct {
		object, note         string
		wantPrefix, wantNote string
	}{
		"if all is short, expect it as it is":                {"front-1", "a note", "front-1.", "a note"},
		"if the note has the maximum, expect it as it is":    {"front-1", long(1024), "front-1.", long(1024)},
		"if the note is too long, expect it cut":             {"front-1", long(1025), "front-1.", long(1021) + "..."},
		"if a character would be cut, expect it left out":    {"front-1", long(1020) + "ééé", "front-1.", long(1020) + "..."},
		"if all are of three bytes, expect a multiple":       {"front-1", strings.Repeat("…", 400), "front-1.", strings.Repeat("…", 340) + "..."},
		"if the note is no UTF-8, expect it replaced":        {"front-1", "a \xff note", "front-1.", "a ? note"},
		"if the name has the maximum, expect it cut":         {long(253), "a note", long(236) + ".", "a note"},
		"if the cut is after a dot, expect a label":          {long(235) + "." + long(17), "a note", long(235) + ".", "a note"},
		"if the cut is after dashes, expect a label":         {long(233) + "---" + long(17), "a note", long(233) + ".", "a note"},
		"if the object's name is no subdomain, expect one":   {"system:front", "a note", "event.", "a note"},
		"if the object has no name, expect one all the same": {"", "a note", "event.", "a note"},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRecorder((&apiServer{}).create, "isthmus-controller", logr.Discard())
			regarding := certsSecret
			regarding.Name = test.object
			r.Record(Warning(regarding, "Failed", test.note))
			event := <-r.queue
			assert.Equal(t, test.wantNote, event.Note)
			assert.LessOrEqual(t, len(event.Note), 1024)
			assert.True(t, utf8.ValidString(event.Note))
			assert.True(t, strings.HasPrefix(event.Name, test.wantPrefix), event.Name)
			assert.Empty(t, validation.IsDNS1123Subdomain(event.Name))
			assert.Equal(t, test.object, event.Regarding.Name, "the object keeps its name")
			assert.LessOrEqual(t, len(event.ReportingInstance), 128)
			assert.Equal(t, corev1.EventTypeWarning, event.Type)
		})
	}
}
