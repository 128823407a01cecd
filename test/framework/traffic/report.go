// Package traffic stands for the clients of edges on a node: it sends requests through
// real edges of a cluster for as long as a test runs, and reports what was lost.
// Everything goes through the API server, so the test needs no route to the pods.
//
// Tiers: test/e2e. test/mesh/edgetraffic tests its images without a node.
package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Report are the requests of a caller since its start or the last reset; see Report in
// test/tools/images/meshservice.
type Report struct {
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Requests int       `json:"requests"`
	Failed   int       `json:"failed"`
	// Oldest is the start of the oldest request in flight, or Until if there is none.
	Oldest time.Time `json:"oldest"`
	// Failures are the first failed requests.
	Failures []Failure `json:"failures"`
	// LongestGapSeconds is the longest time without an answer. It started at GapBegan.
	LongestGapSeconds float64   `json:"longestGapSeconds"`
	GapBegan          time.Time `json:"gapBegan"`
	// Serials are the certificates that the edge presented to the service, in the order
	// in which they were first seen.
	Serials []Serial `json:"serials"`
	// CallerRestarted is true if the caller was restarted since the reset, so that the
	// requests before Since are not known.
	CallerRestarted bool `json:"-"`
}

// Failure is a request that failed.
type Failure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// Serial is a certificate that the edge presented, and how often.
type Serial struct {
	ID     string    `json:"id"`
	Serial string    `json:"serial"`
	First  time.Time `json:"first"`
	Count  int       `json:"count"`
}

// Summary is the result for all edges together.
type Summary struct {
	Requests, Failed int
	// Gap is the longest time without an answer through one of the edges.
	Gap time.Duration
	// Problems are the first failures and the restarts of callers, with the edges' names.
	Problems []string
}

func (s Summary) String() string {
	text := fmt.Sprintf("%d requests, %d failed, longest gap %s", s.Requests, s.Failed, s.Gap.Round(time.Millisecond))
	return strings.Join(append([]string{text}, s.Problems...), "\n  ")
}

// Summarize adds up the reports of all edges.
func Summarize(reports map[string]Report) Summary {
	var v Summary
	for name, r := range reports {
		v.Requests += r.Requests
		v.Failed += r.Failed
		v.Gap = max(v.Gap, time.Duration(r.LongestGapSeconds*float64(time.Second)))
		if r.CallerRestarted {
			v.Problems = append(v.Problems, fmt.Sprintf("%s: the caller was restarted at %s", name, r.Since.Format(time.TimeOnly)))
		}
		for _, f := range r.Failures {
			v.Problems = append(v.Problems, fmt.Sprintf("%s: %s: %s", name, f.At.Format("15:04:05.000"), f.Error))
		}
	}
	slices.Sort(v.Problems)
	return v
}

// Report returns the reports of all callers, by the names of the edges. It retries while
// the API server is away.
func (t *Traffic) Report(ctx context.Context) (map[string]Report, error) {
	reports := map[string]Report{}
	for _, e := range t.Edges {
		r, err := t.queryCaller(ctx, e, "GET", "report")
		if err != nil {
			return nil, err
		}
		since, known := t.since[e.Name]
		r.CallerRestarted = known && !r.Since.Equal(since)
		reports[e.Name] = *r
	}
	return reports, nil
}

// Reset clears the reports of all callers. A request in flight counts in the next report.
func (t *Traffic) Reset(ctx context.Context) error {
	for _, e := range t.Edges {
		if _, err := t.queryCaller(ctx, e, "POST", "reset"); err != nil {
			return err
		}
		r, err := t.queryCaller(ctx, e, "GET", "report")
		if err != nil {
			return err
		}
		t.since[e.Name] = r.Since
	}
	return nil
}

// awaitAnswers waits until every caller has had an answer and has no request in flight from
// before that. Then it resets the reports, so that earlier failures do not count.
func (t *Traffic) awaitAnswers(ctx context.Context) error {
	for _, e := range t.Edges {
		err := await(ctx, func(ctx context.Context) error {
			r, err := t.queryCaller(ctx, e, "GET", "report")
			if err == nil && (len(r.Serials) == 0 || r.Oldest.Before(r.Serials[0].First)) {
				err = fmt.Errorf("no answer through edge %s yet: %s", e.Name, Summarize(map[string]Report{e.Name: *r}))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return t.Reset(ctx)
}

// queryCaller sends a request to a caller's pod through the API server, and retries.
func (t *Traffic) queryCaller(ctx context.Context, e Edge, method, path string) (*Report, error) {
	var r Report
	err := await(ctx, func(ctx context.Context) error {
		pod, err := t.callerPod(ctx, e)
		if err != nil {
			return err
		}
		body, err := t.client.CoreV1().RESTClient().Verb(method).Namespace(t.Namespace).Resource("pods").
			Name(pod.Name + ":8080").SubResource("proxy").Suffix(path).DoRaw(ctx)
		if err != nil {
			return fmt.Errorf("pod %s/%s, %s: %w", t.Namespace, pod.Name, path, err)
		}
		r = Report{}
		return json.Unmarshal(body, &r)
	})
	return &r, err
}

// callerPod returns the running pod that calls an edge.
func (t *Traffic) callerPod(ctx context.Context, e Edge) (*corev1.Pod, error) {
	list, err := t.client.CoreV1().Pods(t.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=caller-" + e.Name})
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning
	})
	if i < 0 {
		return nil, errors.New("no pod of caller-" + e.Name + " runs in namespace " + t.Namespace)
	}
	return &list.Items[i], nil
}
