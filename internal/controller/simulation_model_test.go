package controller

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// requestKind is a kind of request to the API server.
type requestKind string

// The requests of the controller that grow with the number of Secrets.
const (
	getRequest   requestKind = "get a Secret"
	applyRequest requestKind = "apply a Secret"
	tokenRequest requestKind = "create a token"
	listRequest  requestKind = "list the pods of a namespace"
	eventRequest requestKind = "create an Event"
	nudgeRequest requestKind = "nudge a Secret"
)

// latency is how long an answer takes.
type latency struct {
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
}

// model is what the simulation knows of the API server and of the certificate authority.
// `make simulate` measures it on the real ones (test/mesh/istiocasource).
type model struct {
	// Where says what was measured.
	Where string `json:"where"`
	// Requests are the latencies of requests to the API server, which answers at most
	// RequestsPerSecond.
	Requests          map[requestKind]latency `json:"requests"`
	RequestsPerSecond float64                 `json:"requestsPerSecond"`
	// Issue is the latency of the authority, which gets Calls requests at a time and
	// signs at most CertificatesPerSecond.
	Issue                 latency `json:"issue"`
	CertificatesPerSecond float64 `json:"certificatesPerSecond"`
	Calls                 int     `json:"calls"`
}

// The limits of the controller's client (cmd/isthmus/controller.go).
const (
	clientQPS   = 100
	clientBurst = 200
)

// recordedModel was measured on two busy cores that also ran the API server and istiod.
// docs/scale.md has the same numbers.
func recordedModel() model {
	return model{
		Where: "recorded: two cores, Kubernetes 1.36, Istio 1.31",
		Requests: map[requestKind]latency{
			getRequest:   {2180 * time.Microsecond, 22 * time.Millisecond},
			applyRequest: {6840 * time.Microsecond, 17 * time.Millisecond},
			tokenRequest: {2890 * time.Microsecond, 9 * time.Millisecond},
			listRequest:  {1180 * time.Microsecond, 165 * time.Millisecond},
			nudgeRequest: {11490 * time.Microsecond, 407 * time.Millisecond},
			eventRequest: {1700 * time.Microsecond, 187 * time.Millisecond},
		},
		RequestsPerSecond: 363,
		Issue:             latency{3520 * time.Microsecond, 166 * time.Millisecond}, CertificatesPerSecond: 119, Calls: 4,
	}
}

// measuredModel is the model in a file that `make simulate` has just written; the
// recorded one without a file.
func measuredModel(t *testing.T) model {
	t.Helper()
	path := os.Getenv("ISTHMUS_MEASUREMENTS")
	if path == "" {
		return recordedModel()
	}
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var m model
	require.NoError(t, json.Unmarshal(data, &m))
	for kind := range recordedModel().Requests {
		require.Positive(t, m.Requests[kind].P50, kind)
	}
	require.Positive(t, m.RequestsPerSecond)
	require.Positive(t, m.CertificatesPerSecond)
	require.Positive(t, m.Calls)
	return m
}

// draw is a latency: one in fifty is the 99th percentile, the others the median.
func (l latency) draw(random func() float64) time.Duration {
	if random() > 0.98 {
		return l.P99
	}
	return l.P50
}

// request sends a request to the API server and returns when the answer is there. The
// client limits the requests, and so does what the server can do.
func (s *simulation) request(at time.Time, kind requestKind) time.Time {
	const interval = time.Second / clientQPS
	if earliest := at.Add(-(clientBurst - 1) * interval); s.clientNext.Before(earliest) {
		s.clientNext = earliest
	}
	sent := later(at, s.clientNext)
	s.clientNext = s.clientNext.Add(interval)
	s.count.noteRequest(kind, sent)
	started := later(sent, s.serverNext)
	s.serverNext = started.Add(time.Duration(float64(time.Second) / s.model.RequestsPerSecond))
	return started.Add(s.model.Requests[kind].draw(s.random))
}

// sign has the authority sign and returns when it has: each of its slots takes one
// request at a time.
func (s *simulation) sign(at time.Time) time.Time {
	first := 0
	for i := range s.calls {
		if s.calls[i].Before(s.calls[first]) {
			first = i
		}
	}
	started := later(at, s.calls[first])
	s.count.noteCertificate(started)
	atLeast := time.Duration(float64(len(s.calls)) * float64(time.Second) / s.model.CertificatesPerSecond)
	s.calls[first] = started.Add(max(s.model.Issue.draw(s.random), atLeast))
	return s.calls[first]
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
