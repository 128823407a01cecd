package restart

import (
	"maps"
	"slices"
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

// candidate is the owner of a stale pod, or a stale pod without an owner.
type candidate struct {
	StalePod
	key string
}

// candidates returns the owners of all stale pods, each once, in a fixed order.
func (r *reports) candidates() []candidate {
	r.mu.Lock()
	defer r.mu.Unlock()
	owners := map[string]candidate{}
	for namespace, pods := range r.pods {
		for _, p := range pods {
			if p.Template == "" {
				continue
			}
			key := namespace + "/Pod/" + p.Pod.Name
			if p.Owner != nil {
				key = namespace + "/" + p.Owner.Kind + "/" + p.Owner.Name
			}
			owners[key] = candidate{StalePod: p, key: key}
		}
	}
	list := make([]candidate, 0, len(owners))
	for _, key := range slices.Sorted(maps.Keys(owners)) {
		list = append(list, owners[key])
	}
	return list
}

// batchSize is how many candidates are considered in one step. Each costs two or
// three requests, so thousands of candidates that request no restart cost a few
// requests a second.
const batchSize = 20

// nextBatch returns the indices of the candidates to consider in this step, from
// the cursor on. Up to batchSize candidates are all considered, in their order;
// more of them take turns.
func nextBatch(candidates, cursor int) []int {
	if candidates <= batchSize {
		cursor = 0
	}
	batch := make([]int, 0, batchSize)
	for i := range min(candidates, batchSize) {
		batch = append(batch, (cursor+i)%candidates)
	}
	return batch
}
