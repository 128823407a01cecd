package restart

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func stalePod(namespace, name, template string, owner *metav1.OwnerReference) StalePod {
	return StalePod{Pod: types.NamespacedName{Namespace: namespace, Name: name}, UID: types.UID(namespace + name), Owner: owner, Template: template}
}

func TestCandidatesAreOwnersInOrder(t *testing.T) {
	owner := &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "front-1"}
	r := newReports()
	r.replace("b", []StalePod{stalePod("b", "bare", "new", nil)}, noon)
	r.replace("a", []StalePod{stalePod("a", "x", "new", owner), stalePod("a", "y", "new", owner), stalePod("a", "z", "", nil)}, noon)
	var keys []string
	for _, c := range r.candidates() {
		keys = append(keys, c.key)
	}
	assert.Equal(t, []string{"a/ReplicaSet/front-1", "b/Pod/bare"}, keys, "a pod that was changed by hand is none")
	assert.Equal(t, "ReplicaSet", r.candidates()[0].ownerReference().Kind)
	assert.Equal(t, "Pod", r.candidates()[1].ownerReference().Kind)
	r.replace("a", nil, noon)
	assert.Len(t, r.candidates(), 1)
}

func TestTemplateSinceCountsFromTheFirstReport(t *testing.T) {
	r := newReports()
	r.replace("a", []StalePod{stalePod("a", "x", "new", nil)}, noon)
	r.replace("a", []StalePod{stalePod("a", "y", "new", nil)}, noon.Add(time.Minute))
	assert.Equal(t, noon, r.templateSince("a", "new"))
	assert.Zero(t, r.templateSince("b", "new"))
	r.replace("a", []StalePod{stalePod("a", "y", "newer", nil)}, noon.Add(time.Hour))
	assert.Zero(t, r.templateSince("a", "new"))
	r.replace("a", []StalePod{stalePod("a", "y", "new", nil)}, noon.Add(2*time.Hour))
	assert.Equal(t, noon.Add(2*time.Hour), r.templateSince("a", "new"), "a template that comes back counts from then on")
}

func TestManyCandidatesTakeTurns(t *testing.T) {
	assert.Empty(t, nextBatch(0, 5))
	assert.Equal(t, []int{0, 1, 2}, nextBatch(3, 2), "a few are all considered, in their order")
	batch := nextBatch(30, 15)
	assert.Len(t, batch, batchSize)
	assert.Equal(t, []int{15, 16}, batch[:2])
	assert.Equal(t, 4, batch[batchSize-1])
	assert.Len(t, nextBatch(batchSize, 7), batchSize)
	assert.Equal(t, 0, nextBatch(batchSize, 7)[0])
}
