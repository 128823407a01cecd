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
	review := func() answer {
		url := fmt.Sprintf("https://127.0.0.1:%d/inject/namespace", r.port)
		answer, err := post(t.Context(), transport, url, podRequest(s.name, barePod(`{"name": "edge"}`)))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.status, string(answer.body))
		assert.Contains(t, string(answer.body), `"patch"`)
		return answer
	}
	assert.False(t, review().leave, "a connection is kept while the server runs")

	require.NoError(t, r.command.Process.Signal(syscall.SIGTERM))
	awaitThat(t, func(ctx context.Context) error {
		if r.ready(ctx) == nil {
			return errors.New("still ready")
		}
		return nil
	})

	assert.True(t, review().leave, "the client is told to leave")
	select {
	case <-r.done:
		assert.Fail(t, "the server ended before its delay was over")
	default:
	}
	assert.NoError(t, r.stop(t.Context()))
}
