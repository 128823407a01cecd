package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/events"
)

// errEnded says that publishing ended without an error although nobody asked for it.
var errEnded = errors.New("it ended without an error")

// supervise runs publish until ctx ends. When publish ends before, with an error or a
// panic, it logs that and runs publish again.
func supervise(ctx context.Context, log *slog.Logger, publish func(context.Context) error) {
	retries := schedule{random: rand.Float64}
	var warnings events.Latest
	for {
		began := time.Now()
		err := recovered(func() error { return publish(ctx) })
		if ctx.Err() != nil {
			log.Info("stopped")
			return
		}
		if time.Since(began) > maxBackoff {
			retries.resetBackoff()
			warnings = events.Latest{}
		}
		if err == nil {
			err = errEnded
		}
		level, text := slog.LevelDebug, err.Error()
		if warnings.Replace("publish", text) {
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "cannot publish; trying again", "error", text)
		select {
		case <-ctx.Done():
		case <-time.After(retries.backoff()):
		}
	}
}

// recovered runs f. A panic becomes an error with the stack.
func recovered(f func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	return f()
}
