package main

import (
	"errors"
	"testing"
	"time"
)

func TestStatisticsCountEachCallOnce(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newStatistics(func() time.Time { return now })
	call := func(took time.Duration, got *answer, err error) {
		end := s.begin()
		now = now.Add(took)
		end(got, err)
	}
	goodAnswer := func(serial string) *answer { return &answer{peer{ID: "id", Serial: serial}, "pod"} }
	call(time.Second, goodAnswer("A"), nil)
	call(time.Second, nil, errors.New("lost"))
	call(3*time.Second, goodAnswer("B"), nil)
	call(time.Second, goodAnswer("A"), nil)
	finishPending := s.begin()
	began := now
	now = now.Add(2 * time.Second)
	r := s.report()
	if r.Requests != 4 || r.Failed != 1 || len(r.Failures) != 1 || r.Failures[0].Error != "lost" || r.Underway != 1 || !r.Oldest.Equal(began) {
		t.Errorf("report %+v", r)
	}
	if r.LongestGapSeconds != 4 || !r.GapBegan.Equal(time.Unix(1001, 0)) {
		t.Errorf("gap %v from %v, want the 4 s between the successful calls", r.LongestGapSeconds, r.GapBegan)
	}
	if len(r.Serials) != 2 || r.Serials[0].Count != 2 || r.Serials[1].Serial != "B" {
		t.Errorf("serials %+v", r.Serials)
	}
	now = now.Add(8 * time.Second) // nothing for 10 s until now
	if previous := s.reset(); previous.LongestGapSeconds != 10 {
		t.Errorf("gap %v, want the 10 s since the last answer", previous.LongestGapSeconds)
	}
	// A call that had not ended counts in the period in which it ends.
	finishPending(nil, errors.New("late"))
	if r := s.report(); r.Requests != 1 || r.Failed != 1 || r.Underway != 0 || len(r.Serials) != 0 {
		t.Errorf("after the reset: %+v", r)
	}
}
