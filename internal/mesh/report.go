package mesh

import (
	"maps"
	"slices"
)

// report logs what is different between two states; before is nil at first.
// Every change is said once.
func (w *Watcher) report(before, after *state) {
	w.reportRefusals()
	first := before == nil
	if first {
		before = w.empty
	}
	if len(after.revisions) == 0 && (first || len(before.revisions) > 0 || before.reason != after.reason) {
		s, _ := after.settings("")
		w.log.Info("no Istio found, explicit settings and documented defaults are used", "reason", after.reason, "settings", s.Describe())
	}
	for _, name := range slices.Sorted(maps.Keys(after.revisions)) {
		w.reportRevision(name, before.revisions[name], after.revisions[name])
	}
	for _, name := range slices.Sorted(maps.Keys(before.revisions)) {
		if _, ok := after.revisions[name]; !ok {
			w.log.Info("istio revision is gone", "revision", name)
		}
	}
	w.reportInjectors(&before.injectors, &after.injectors)
}

func (w *Watcher) reportInjectors(before, after *injectors) {
	if tags := describeTags(after.tags); tags != describeTags(before.tags) {
		w.log.Info("istio's revision tags", "tags", tags)
	}
	if lines := after.describe(); !slices.Equal(lines, before.describe()) {
		w.log.Info("istio's injectors", "serve", lines)
	}
}

func (w *Watcher) reportRevision(name string, before, after revision) {
	log := w.log.WithValues("revision", name)
	switch {
	case after.err != nil && (before.err == nil || before.err.Error() != after.err.Error()):
		if after.found == nil {
			log.Error(after.err, "istio's settings cannot be read and there are no earlier ones: pods that need them are refused")
		} else {
			log.Error(after.err, "istio's settings cannot be read, the last good ones are used")
		}
	case after.err != nil:
	case before.err != nil || before.found == nil || !slices.Equal(before.used.Describe(), after.used.Describe()):
		log.Info("istio's settings", "settings", after.used.Describe())
		for _, warning := range after.used.Warnings {
			log.Info("istio's settings", "warning", warning)
		}
	}
}

// reportRefusals logs which objects the API server does not let us read.
func (w *Watcher) reportRefusals() {
	for _, s := range w.selections {
		text := ""
		if err := s.refusal(); err != nil {
			text = err.Error()
			if text != w.refusals[s] {
				w.log.Error(err, "part of Istio's settings is not readable and taken as not there", "objects", s.what)
			}
		}
		w.refusals[s] = text
	}
}
