package istioca

import (
	"sync"
	"time"
)

// refusalTTL is how long a refused lifetime is not requested again. Certificates live
// for a day by default, so the next renewal finds a larger limit.
const refusalTTL = time.Hour

// lifetimeLimits caches by address which lifetimes an authority refuses, so that a
// renewal does not need two calls.
type lifetimeLimits struct {
	mu        sync.Mutex
	byAddress map[string]lifetimeLimit
}

type lifetimeLimit struct {
	// refused is the shortest lifetime that was refused.
	refused time.Duration
	expires time.Time
}

// refuses reports whether the authority has refused this lifetime or a shorter one.
func (l *lifetimeLimits) refuses(address string, ttl time.Duration, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.byAddress[address]
	if ok && !now.Before(known.expires) {
		delete(l.byAddress, address)
		return false
	}
	return ok && ttl >= known.refused
}

// add records a refusal.
func (l *lifetimeLimits) add(address string, ttl time.Duration, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byAddress == nil {
		l.byAddress = make(map[string]lifetimeLimit)
	}
	if known, ok := l.byAddress[address]; ok && now.Before(known.expires) {
		ttl = min(ttl, known.refused)
	}
	l.byAddress[address] = lifetimeLimit{refused: ttl, expires: now.Add(refusalTTL)}
}
