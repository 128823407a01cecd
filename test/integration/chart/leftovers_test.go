package chart

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/leftovers"
)

// census lists what there is of Isthmus that was not there before.
func (c *cluster) census(t *testing.T, before ...string) []string {
	t.Helper()
	found, err := leftovers.List(t.Context(), c.config)
	require.NoError(t, err)
	return slices.DeleteFunc(found, func(object string) bool { return slices.Contains(before, object) })
}
