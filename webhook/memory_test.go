package webhook

import (
	"bytes"
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOldestPendingReviewIsEvictedWhenTheMemoryIsUsedUp(t *testing.T) {
	budget := NewMemoryBudget()
	oldest, next, latest := budget.enqueue(httptest.NewRecorder()), budget.enqueue(httptest.NewRecorder()), budget.enqueue(httptest.NewRecorder())
	require.True(t, oldest.reserve(maxPendingBytes/2))
	require.True(t, next.reserve(maxPendingBytes/2))

	assert.True(t, latest.reserve(1))

	assert.True(t, oldest.isEvicted())
	assert.False(t, next.isEvicted())
	assert.False(t, oldest.reserve(1), "an evicted review gets no memory")
	oldest.remove()
	next.remove()
	latest.remove()
	assert.Zero(t, budget.pendingBytes)
	assert.Zero(t, budget.pending.Len())
}

func TestEvictedReviewIsNotRead(t *testing.T) {
	budget := NewMemoryBudget()
	review := budget.enqueue(httptest.NewRecorder())
	require.True(t, budget.enqueue(httptest.NewRecorder()).reserve(maxPendingBytes))
	require.False(t, review.isEvicted())

	err := review.read(&bytes.Buffer{}, strings.NewReader("{}"))

	assert.ErrorIs(t, err, errOverloaded)
}

func TestOneLargeReviewIsDecodedAtATime(t *testing.T) {
	budget := NewMemoryBudget()
	large := []byte(strings.Repeat("[", 2000))
	release, err := budget.enqueue(httptest.NewRecorder()).acquireDecoding(t.Context(), large)
	require.NoError(t, err)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()

	_, err = budget.enqueue(httptest.NewRecorder()).acquireDecoding(canceled, large)
	require.ErrorIs(t, err, errOverloaded)
	releaseSmall, err := budget.enqueue(httptest.NewRecorder()).acquireDecoding(t.Context(), []byte("{}"))
	require.NoError(t, err, "small reviews have a semaphore of their own")
	releaseSmall()
	release()
	release, err = budget.enqueue(httptest.NewRecorder()).acquireDecoding(t.Context(), large)
	require.NoError(t, err)
	release()
}

func TestDecodedSizeIgnoresTextInStrings(t *testing.T) {
	for body, want := range map[string]int{
		"":           0,
		"{}":         2*2 + 1<<10,
		"[1,2]":      2*5 + 1<<10 + 128,
		`"{[,"`:      2 * 5,
		`"\"{",[`:    2*7 + 128 + 1<<10,
		`"unclosed[`: 2 * 10,
	} {
		assert.Equal(t, want, decodedSize([]byte(body)), body)
	}
}
