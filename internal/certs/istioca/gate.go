package istioca

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// maxCalls is how many requests an authority gets at a time. The controller has more
// workers than that, so an authority that accepts connections and never answers does
// not hold up work that needs no authority.
const maxCalls = 4

// gate limits the requests to one authority: maxCalls at a time, and one at a time,
// as a probe, from a request that was not answered until one is. It is safe for
// concurrent use.
type gate struct {
	// onAvailable is called when the authority answers again.
	onAvailable func()
	// patience is Options.Patience.
	patience time.Duration

	mu    sync.Mutex
	calls int
	// left is closed, and replaced, when a call leaves.
	left chan struct{}
	// unanswered is the error of the last request if it was not answered; else nil.
	unanswered *Error
	// since is when the present attempts to connect began; zero while connected.
	since time.Time
	// isAwaited is true while a goroutine waits for the connection.
	isAwaited bool
}

// enter waits for its turn, for at most Options.Patience. Without an error the caller calls
// leave. The error is the last request's if that was not answered, and certs.ErrBusy if
// the authority is busy.
func (g *gate) enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.patience)
	defer cancel()
	for {
		g.mu.Lock()
		limit := maxCalls
		if g.unanswered != nil {
			limit = 1
		}
		if g.calls < limit {
			g.calls++
			g.mu.Unlock()
			return nil
		}
		if g.left == nil {
			g.left = make(chan struct{})
		}
		left, unanswered := g.left, g.unanswered
		g.mu.Unlock()
		if unanswered != nil {
			return unanswered
		}
		select {
		case <-left:
		case <-ctx.Done():
			return fmt.Errorf("%w: it has %d requests to answer and gets no more at a time", certs.ErrBusy, maxCalls)
		}
	}
}

// leave ends a call that entered. Whether the authority answered follows from the
// error of the call.
func (g *gate) leave(err error) {
	g.mu.Lock()
	g.calls--
	if g.left != nil {
		close(g.left)
		g.left = nil
	}
	before := g.unanswered
	var failure *Error
	errors.As(err, &failure)
	switch ReasonOf(err) {
	case Unavailable, Untrusted:
		g.unanswered = failure
	case TokenForbidden, AccountMissing, TokenFailed, NoRoots, Canceled, Internal, Busy:
		// The authority was not asked, or nobody waited for the answer.
	case Unauthenticated, Refused, Rejected, "":
		g.unanswered = nil
	}
	isBack := before != nil && g.unanswered == nil
	g.mu.Unlock()
	if isBack {
		g.onAvailable()
	}
}

// connecting returns when the present attempts to connect began.
func (g *gate) connecting(now time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.since.IsZero() {
		g.since = now
	}
	return g.since
}

// connected notes that the connection stands. Requests that failed because the last one
// was not answered hear of it here, unless a goroutine that waits for the connection
// tells them.
func (g *gate) connected() {
	g.mu.Lock()
	isBack := g.unanswered != nil && !g.isAwaited
	g.since, g.unanswered = time.Time{}, nil
	g.mu.Unlock()
	if isBack {
		g.onAvailable()
	}
}

// beginAwaiting reports whether the caller is to wait for the connection: no other
// goroutine does.
func (g *gate) beginAwaiting() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.isAwaited
	g.isAwaited = true
	return !before
}

// endAwaiting ends the wait for the connection.
func (g *gate) endAwaiting(isConnected bool) {
	g.mu.Lock()
	g.isAwaited = false
	if isConnected {
		g.since, g.unanswered = time.Time{}, nil
	}
	g.mu.Unlock()
	if isConnected {
		g.onAvailable()
	}
}
