package admission

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A server that stops is no longer ready at first, but still answers. It closes kept
// connections with a response: a request on a connection that is closed at the same moment
// would be lost.
func TestStoppingServerAnswersAndClosesConnections(t *testing.T) {
	s := newNamespace(t, enabled)
	r, err := env.startReplica(t.Context(), "--shutdown-delay=4s")
	require.NoError(t, err)
	transport, err := transportFor(env.caBundle(t.Context()))
	require.NoError(t, err)
	t.Cleanup(transport.CloseIdleConnections)
	review := func() reviewResponse {
		url := fmt.Sprintf("https://127.0.0.1:%d/inject/namespace", r.port)
		response, err := postReview(t.Context(), transport, url, podRequest(s.name, minimalPod(`{"name": "edge"}`)))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, response.status, string(response.body))
		assert.Contains(t, string(response.body), `"patch"`)
		return response
	}
	assert.False(t, review().closed, "a connection is kept while the server runs")

	require.NoError(t, r.command.Process.Signal(syscall.SIGTERM))
	requireEventually(t, func(ctx context.Context) error {
		if r.ready(ctx) == nil {
			return errors.New("still ready")
		}
		return nil
	})

	assert.True(t, review().closed, "the server asks the client to close the connection")
	select {
	case <-r.done:
		assert.Fail(t, "the server ended before its delay was over")
	default:
	}
	assert.NoError(t, r.stop(t.Context()))
}
