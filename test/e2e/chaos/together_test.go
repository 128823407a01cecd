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

// fault is one of those that do not disturb each other.
type fault struct {
	name string
	body func(context.Context, *Trial)
}

// together is trial for faults that happen at the same time, to save some: each has
// a namespace and a row of its own. What was lost counts for all of them, as nobody
// can tell whose it was.
func together(t *testing.T, faults ...fault) {
	t.Helper()
	rows := make([]row, len(faults))
	trial(t, "together", func(_ context.Context, tr *Trial) {
		var done sync.WaitGroup
		for i, f := range faults {
			done.Go(func() {
				tr.T.Run(f.name, func(t *testing.T) {
					part := &Trial{T: t, Namespace: fmt.Sprintf("%s-%d", tr.Namespace, i+1), Pods: tr.Pods, row: row{trial: f.name}}
					begun := time.Now()
					defer func() {
						for _, l := range part.ledger {
							assert.Empty(part, l.InvalidVersions(), "versions of a Secret that are no bundle")
						}
						part.row.took, part.row.failure = time.Since(begun), failure(t.Failed())
						rows[i] = part.row
					}()
					f.body(t.Context(), part)
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
		each.trial, each.took, each.healed = r.trial, r.took, append(r.healed, shared.healed...)
		each.failure = r.failure || shared.failure
		each.requests += r.requests
		each.failed += r.failed
		each.certificates += r.certificates
		each.wrong += r.wrong
		each.gap = max(each.gap, r.gap)
		results.rows = append(results.rows, each)
	}
}

// TestTogether is what one edge, one namespace or one Secret suffers from.
func TestTogether(t *testing.T) {
	together(t,
		fault{"Secret deleted or overwritten", secretByHand},
		fault{"label toggled", labelToggled},
		fault{"namespace deleted", namespaceDeleted},
		fault{"publisher killed", publisherKilled},
		fault{"certificate directory filled", directoryFilled},
	)
}
