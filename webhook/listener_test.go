package webhook

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// closableConn is a connection that reports when it is closed.
type closableConn struct {
	net.Conn
	closed chan struct{}
}

func (c *closableConn) Close() error {
	close(c.closed)
	return nil
}

func TestConnectionLimiterClosesTheOldestIdleConnectionFirst(t *testing.T) {
	limiter := &connectionLimiter{maxConnections: 3, open: map[net.Conn]trackedConnection{}}
	conns := make([]*closableConn, 5)
	for i := range conns {
		conns[i] = &closableConn{closed: make(chan struct{})}
	}
	for _, conn := range conns[:3] {
		limiter.trackState(conn, http.StateNew)
		limiter.trackState(conn, http.StateActive)
	}
	limiter.trackState(conns[1], http.StateIdle)

	limiter.trackState(conns[3], http.StateNew)
	requireClosed(t, conns[1])
	limiter.trackState(conns[3], http.StateActive)
	limiter.trackState(conns[3], http.StateIdle)
	limiter.trackState(conns[0], http.StateClosed)
	limiter.trackState(conns[4], http.StateNew)

	assert.Len(t, limiter.open, 3)
	assert.NotContains(t, limiter.open, net.Conn(conns[1]))
}

func TestConnectionLimiterClosesTheLongestActiveConnectionIfNoneIsIdle(t *testing.T) {
	limiter := &connectionLimiter{maxConnections: 1, open: map[net.Conn]trackedConnection{}}
	first, second := &closableConn{closed: make(chan struct{})}, &closableConn{closed: make(chan struct{})}
	limiter.trackState(first, http.StateActive)

	limiter.trackState(second, http.StateActive)

	requireClosed(t, first)
	assert.Contains(t, limiter.open, net.Conn(second))
}

func requireClosed(t *testing.T, conn *closableConn) {
	t.Helper()
	select {
	case <-conn.closed:
	case <-time.After(10 * time.Second):
		require.Fail(t, "the connection is still open")
	}
}
