package restart

import (
	"maps"
	"sync"
	"time"
)

// reports holds what the controller reported about stale pods. It is safe for
// concurrent use.
type reports struct {
	mu sync.Mutex
	// pods are the stale pods by namespace.
	pods map[string][]StalePod
	// since is when pods of a namespace were first reported as stale for a template.
	since map[namespacedTemplate]time.Time
}

type namespacedTemplate struct{ namespace, template string }

func newReports() *reports {
	return &reports{pods: map[string][]StalePod{}, since: map[namespacedTemplate]time.Time{}}
}

// replace sets the stale pods of a namespace.
func (r *reports) replace(namespace string, pods []StalePod, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods[namespace] = pods
	reported := map[string]bool{}
	for _, p := range pods {
		reported[p.Template] = true
		key := namespacedTemplate{namespace, p.Template}
		if r.since[key].IsZero() {
			r.since[key] = now
		}
	}
	maps.DeleteFunc(r.since, func(key namespacedTemplate, _ time.Time) bool {
		return key.namespace == namespace && !reported[key.template]
	})
	if len(pods) == 0 {
		delete(r.pods, namespace)
	}
}

// templateSince is when pods of a namespace were first reported as stale for a
// template; zero when they are not.
func (r *reports) templateSince(namespace, template string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since[namespacedTemplate{namespace, template}]
}

// candidates returns the owners of all stale pods, each once, in a fixed order.
func (r *reports) candidates() []candidate {
	r.mu.Lock()
	defer r.mu.Unlock()
	return candidatesOf(r.pods)
}
