package mesh

import (
	"maps"
	"slices"
)

// logChanges logs the differences between two states, each once. before is nil the
// first time.
func (w *Watcher) logChanges(before, after *meshState) {
	w.logAccessErrors()
	first := before == nil
	if first {
		before = w.initial
	}
	if len(after.revisions) == 0 && (first || len(before.revisions) > 0 || before.absentReason != after.absentReason) {
		s, _ := after.settings("")
		w.log.Info("no Istio found: using the explicit settings and the documented defaults", "reason", after.absentReason, "settings", s.Describe())
	}
	for _, name := range slices.Sorted(maps.Keys(after.revisions)) {
		w.logRevision(name, before.revisions[name], after.revisions[name])
	}
	for _, name := range slices.Sorted(maps.Keys(before.revisions)) {
		if _, ok := after.revisions[name]; !ok {
			w.log.Info("istio revision is gone", "revision", name)
		}
	}
	w.logInjectors(&before.injectors, &after.injectors)
}

func (w *Watcher) logInjectors(before, after *injectors) {
	if tags := describeTags(after.tags); tags != describeTags(before.tags) {
		w.log.Info("istio's revision tags", "tags", tags)
	}
	if lines := after.describe(); !slices.Equal(lines, before.describe()) {
		w.log.Info("istio's injectors", "serve", lines)
	}
}

func (w *Watcher) logRevision(name string, before, after revisionState) {
	log := w.log.WithValues("revision", name)
	switch {
	case after.err != nil && (before.err == nil || before.err.Error() != after.err.Error()):
		if after.discovered == nil {
			log.Error(after.err, "istio's settings cannot be read, and there are no earlier ones: pods that need them are refused")
		} else {
			log.Error(after.err, "istio's settings cannot be read: the last good ones are used")
		}
	case after.err != nil:
	case before.err != nil || before.discovered == nil || !slices.Equal(before.effective.Describe(), after.effective.Describe()):
		log.Info("istio's settings", "settings", after.effective.Describe())
		for _, warning := range after.effective.Warnings {
			log.Info("istio's settings", "warning", warning)
		}
	}
}

// logAccessErrors logs which objects the API server does not allow to be read.
func (w *Watcher) logAccessErrors() {
	for _, watch := range w.watches {
		err := watch.accessError()
		switch {
		case err == nil:
			w.accessErrors.Delete(watch.description)
		case w.accessErrors.Replace(watch.description, err.Error()):
			w.log.Error(err, "objects of Istio cannot be read and are treated as absent", "objects", watch.description)
		}
	}
}
