package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestWaitFor(t *testing.T) {
	busy := errors.New("busy")
	asked := 0
	answers := func(errs ...error) func() error {
		asked = 0
		return func() error {
			asked++
			return errs[min(asked, len(errs))-1]
		}
	}
	assert.NoError(t, waitFor(t.Context(), time.Minute, answers(busy, nil)))
	assert.Equal(t, 2, asked, "if it is ready, expect no further question")

	assert.ErrorIs(t, waitFor(t.Context(), 0, answers(busy)), busy)
	ended := fmt.Errorf("istiod %w: exit status 1", errExited)
	assert.ErrorIs(t, waitFor(t.Context(), time.Minute, answers(busy, ended, nil)), errExited)
	assert.Equal(t, 2, asked, "if it has ended, expect no further question")

	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	err := waitFor(interrupted, time.Minute, answers(busy))
	assert.ErrorIs(t, err, context.Canceled)
	assert.ErrorIs(t, err, busy)
}
