package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

const (
	// firstRetry is the wait after the first failure; it doubles up to lastRetry.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 10 * time.Second
	// spread is over how long replicas whose renewal point is the same spread
	// their looks, but for short-lived certificates.
	spread = 10 * time.Second
	// soonest keeps a renewal point that is over from being looked at without end.
	soonest = time.Second
)

// follower publishes what a directory holds.
type follower struct {
	publisher *publish.Publisher
	target    publish.Target // without roots
	roots     rootsFile
	// every is the time between two looks when nothing happens.
	every time.Duration
	log   *slog.Logger
	// random is from 0 to 1.
	random func() float64

	failures int
	said     map[string]string // the trouble of each kind that was logged last
}

// bundles is certs.Directory.
type bundles interface {
	Latest() *certs.Bundle
	Changed() <-chan struct{}
}

// run publishes when the directory has another bundle, at once; when what the
// Secret holds is due; and now and then, because somebody may have deleted or
// damaged the Secret. Errors are no reason to end.
func (f *follower) run(ctx context.Context, directory bundles) {
	timer := time.NewTimer(f.jitter(f.every))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-directory.Changed():
		case <-timer.C:
		}
		wait := f.publish(ctx, directory.Latest())
		if ctx.Err() != nil {
			return
		}
		timer.Reset(wait)
	}
}

// publish makes one attempt and returns when to make the next.
func (f *follower) publish(ctx context.Context, bundle *certs.Bundle) time.Duration {
	target := f.target
	var err error
	if target.Roots, err = f.roots.read(); err == nil {
		delete(f.said, "roots")
	} else {
		f.complain("roots", "no roots of the mesh to be read", err, "reason", "roots")
	}
	if target.Roots == nil {
		return f.retry()
	}
	out, err := f.publisher.Publish(ctx, target, bundle, publish.WhenDue)
	if ctx.Err() != nil {
		return 0
	}
	switch {
	case out.Result == publish.Failed:
		f.complain("publish", "not published", err, "result", out.Result, "reason", out.Cause)
		return f.retry()
	case err != nil:
		f.complain("publish", "not published", err, "result", out.Result, "reason", out.Cause)
	default:
		f.report(out)
	}
	f.failures = 0
	return f.next(out.NextCheck, time.Now())
}

// next spreads the looks of replicas, which all see the same renewal point.
func (f *follower) next(again, now time.Time) time.Duration {
	wait := f.jitter(f.every)
	if again.IsZero() {
		return wait
	}
	due := max(again.Sub(now), soonest)
	due += time.Duration(f.random() * float64(min(spread, due/10)))
	return min(wait, due)
}

// retry doubles from firstRetry, spread over half of it.
func (f *follower) retry() time.Duration {
	wait := min(firstRetry<<min(f.failures, 16), lastRetry)
	f.failures++
	return wait/2 + time.Duration(f.random()*float64(wait/2))
}

// jitter is the duration, a fifth more or less.
func (f *follower) jitter(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(f.random()*float64(d)*2/5)
}

func (f *follower) report(out publish.Outcome) {
	delete(f.said, "publish")
	level, message := slog.LevelDebug, "nothing to do"
	if out.Result == publish.Published {
		level, message = slog.LevelInfo, "published"
	}
	fields := []any{"result", out.Result, "reason", out.Cause, "conflicts", out.Conflicts}
	if b := out.Observation.Bundle; b != nil {
		fields = append(fields, "serial", b.Serial(), "notAfter", b.NotAfter(), "renewAfter", out.Observation.RenewAfter)
	}
	f.log.Log(context.Background(), level, message, fields...)
}

// complain logs a trouble once for as long as the last of its kind is the same.
func (f *follower) complain(kind, message string, err error, fields ...any) {
	same := err.Error()
	if reason := certs.ReasonOf(err); reason != "" {
		same = string(reason) // the text has the time in it
	}
	level := slog.LevelWarn
	if f.said[kind] == same {
		level = slog.LevelDebug
	}
	f.said[kind] = same
	f.log.Log(context.Background(), level, message, append(fields, "error", err.Error())...)
}

// rootsFile holds the mesh's trust anchors.
type rootsFile struct {
	path string
	last []*x509.Certificate
}

// read returns the anchors, and with an error those of before.
func (r *rootsFile) read() ([]*x509.Certificate, error) {
	data, err := os.ReadFile(r.path)
	if err != nil {
		return r.last, err
	}
	roots, err := certs.ParseCertificates(data)
	if err != nil {
		return r.last, fmt.Errorf("%s: %w", r.path, err)
	}
	r.last = roots
	return roots, nil
}
