package certpair

import (
	"context"
	"time"
)

// Interval is how often Watch reads a folder. A kubelet replaces a symbolic link,
// Istio's agent renames files; reading the files is simpler than watching for both.
const Interval = 250 * time.Millisecond

// Watch reads a folder until ctx ends, and calls changed with every valid pair that
// differs from the current one. If changed fails, it is called again at the next
// interval. An error of Load or changed is reported once, until it changes or ends.
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
