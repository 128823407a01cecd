package publish

import (
	"bytes"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// renewAfter returns when the bundle in a Secret is due to be replaced. An
// annotation holds that time, because it depends on when the bundle was published,
// and nothing in the bundle says so. Everyone who may edit the Secret may edit the
// annotation: it counts only for this certificate, and only between the beginning
// of the validity and two thirds of the life. Otherwise the bundle is due at a
// third of its life.
func renewAfter(secret *corev1.Secret, b *certs.Bundle) time.Time {
	at, err := time.Parse(time.RFC3339, secret.Annotations[policy.RenewAfterKey])
	latest := thirdsOfLife(b, 2)
	switch {
	case err != nil, secret.Annotations[policy.SerialKey] != b.Serial(), at.Before(b.NotBefore()):
		return thirdsOfLife(b, 1)
	case at.After(latest):
		return latest
	}
	return at
}

// renewAfterPublishing returns when a bundle that is published now is due to be
// replaced: at a third of its remaining life, and at two thirds of its whole life
// at the latest.
func renewAfterPublishing(b *certs.Bundle, now time.Time) time.Time {
	renew := now.Add(b.NotAfter().Sub(now) / 3)
	if latest := thirdsOfLife(b, 2); renew.After(latest) {
		return latest
	}
	return renew
}

// renewBy brings the renewal point of a certificate that stays forward, when its roots
// change and at is not zero.
func (d Decision) renewBy(at time.Time) Decision {
	if d.Cause == CauseRoots && !at.IsZero() && at.Before(d.RenewAfter) {
		d.RenewAfter, d.NextCheck = at, at
	}
	return d
}

// thirdsOfLife returns the time at which the given number of thirds of a bundle's life
// are over.
func thirdsOfLife(b *certs.Bundle, thirds time.Duration) time.Time {
	return b.Issued().Add(b.NotAfter().Sub(b.Issued()) * thirds / 3)
}

// isNewer reports whether the candidate was issued later, even for a shorter life, as
// after the lifetime was reduced. Of two that were issued at the same moment, the
// one that lives longer is newer, or a different one that lives as long.
func isNewer(candidate, current *certs.Bundle) bool {
	if !candidate.NotBefore().Equal(current.NotBefore()) {
		return candidate.NotBefore().After(current.NotBefore())
	}
	return candidate.NotAfter().After(current.NotAfter()) ||
		candidate.NotAfter().Equal(current.NotAfter()) && !sameKeyAndChain(candidate, current)
}

func sameKeyAndChain(a, b *certs.Bundle) bool {
	return bytes.Equal(a.Chain(), b.Chain()) && bytes.Equal(a.Key(), b.Key())
}

// livesLonger reports whether the candidate's remaining life is at least a tenth
// longer.
func livesLonger(candidate, current *certs.Bundle, now time.Time) bool {
	return 10*candidate.NotAfter().Sub(now) >= 11*current.NotAfter().Sub(now)
}

// whenLivesLonger returns when livesLonger will be true of a candidate that
// expires later: ten times the difference before the current bundle expires. It is
// at the latest when the current bundle is no longer useful.
func whenLivesLonger(candidate, current *certs.Bundle, now time.Time) time.Time {
	end := current.UsefulUntil()
	difference := candidate.NotAfter().Sub(current.NotAfter())
	if difference <= 0 {
		return end
	}
	at := current.NotAfter().Add(-10 * difference)
	if at.Before(now) || at.After(end) {
		return end
	}
	return at
}
