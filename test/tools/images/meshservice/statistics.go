package main

import (
	"slices"
	"sync"
	"time"
)

// keptFailures is how many failures are kept with their text.
const keptFailures = 20

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

// ledger counts calls. A reset begins a new page; a call is entered where it ends,
// so that none is lost between two pages.
type ledger struct {
	now func() time.Time

	mu    sync.Mutex
	begun map[int]time.Time // of the calls under way
	calls int
	page  *page
}

type page struct {
	Report
	last time.Time // of the last good answer
}

func newLedger(now func() time.Time) *ledger {
	l := &ledger{now: now, begun: map[int]time.Time{}}
	l.page = l.blank()
	return l
}

func (l *ledger) blank() *page {
	now := l.now()
	return &page{Report: Report{Since: now, GapBegan: now, Failures: []Failure{}, Serials: []Serial{}, Hosts: []string{}}, last: now}
}

// begin notes a call that starts and returns what enters its end.
func (l *ledger) begin() func(*answer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	id := l.calls
	l.begun[id] = l.now()
	return func(got *answer, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.begun, id)
		l.page.enter(l.now(), got, err)
	}
}

func (p *page) enter(now time.Time, got *answer, err error) {
	p.Requests++
	if err != nil {
		p.Failed++
		if len(p.Failures) < keptFailures {
			p.Failures = append(p.Failures, Failure{now, err.Error()})
		}
		return
	}
	p.gap(now)
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

// gap notes the time since the last good answer, if there was none longer.
func (p *page) gap(now time.Time) {
	if gap := now.Sub(p.last).Seconds(); gap > p.LongestGapSeconds {
		p.LongestGapSeconds, p.GapBegan = gap, p.last
	}
}

func (l *ledger) report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state()
}

// state is the report of this moment. What it says of now is not kept.
func (l *ledger) state() Report {
	p, now := l.page, l.now()
	copied := *p
	copied.gap(now)
	copied.Until, copied.Underway, copied.Oldest = now, len(l.begun), now
	for _, began := range l.begun {
		if began.Before(copied.Oldest) {
			copied.Oldest = began
		}
	}
	copied.Failures, copied.Serials, copied.Hosts = slices.Clone(p.Failures), slices.Clone(p.Serials), slices.Clone(p.Hosts)
	return copied.Report
}

// reset begins anew and returns what was until then.
func (l *ledger) reset() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.state()
	l.page = l.blank()
	return was
}
