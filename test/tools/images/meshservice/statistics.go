package main

import (
	"slices"
	"sync"
	"time"
)

// maxFailures is how many failures are kept with their text.
const maxFailures = 20

// Report is what GET /report answers: everything since the start or the last reset.
type Report struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Requests are all calls that have ended, Failed those of them that failed;
	// Underway have not ended yet.
	Requests int `json:"requests"`
	Failed   int `json:"failed"`
	Underway int `json:"underway"`
	// Oldest is when the oldest of those that are under way began; now, where there
	// is none.
	Oldest time.Time `json:"oldest"`
	// Failures are the first of those that failed.
	Failures []Failure `json:"failures"`
	// LongestGapSeconds is the longest time without an answer: between two good
	// ones, before the first, or since the last. It begins at GapBegan.
	LongestGapSeconds float64   `json:"longestGapSeconds"`
	GapBegan          time.Time `json:"gapBegan"`
	// Serials are those of the certificates that the edge showed, in the order in
	// which they were first seen, with the number of requests.
	Serials []Serial `json:"serials"`
	// Hosts are the pods that answered.
	Hosts []string `json:"hosts"`
}

// Failure is a call that failed.
type Failure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// Serial is a certificate that the edge showed to the service.
type Serial struct {
	ID     string    `json:"id"`
	Serial string    `json:"serial"`
	First  time.Time `json:"first"`
	Count  int       `json:"count"`
}

// statistics counts calls. A reset begins a new page; a call is entered where it ends,
// so that none is lost between two pages.
type statistics struct {
	now func() time.Time

	mu      sync.Mutex
	started map[int]time.Time // of the calls under way
	calls   int
	period  *period
}

type period struct {
	Report
	last time.Time // of the last good answer
}

func newStatistics(now func() time.Time) *statistics {
	l := &statistics{now: now, started: map[int]time.Time{}}
	l.period = l.newPeriod()
	return l
}

func (l *statistics) newPeriod() *period {
	now := l.now()
	return &period{Report: Report{Since: now, GapBegan: now, Failures: []Failure{}, Serials: []Serial{}, Hosts: []string{}}, last: now}
}

// begin notes a call that starts and returns what enters its end.
func (l *statistics) begin() func(*answer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	id := l.calls
	l.started[id] = l.now()
	return func(got *answer, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.started, id)
		l.period.record(l.now(), got, err)
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

// updateGap notes the time since the last good answer, if there was none longer.
func (p *period) updateGap(now time.Time) {
	if gap := now.Sub(p.last).Seconds(); gap > p.LongestGapSeconds {
		p.LongestGapSeconds, p.GapBegan = gap, p.last
	}
}

func (l *statistics) report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snapshot()
}

// snapshot is the report of this moment. What it says of now is not kept.
func (l *statistics) snapshot() Report {
	p, now := l.period, l.now()
	copied := *p
	copied.updateGap(now)
	copied.Until, copied.Underway, copied.Oldest = now, len(l.started), now
	for _, started := range l.started {
		if started.Before(copied.Oldest) {
			copied.Oldest = started
		}
	}
	copied.Failures, copied.Serials, copied.Hosts = slices.Clone(p.Failures), slices.Clone(p.Serials), slices.Clone(p.Hosts)
	return copied.Report
}

// reset begins anew and returns what was until then.
func (l *statistics) reset() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	previous := l.snapshot()
	l.period = l.newPeriod()
	return previous
}
