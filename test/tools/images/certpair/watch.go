package certpair

import (
	"context"
	"time"
)

// Every is how often a folder is read. A kubelet swaps a link and Istio's agent
// renames files; reading them costs less than telling those apart.
const Every = 250 * time.Millisecond

// Follow reads a folder until ctx ends, and calls changed with every pair that is
// whole and other than current and the ones before. While changed fails it is
// called again. What is wrong is told once, until it is another thing or nothing.
func Follow(ctx context.Context, folder string, current *Pair, changed func(*Pair) error, tell func(error)) {
	ticker := time.NewTicker(Every)
	defer ticker.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		found, err := Load(folder, time.Now())
		if err == nil && !found.Same(current) {
			if err = changed(found); err == nil {
				current = found
			}
		}
		said := ""
		if err != nil {
			said = err.Error()
		}
		if said != told && said != "" {
			tell(err)
		}
		told = said
	}
}
