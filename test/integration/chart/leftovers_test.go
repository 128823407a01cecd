package chart

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/leftovers"
)

// leftovers lists the objects of Isthmus that did not exist before.
func (c *cluster) leftovers(t *testing.T, before ...string) []string {
	t.Helper()
	found, err := leftovers.List(t.Context(), c.config)
	require.NoError(t, err)
	return slices.DeleteFunc(found, func(object string) bool { return slices.Contains(before, object) })
}
