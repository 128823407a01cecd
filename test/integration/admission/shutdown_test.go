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

// A server that stops is first no longer ready, and still answers. Connections
// that clients keep are given up one by one: what is sent on one at the moment
// it is closed would be lost.
func TestStoppingServerAnswersAndSendsClientsAway(t *testing.T) {
	s := newSpace(t, enabled)
	r, err := world.startReplica(t.Context(), "--shutdown-delay=4s")
	require.NoError(t, err)
	transport, err := transportFor(world.caBundle(t.Context()))
	require.NoError(t, err)
	t.Cleanup(transport.CloseIdleConnections)
	review := func() *http.Response {
		url := fmt.Sprintf("https://127.0.0.1:%d/inject/namespace", r.port)
		response, body, err := post(t.Context(), transport, url, podRequest(s.name, barePod(`{"name": "edge"}`)))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, response.StatusCode, string(body))
		assert.Contains(t, string(body), `"patch"`)
		return response
	}
	assert.False(t, review().Close, "a connection is kept while the server runs")

	require.NoError(t, r.command.Process.Signal(syscall.SIGTERM))
	awaitThat(t, func(ctx context.Context) error {
		if r.ready(ctx) == nil {
			return errors.New("still ready")
		}
		return nil
	})

	assert.True(t, review().Close, "the client is told to leave")
	select {
	case <-r.done:
		assert.Fail(t, "the server ended before its delay was over")
	default:
	}
	assert.NoError(t, r.stop(t.Context()))
}
