package events

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Latest remembers the latest text under each key, so that a condition that
// lasts is reported once. The zero value is ready to use. It is not safe for
// concurrent use.
type Latest struct{ texts map[string]string }

// Replace remembers text under key and reports whether it differs from the text
// that was there.
func (l *Latest) Replace(key, text string) (changed bool) {
	if l.texts[key] == text {
		return false
	}
	if l.texts == nil {
		l.texts = map[string]string{}
	}
	l.texts[key] = text
	return true
}

// Delete forgets the text under key, so that the same text counts as new again.
func (l *Latest) Delete(key string) { delete(l.texts, key) }

// Once records an Event unless it repeats an earlier one with the same object and
// reason: conditions that take turns, Warnings, are recorded once each. It is not safe for
// concurrent use.
type Once struct {
	record func(Event)
	// bases are those of the latest Events of each object and reason, the last at the
	// end.
	bases map[string][]string
}

// maxBases is how many Warnings with the same object and reason a Once remembers. It
// remembers one Normal Event: those report what happened, do not take turns, and are
// never resolved.
const maxBases = 8

// NewOnce returns a Once that passes new Events to record, which is the Record
// method of a Recorder outside of tests.
func NewOnce(record func(Event)) Once { return Once{record: record} }

// localPort is the local end of a connection in the error of a network operation. Its
// port is another one at every attempt.
var localPort = regexp.MustCompile(`(\[[0-9a-zA-F:.%]+\]|[0-9.]+):[0-9]+->`)

// Record records the Event unless an earlier one with the same object and reason
// had the same note. Local ports in the notes do not count. It reports whether the Event
// is new.
func (o *Once) Record(e Event) bool {
	return o.RecordFor(localPort.ReplaceAllLiteralString(e.Note, ""), e)
}

// RecordFor records the Event unless an earlier one with the same object and
// reason had the same basis, whatever its note. It reports whether the Event
// is new.
func (o *Once) RecordFor(basis string, e Event) bool {
	key := keyOf(e.Regarding, e.Reason)
	if slices.Contains(o.bases[key], basis) {
		return false
	}
	if o.bases == nil {
		o.bases = map[string][]string{}
	}
	if kept := o.bases[key]; e.Type == corev1.EventTypeNormal || len(kept) == 0 {
		o.bases[key] = []string{basis}
	} else {
		o.bases[key] = append(kept[max(len(kept)+1-maxBases, 0):], basis)
	}
	o.record(e)
	return true
}

// Resolve forgets the Events with this object and each of the reasons, so that the
// condition is recorded again when it comes back.
func (o *Once) Resolve(regarding corev1.ObjectReference, reasons ...string) {
	for _, reason := range reasons {
		delete(o.bases, keyOf(regarding, reason))
	}
}

// Reset forgets all Events.
func (o *Once) Reset() { clear(o.bases) }

// DeleteFunc forgets the Events about the objects for which gone is true.
func (o *Once) DeleteFunc(gone func(kind, name string) bool) {
	maps.DeleteFunc(o.bases, func(key string, _ []string) bool {
		kind, rest, _ := strings.Cut(key, "/")
		_, rest, _ = strings.Cut(rest, "/")
		name, _, _ := strings.Cut(rest, "/")
		return gone(kind, name)
	})
}

// keyOf is kind/namespace/name/reason: none of the four holds a slash.
func keyOf(o corev1.ObjectReference, reason string) string {
	return o.Kind + "/" + o.Namespace + "/" + o.Name + "/" + reason
}
