package restart

import (
	"maps"
	"slices"
)

// candidate is the owner of a stale pod, or a stale pod without an owner.
type candidate struct {
	StalePod
	key string
}

// candidatesOf returns the owners of the stale pods in all namespaces, each once, in
// a fixed order.
func candidatesOf(stale map[string][]StalePod) []candidate {
	owners := map[string]candidate{}
	for namespace, pods := range stale {
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
