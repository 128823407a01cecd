package main

import (
	"slices"
	"sync"
	"time"
)

// maxFailures limits the failures in a report.
const maxFailures = 20

// Report is the answer of GET /report: all calls since the start or the last reset.
type Report struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Requests counts the calls that have ended, Failed the failed ones among them.
	// Underway counts the calls that have not ended.
	Requests int `json:"requests"`
	Failed   int `json:"failed"`
	Underway int `json:"underway"`
	// Oldest is when the oldest call that has not ended began; now if there is none.
	Oldest time.Time `json:"oldest"`
	// Failures are the first failed calls.
	Failures []Failure `json:"failures"`
	// LongestGapSeconds is the longest time without a successful call: before the
	// first, between two, or since the last. It began at GapBegan.
	LongestGapSeconds float64   `json:"longestGapSeconds"`
	GapBegan          time.Time `json:"gapBegan"`
	// Serials are the certificates that the edge presented, in the order of their first
	// use, with the number of requests.
	Serials []Serial `json:"serials"`
	// Hosts are the names of the pods that answered.
	Hosts []string `json:"hosts"`
}

// Failure is a failed call.
type Failure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// Serial is a certificate that the edge presented to the service.
type Serial struct {
	ID     string    `json:"id"`
	Serial string    `json:"serial"`
	First  time.Time `json:"first"`
	Count  int       `json:"count"`
}

// statistics counts calls. A reset begins a new period. A call counts in the period in
// which it ends, so that none is lost between two periods.
type statistics struct {
	now func() time.Time

	mu      sync.Mutex
	started map[int]time.Time // of the calls that have not ended
	calls   int
	period  *period
}

type period struct {
	Report
	last time.Time // of the last successful call
}

func newStatistics(now func() time.Time) *statistics {
	s := &statistics{now: now, started: map[int]time.Time{}}
	s.period = s.newPeriod()
	return s
}

func (s *statistics) newPeriod() *period {
	now := s.now()
	return &period{Report: Report{Since: now, GapBegan: now, Failures: []Failure{}, Serials: []Serial{}, Hosts: []string{}}, last: now}
}

// begin records the start of a call and returns the function that records its end.
func (s *statistics) begin() func(*answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	id := s.calls
	s.started[id] = s.now()
	return func(got *answer, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.started, id)
		s.period.record(s.now(), got, err)
	}
}

func (p *period) record(now time.Time, got *answer, err error) {
	p.Requests++
	if err != nil {
		p.Failed++
		if len(p.Failures) < maxFailures {
			p.Failures = append(p.Failures, Failure{now, err.Error()})
		}
		return
	}
	p.updateGap(now)
	p.last = now
	if !slices.Contains(p.Hosts, got.Host) {
		p.Hosts = append(p.Hosts, got.Host)
	}
	i := slices.IndexFunc(p.Serials, func(s Serial) bool { return s.Serial == got.Serial && s.ID == got.ID })
	if i < 0 {
		i = len(p.Serials)
		p.Serials = append(p.Serials, Serial{ID: got.ID, Serial: got.Serial, First: now})
	}
	p.Serials[i].Count++
}

// updateGap updates the longest gap with the time since the last successful call.
func (p *period) updateGap(now time.Time) {
	if gap := now.Sub(p.last).Seconds(); gap > p.LongestGapSeconds {
		p.LongestGapSeconds, p.GapBegan = gap, p.last
	}
}

func (s *statistics) report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot()
}

// snapshot returns the report of this moment without changing the period.
func (s *statistics) snapshot() Report {
	p, now := s.period, s.now()
	copied := *p
	copied.updateGap(now)
	copied.Until, copied.Underway, copied.Oldest = now, len(s.started), now
	for _, started := range s.started {
		if started.Before(copied.Oldest) {
			copied.Oldest = started
		}
	}
	copied.Failures, copied.Serials, copied.Hosts = slices.Clone(p.Failures), slices.Clone(p.Serials), slices.Clone(p.Hosts)
	return copied.Report
}

// reset begins a new period and returns the report of the previous one.
func (s *statistics) reset() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	previous := s.snapshot()
	s.period = s.newPeriod()
	return previous
}
