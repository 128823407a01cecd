package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

// publishLoop publishes the bundles of a directory into one Secret.
type publishLoop struct {
	publisher *publish.Publisher
	target    publish.Target // without roots
	roots     rootsFile
	schedule  schedule
	log       *slog.Logger
	// versions receives the versions of the Secret that the API server announces, and an
	// empty one when it was deleted; version is the one that was read or written last.
	versions <-chan string
	version  string
	// warnings are the last warnings that were logged, by kind.
	warnings events.Latest
}

// bundles is implemented by certs.Directory.
type bundles interface {
	Latest() *certs.Bundle
	Changed() <-chan struct{}
}

// run publishes until ctx ends: immediately when the directory has another bundle, when
// the Secret's certificate is due, soon after somebody else has changed the Secret, and
// at the check interval. Errors do not end it.
func (l *publishLoop) run(ctx context.Context, directory bundles) {
	timer := time.NewTimer(l.schedule.regularDelay())
	defer timer.Stop()
	isSoon := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-directory.Changed():
		case <-timer.C:
		case version := <-l.versions:
			if !isSoon && l.isElses(version) {
				isSoon = true
				timer.Reset(l.schedule.afterChange())
			}
			continue
		}
		isSoon = false
		delay := l.publish(ctx, directory.Latest())
		if ctx.Err() != nil {
			return
		}
		timer.Reset(delay)
	}
}

// isElses reports whether an announced version of the Secret is somebody else's.
func (l *publishLoop) isElses(version string) bool { return version == "" || version != l.version }

// publish makes one attempt and returns the delay before the next one.
func (l *publishLoop) publish(ctx context.Context, bundle *certs.Bundle) time.Duration {
	target := l.target
	var err error
	if target.Roots, err = l.roots.read(); err == nil {
		l.warnings.Delete("roots")
	} else {
		l.warnOnce("roots", "cannot read the mesh's root certificates", err, "reason", "roots")
	}
	if target.Roots == nil {
		return l.schedule.backoff()
	}
	out, err := l.publisher.Publish(ctx, target, bundle, publish.WhenDue)
	if ctx.Err() != nil {
		return 0
	}
	l.version = out.Observation.ResourceVersion()
	if err != nil {
		l.warnOnce("publish", "not published", err, "result", out.Result, "reason", out.Cause)
	} else {
		l.logOutcome(out)
	}
	if out.Result == publish.Failed {
		return l.schedule.backoff()
	}
	l.schedule.resetBackoff()
	return l.schedule.delay(out.NextCheck, time.Now())
}

func (l *publishLoop) logOutcome(out publish.Outcome) {
	l.warnings.Delete("publish")
	level, message := slog.LevelDebug, "nothing to do"
	if out.Result == publish.Published {
		level, message = slog.LevelInfo, "published"
	}
	fields := []any{"result", out.Result, "reason", out.Cause, "conflicts", out.Conflicts}
	if b := out.Observation.Bundle; b != nil {
		fields = append(fields, "serial", b.Serial(), "notAfter", b.NotAfter(), "renewAfter", out.Observation.RenewAfter)
	}
	l.log.Log(context.Background(), level, message, fields...)
}

// warnOnce logs an error as a warning, or at debug level when it is the same as the
// last one of its kind.
func (l *publishLoop) warnOnce(kind, message string, err error, fields ...any) {
	warning := err.Error()
	if reason := certs.ReasonOf(err); reason != "" {
		warning = string(reason) // the text contains the time
	}
	level := slog.LevelDebug
	if l.warnings.Replace(kind, warning) {
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, message, append(fields, "error", err.Error())...)
}
