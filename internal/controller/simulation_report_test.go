package controller

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// counts is what the simulation counts, by the second since noon.
type counts struct {
	requests, certificates []int
	// kinds are the requests of the present phase.
	kinds map[requestKind]int
	// expired are the Secrets of the present phase whose certificate expired before it
	// was replaced, and oldest is the largest share of a life at which one was replaced.
	expired int
	oldest  float64
}

func (c *counts) noteRequest(kind requestKind, at time.Time) {
	c.requests = increment(c.requests, at)
	if c.kinds == nil {
		c.kinds = map[requestKind]int{}
	}
	c.kinds[kind]++
}

func (c *counts) noteCertificate(at time.Time) { c.certificates = increment(c.certificates, at) }

func increment(list []int, at time.Time) []int {
	second := int(at.Sub(noon) / time.Second)
	for len(list) <= second {
		list = append(list, 0)
	}
	list[second]++
	return list
}

// noteReplacement notes that a Secret with a bundle is written.
func (c *counts) noteReplacement(before *certs.Bundle, after *corev1.Secret, at time.Time) {
	if !at.Before(before.NotAfter()) {
		c.expired++
	}
	if !bytes.Equal(after.Data[corev1.TLSCertKey], before.Chain()) {
		life := before.NotAfter().Sub(before.Issued())
		c.oldest = max(c.oldest, float64(at.Sub(before.Issued()))/float64(life))
	}
}

// rates returns the mean and the peak over a minute of a list, for the seconds of a phase.
func rates(list []int, from, until time.Time) (mean, peak float64) {
	first, last := int(from.Sub(noon)/time.Second), int(until.Sub(noon)/time.Second)
	at := func(i int) int {
		if i < first || i >= min(last, len(list)) {
			return 0
		}
		return list[i]
	}
	total, window, highest := 0, 0, 0
	for i := first; i < last; i++ {
		total += at(i)
		window += at(i) - at(i-60)
		highest = max(highest, window)
	}
	return float64(total) / float64(last-first), float64(highest) / 60
}

// phase is a part of the simulation.
type phase struct {
	name string
	// length is how long it lasts, and begin is what happens at its beginning.
	length time.Duration
	begin  func(s *simulation)
	// writes are how often each Secret has to be written.
	writes int
	// certificates is the stated rate of certificates in a second.
	certificates float64
}

// result is what was counted in a phase.
type result struct {
	phase
	requests, requestPeak, certificate, certificatePeak float64
	kinds                                               map[requestKind]int
	written, excess, missing, expired                   int
	oldest                                              float64
}

// statedRequests is the stated rate of requests to the API server over a minute: what the
// controller's client allows.
const statedRequests = clientQPS + clientBurst/60.0

// simulate runs phases one after the other.
func (s *simulation) simulate(phases []phase) []result {
	results := make([]result, 0, len(phases))
	for _, p := range phases {
		from := s.now
		s.count.expired, s.count.oldest, s.count.kinds = 0, 0, nil
		p.begin(s)
		s.run(from.Add(p.length))
		r := result{phase: p, kinds: s.count.kinds, expired: s.count.expired, oldest: s.count.oldest}
		r.requests, r.requestPeak = rates(s.count.requests, from, s.now)
		r.certificate, r.certificatePeak = rates(s.count.certificates, from, s.now)
		for _, ns := range s.namespaces {
			for _, secret := range ns.secrets {
				r.written += secret.writes
				r.excess += max(secret.writes-p.writes, 0)
				r.missing += max(p.writes-secret.writes, 0)
				secret.writes = 0
				if b := secret.seen.Bundle; b == nil || !s.now.Before(b.NotAfter()) {
					r.expired++
				}
			}
		}
		results = append(results, r)
	}
	return results
}

// faults says in which phases something is not as it has to be.
func faults(results []result) []string {
	var list []string
	fault := func(r result, format string, args ...any) {
		list = append(list, r.name+": "+fmt.Sprintf(format, args...))
	}
	for _, r := range results {
		if r.expired > 0 {
			fault(r, "%d Secrets with an expired certificate", r.expired)
		}
		if r.excess > 0 {
			fault(r, "%d writes in excess", r.excess)
		}
		if r.missing > 0 {
			fault(r, "%d writes are missing", r.missing)
		}
		if r.requestPeak > statedRequests {
			fault(r, "%.1f requests a second, above %.1f", r.requestPeak, statedRequests)
		}
		if r.certificatePeak > r.certificates {
			fault(r, "%.2f certificates a second, above %.2f", r.certificatePeak, r.certificates)
		}
	}
	return list
}

// edgePhases are a day of an installation with this many Secrets, and three hours more.
func edgePhases(tb testing.TB, secrets int) []phase {
	next := certtest.NewAuthority(tb, certtest.CommonName("next root"), certtest.Validity(noon.Add(-time.Hour), noon.Add(1000*time.Hour)))
	// stated allows half more than a rate, since work waits in the queue and comes at once,
	// and what chance adds to it in one minute of a day.
	stated := func(rate float64) float64 { return 1.5*rate + 4*math.Sqrt(rate/60) + 0.1 }
	// The requests of a new Secret are five: get, token, apply, and two Events.
	unlimited := stated(clientQPS / 5)
	day := 24 * time.Hour
	return []phase{
		{"cold start", time.Hour, (*simulation).requeueAll, 1, unlimited},
		// From a third of the life on, over a tenth of the rest.
		{"renewals", 9*time.Hour + 30*time.Minute, func(*simulation) {}, 1, stated(float64(secrets) / (day * 2 / 3 / 10).Seconds())},
		{"new roots and leaves", 150 * time.Minute, func(s *simulation) {
			s.signer, s.roots = next, append(s.roots, next.Certificate)
			s.rootVersion++
			clear(s.issued)
			s.requeueAll()
		}, 2, stated(float64(secrets) / spreadLeaves(secrets).Seconds())},
		{"another leader", 30 * time.Minute, func(s *simulation) {
			s.lead()
			s.requeueAll()
		}, 0, 0},
		{"CA away for an hour", 11 * time.Hour, func(s *simulation) {
			// The leaves of the last phase but one are due from the nineteenth hour on.
			away := noon.Add(19 * time.Hour)
			s.schedule(away, func() { s.outage = away.Add(time.Hour) })
			s.schedule(away.Add(time.Hour), s.available)
		}, 1, unlimited},
	}
}

// available requeues the namespaces that wait for the authority, as follower does.
func (s *simulation) available() {
	at := s.now
	for _, ns := range s.namespaces {
		if ns.waits {
			s.schedule(at, func() { s.add(ns) })
			if s.isSpread {
				at = at.Add(availablePause)
			}
		}
	}
}

func printResults(out io.Writer, m model, size string, results []result) {
	_, _ = fmt.Fprintf(out, "\n%s; %s:\n", size, m.Where)
	for _, kind := range []requestKind{getRequest, applyRequest, tokenRequest, listRequest, eventRequest, nudgeRequest} {
		_, _ = fmt.Fprintf(out, "  %s: %s, 99 %% within %s\n", kind, m.Requests[kind].P50, m.Requests[kind].P99)
	}
	_, _ = fmt.Fprintf(out, "  the API server answers %.0f requests a second; the controller sends %d at most\n", m.RequestsPerSecond, clientQPS)
	_, _ = fmt.Fprintf(out, "  the CA signs in %s, 99 %% within %s, and %.0f certificates a second; it gets %d requests at a time\n\n",
		m.Issue.P50, m.Issue.P99, m.CertificatesPerSecond, m.Calls)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "phase\thours\trequests/s\tpeak\tstated\tcertificates/s\tpeak\tstated\toldest replaced\twrites\tin excess\tnudges\texpired")
	for _, r := range results {
		_, _ = fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f\t%.0f %% of its life\t%d\t%d\t%d\t%d\n", r.name, r.length.Hours(),
			r.requests, r.requestPeak, statedRequests, r.certificate, r.certificatePeak, r.certificates, 100*r.oldest, r.written, r.excess, r.kinds[nudgeRequest], r.expired)
	}
	_ = table.Flush()
	_, _ = fmt.Fprintln(out, "\nPeaks are over a minute.")
}

// TestSimulation simulates few Secrets, or as many as `make simulate` asks for.
func TestSimulation(t *testing.T) {
	secrets, namespaces, nudgedEvery := 60, 24, 1
	if text := os.Getenv("ISTHMUS_SIMULATION"); text != "" {
		_, err := fmt.Sscanf(text, "%d,%d,%d", &secrets, &namespaces, &nudgedEvery)
		require.NoError(t, err, "ISTHMUS_SIMULATION: want the numbers of Secrets and of namespaces, and which of them are nudged, as in 60,24,1 for all")
	}
	m := measuredModel(t)
	results := newSimulation(t, m, secrets, namespaces, nudgedEvery, true).simulate(edgePhases(t, secrets))
	var table strings.Builder
	printResults(&table, m, fmt.Sprintf("%d Secrets in %d namespaces, one in %d with an edge that is nudged", secrets, namespaces, nudgedEvery), results)
	t.Log(table.String())
	assert.Empty(t, faults(results))
}

// TestSimulationFindsMissingSpreading shows that the simulation fails when nothing is
// spread.
func TestSimulationFindsMissingSpreading(t *testing.T) {
	results := newSimulation(t, recordedModel(), 60, 24, 1, false).simulate(edgePhases(t, 60)[:3])
	found := strings.Join(faults(results), "\n")
	for _, phase := range []string{"renewals", "new roots and leaves"} {
		assert.Contains(t, found, phase+": ")
	}
	assert.Contains(t, found, "certificates a second, above")
}
