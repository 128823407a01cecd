package certpair

import (
	"context"
	"time"
)

// Interval is how often a folder is read. A kubelet swaps a link and Istio's agent
// renames files; reading them costs less than telling those apart.
const Interval = 250 * time.Millisecond

// Watch reads a folder until ctx ends, and calls changed with every pair that is
// whole and other than current and the ones before. While changed fails it is
// called again. What is wrong is told once, until it is another thing or nothing.
func Watch(ctx context.Context, folder string, current *Pair, changed func(*Pair) error, report func(error)) {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	lastReported := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		found, err := Load(folder, time.Now())
		if err == nil && !found.Equal(current) {
			if err = changed(found); err == nil {
				current = found
			}
		}
		problem := ""
		if err != nil {
			problem = err.Error()
		}
		if problem != lastReported && problem != "" {
			report(err)
		}
		lastReported = problem
	}
}
