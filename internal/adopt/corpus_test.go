package adopt_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/adopt"
	"github.com/isthmus-mesh/isthmus/test/framework/corpus"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestAdoptCorpus adopts every edge of the corpus that is integrated by hand. The result is plain,
// a second adoption changes nothing, and every difference has a reason. The other pods of the
// corpus have nothing to adopt.
func TestAdoptCorpus(t *testing.T) {
	rows := corpus.Rows(t, "../../../shared/corpus", "TestAdopt")

	engine := newEngine(t, inject.Options{})
	adopted := 0
	for _, row := range rows {
		t.Run(row.File, func(t *testing.T) {
			pod := row.Pod(t)
			request := inject.Request{Pod: pod, Namespace: policy.Namespace{Name: "edge"}, Template: true}
			adoption, err := adopt.Adopt(engine, request, adopt.Options{})
			require.NoError(t, err)
			if row.Expected != "conflict" || len(adoption.Patch) == 0 {
				assert.Empty(t, adoption.Patch)
				assert.NotEqual(t, policy.Injected, adoption.Reason)
				return
			}
			adopted++
			checkAdopted(t, engine, request, adoption)
		})
	}
	assert.GreaterOrEqual(t, adopted, 9)
}
