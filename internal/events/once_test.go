package events

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
)

func TestOnceRecordsWhatIsNew(t *testing.T) {
	pod := corev1.ObjectReference{Kind: "Pod", Namespace: "edge", Name: "front"}
	failed := Warning(certsSecret, "Failed", "istiod does not answer")
	for name, test := range map[string]struct {
		between func(*Once)
		second  Event
		isNew   bool
	}{
		"if nothing changed, expect silence":              {func(*Once) {}, failed, false},
		"if the note changed, expect an Event":            {func(*Once) {}, Warning(certsSecret, "Failed", "istiod refuses"), true},
		"if the reason differs, expect an Event":          {func(*Once) {}, Warning(certsSecret, "Conflict", failed.Note), true},
		"if the object differs, expect an Event":          {func(*Once) {}, Warning(pod, "Failed", failed.Note), true},
		"if it was resolved, expect an Event":             {func(o *Once) { o.Resolve(certsSecret, "Conflict", "Failed") }, failed, true},
		"if another reason was resolved, expect silence":  {func(o *Once) { o.Resolve(certsSecret, "Conflict") }, failed, false},
		"if another object was resolved, expect silence":  {func(o *Once) { o.Resolve(pod, "Failed") }, failed, false},
		"if all was forgotten, expect an Event":           {func(o *Once) { o.Reset() }, failed, true},
		"if the object is gone, expect an Event":          {func(o *Once) { o.DeleteFunc(isCertsSecret) }, failed, true},
		"if another object is gone, expect silence":       {func(o *Once) { o.DeleteFunc(func(kind, name string) bool { return !isCertsSecret(kind, name) }) }, failed, false},
		"if another Event was between, expect silence":    {func(o *Once) { o.Record(Normal(certsSecret, "Issued", "a note")) }, failed, false},
		"if the note changed in between, expect silence":  {func(o *Once) { o.Record(Warning(certsSecret, "Failed", "istiod refuses")) }, failed, false},
		"if the basis changed in between, expect silence": {func(o *Once) { o.RecordFor("another basis", failed) }, failed, false},
	} {
		t.Run(name, func(t *testing.T) {
			var recorded []Event
			o := NewOnce(func(e Event) { recorded = append(recorded, e) })
			assert.True(t, o.Record(failed), "the first is new")
			test.between(&o)
			before := len(recorded)
			assert.Equal(t, test.isNew, o.Record(test.second))
			assert.Equal(t, test.isNew, len(recorded) > before)
		})
	}
}

func isCertsSecret(kind, name string) bool { return kind == "Secret" && name == "istio-certs" }

func TestOnceRecordsOncePerBasis(t *testing.T) {
	var notes []string
	o := NewOnce(func(e Event) { notes = append(notes, e.Note) })
	assert.True(t, o.RecordFor("template 1", Warning(certsSecret, "Stuck", "1 of 3 pods")))
	assert.False(t, o.RecordFor("template 1", Warning(certsSecret, "Stuck", "2 of 3 pods")))
	assert.True(t, o.RecordFor("template 2", Warning(certsSecret, "Stuck", "2 of 3 pods")))
	assert.Equal(t, []string{"1 of 3 pods", "2 of 3 pods"}, notes)
}

// Two conditions that take turns are recorded once each, and what is remembered is
// bounded.
func TestOnceRemembersSeveralNotes(t *testing.T) {
	recorded := 0
	o := NewOnce(func(Event) { recorded++ })
	for range 10 {
		o.Record(Warning(certsSecret, "Failed", "istiod does not answer"))
		o.Record(Warning(certsSecret, "Failed", "istiod refuses"))
	}
	assert.Equal(t, 2, recorded)
	for i := range 100 {
		o.Record(Warning(certsSecret, "Failed", strings.Repeat("x", i)))
	}
	for _, bases := range o.bases {
		assert.Len(t, bases, maxBases)
	}
}

// What happens again and again, such as a renewal, takes the memory of one note.
func TestOnceRemembersOneNormalEvent(t *testing.T) {
	recorded := 0
	o := NewOnce(func(Event) { recorded++ })
	for i := range 100 {
		note := "certificate " + strings.Repeat("x", i)
		assert.True(t, o.Record(Normal(certsSecret, "Issued", note)))
		assert.False(t, o.Record(Normal(certsSecret, "Issued", note)))
	}
	assert.Equal(t, 100, recorded)
	for _, bases := range o.bases {
		assert.Len(t, bases, 1)
		assert.Equal(t, 1, cap(bases))
	}
}

// An error of the network names the local port, which is another one at each attempt.
func TestOnceComparesNotesWithoutLocalPorts(t *testing.T) {
	for name, test := range map[string]struct {
		first, second string
		isNew         bool
	}{
		"if the local port changed, expect silence": {
			"unavailable: error reading from server: read tcp 10.0.0.5:39422->10.1.0.7:15012: connection reset by peer",
			"unavailable: error reading from server: read tcp 10.0.0.5:40116->10.1.0.7:15012: connection reset by peer", false},
		"if it is IPv6, expect silence": {
			"read tcp [fd00::5]:39422->[fd00::1]:443: i/o timeout", "read tcp [fd00::5]:40116->[fd00::1]:443: i/o timeout", false},
		"if two of a note changed, expect silence": {
			"lookup istiod: read udp 10.0.0.5:1->10.0.0.10:53: refused; read udp 10.0.0.5:2->10.0.0.11:53: refused",
			"lookup istiod: read udp 10.0.0.5:3->10.0.0.10:53: refused; read udp 10.0.0.5:4->10.0.0.11:53: refused", false},
		"if the remote port changed, expect an Event": {
			"read tcp 10.0.0.5:39422->10.1.0.7:15012: i/o timeout", "read tcp 10.0.0.5:39422->10.1.0.7:15010: i/o timeout", true},
	} {
		t.Run(name, func(t *testing.T) {
			var notes []string
			o := NewOnce(func(e Event) { notes = append(notes, e.Note) })
			assert.True(t, o.Record(Warning(certsSecret, "Failed", test.first)))
			assert.Equal(t, test.isNew, o.Record(Warning(certsSecret, "Failed", test.second)))
			assert.Equal(t, test.first, notes[0], "the Event has the whole text")
		})
	}
}

func TestLatestReportsChanges(t *testing.T) {
	var l Latest
	assert.False(t, l.Replace("roots", ""), "nothing is known at first")
	assert.True(t, l.Replace("roots", "no such file"))
	assert.False(t, l.Replace("roots", "no such file"))
	assert.True(t, l.Replace("roots", "permission denied"))
	l.Delete("roots")
	assert.True(t, l.Replace("roots", "permission denied"))
}
