package istioca

import (
	"sync"
	"time"
)

// limitMemory is how long a refused lifetime is not asked for again.
// Certificates live for a day where nobody changed that, so a larger limit is
// noticed at the next renewal.
const limitMemory = time.Hour

// limits remembers by address which lifetimes an authority refuses, so that not
// every renewal costs two calls.
type limits struct {
	mu    sync.Mutex
	known map[string]limit
}

type limit struct {
	// refused is the least lifetime that was refused.
	refused time.Duration
	until   time.Time
}

// refuses says whether the authority is known to refuse a lifetime.
func (l *limits) refuses(address string, ttl time.Duration, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.known[address]
	if ok && !now.Before(known.until) {
		delete(l.known, address)
		return false
	}
	return ok && ttl >= known.refused
}

// remember notes a refusal.
func (l *limits) remember(address string, ttl time.Duration, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = make(map[string]limit)
	}
	if known, ok := l.known[address]; ok && now.Before(known.until) {
		ttl = min(ttl, known.refused)
	}
	l.known[address] = limit{refused: ttl, until: now.Add(limitMemory)}
}
