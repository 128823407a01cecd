//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// fault is a fault that can happen at the same time as others.
type fault struct {
	name string
	run  func(context.Context, *Trial)
}

// runConcurrently runs one trial with several faults at the same time, which saves time.
// Each fault has its own namespace and row. Lost requests count for all of them, because
// their cause is unknown.
func runConcurrently(t *testing.T, faults ...fault) {
	t.Helper()
	rows := make([]row, len(faults))
	trial(t, "together", func(_ context.Context, tr *Trial) {
		var done sync.WaitGroup
		for i, f := range faults {
			done.Go(func() {
				tr.T.Run(f.name, func(t *testing.T) {
					subtrial := &Trial{T: t, Namespace: fmt.Sprintf("%s-%d", tr.Namespace, i+1), Pods: tr.Pods, row: row{trial: f.name}}
					start := time.Now()
					defer func() {
						for _, history := range subtrial.histories {
							assert.Empty(subtrial, history.InvalidVersions(), "invalid versions of a Secret")
						}
						subtrial.row.took, subtrial.row.failure = time.Since(start), failure(t.Failed())
						rows[i] = subtrial.row
					}()
					f.run(t.Context(), subtrial)
				})
			})
		}
		done.Wait()
	})
	last := len(results.rows) - 1
	shared := results.rows[last]
	results.rows = results.rows[:last]
	for _, r := range rows {
		each := shared
		each.trial, each.took, each.recoveries = r.trial, r.took, append(r.recoveries, shared.recoveries...)
		each.failure = r.failure || shared.failure
		each.requests += r.requests
		each.failed += r.failed
		each.certificates += r.certificates
		each.wrong += r.wrong
		each.gap = max(each.gap, r.gap)
		results.rows = append(results.rows, each)
	}
}

// TestConcurrentFaults runs the faults that affect one edge, one namespace or one Secret.
func TestConcurrentFaults(t *testing.T) {
	runConcurrently(t,
		fault{"Secret deleted or overwritten", secretDeletedOrOverwritten},
		fault{"label toggled", labelToggled},
		fault{"namespace deleted", namespaceDeleted},
		fault{"publisher killed", publisherKilled},
		fault{"certificate directory filled", directoryFilled},
	)
}
