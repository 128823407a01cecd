package publish_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/publish"
)

const serial = "isthmus.dev/serial"

func TestInspect(t *testing.T) {
	ours, theirs := newMesh(t), newMesh(t)
	good := ours.bundle(0, 24*time.Hour)
	foreigner := ours.bundleFor(other, 0, 24*time.Hour, ours)
	yes := true
	for name, test := range map[string]struct {
		secret *corev1.Secret
		at     time.Duration
		state  publish.State
		err    string
	}{
		"if there is none, expect absent":      {nil, 0, publish.Absent, ""},
		"if it was just written, expect good":  {published(t, good, target(ours), 0, nil), 0, publish.Good, ""},
		"if it is about to expire, expect bad": {published(t, good, target(ours), 0, nil), 24*time.Hour - 59*time.Second, publish.Bad, "expired: valid until"},
		"if our clock is behind, expect bad":   {published(t, good, target(ours), 0, nil), -time.Hour, publish.Bad, "not-yet-valid: valid from"},
		"if the key is another's, expect bad": {published(t, good, target(ours), 0, func(s *corev1.Secret) {
			s.Data["tls.key"] = ours.bundle(0, 24*time.Hour).Key()
		}), 0, publish.Bad, "key-mismatch: "},
		"if the data is gone, expect bad": {published(t, good, target(ours), 0, func(s *corev1.Secret) {
			s.Data = nil
		}), 0, publish.Bad, "malformed: "},
		"if another mesh signed it, expect bad although its root lies beside it": {
			published(t, theirs.bundle(0, 24*time.Hour), target(theirs), 0, nil), 0, publish.Bad, "untrusted: ",
		},
		"if the label is not ours, expect foreign": {published(t, good, target(ours), 0, func(s *corev1.Secret) {
			s.Labels["app.kubernetes.io/managed-by"] = "Helm"
		}), 0, publish.Foreign, `secret edge/istio-certs (type kubernetes.io/tls) is not ours: app.kubernetes.io/managed-by is "Helm"; annotate it isthmus.dev/adopt: "true" to give it to Isthmus, or choose another name by isthmus.dev/secret-name`},
		"if there is no label, expect foreign": {published(t, good, target(ours), 0, func(s *corev1.Secret) {
			s.Labels = nil
		}), 0, publish.Foreign, "is not ours: nobody says who manages it; annotate"},
		"if its owner gave it to us, expect good": {published(t, good, target(ours), 0, func(s *corev1.Secret) {
			s.Labels, s.Annotations["isthmus.dev/adopt"] = nil, "true"
		}), 0, publish.Good, ""},
		"if the annotation says something else, expect foreign": {published(t, good, target(ours), 0, func(s *corev1.Secret) {
			s.Labels, s.Annotations["isthmus.dev/adopt"] = nil, "yes"
		}), 0, publish.Foreign, "is not ours"},
		"if it is immutable, expect that": {published(t, good, target(ours), 0, func(s *corev1.Secret) {
			s.Immutable = &yes
		}), 0, publish.Immutable, "secret edge/istio-certs is immutable, nobody can renew what is in it: delete it, and it is written anew"},
		"if it is foreign and immutable, expect foreign": {published(t, good, target(ours), 0, func(s *corev1.Secret) {
			s.Immutable, s.Labels = &yes, nil
		}), 0, publish.Foreign, "is not ours"},
		"if another edge's is in it, expect other identity": {published(t, foreigner, target(ours), 0, nil), 0, publish.OtherIdentity,
			"secret edge/istio-certs holds a certificate of " + other + " that is valid until " + after(24*time.Hour).UTC().Format(time.RFC3339) +
				", and " + edge + " is wanted: two edges with two service accounts need two names, see isthmus.dev/secret-name"},
		"if another edge's has expired, expect bad": {published(t, foreigner, target(ours), 0, nil), 25 * time.Hour, publish.Bad, "wrong-identity: "},
		"if another edge's is of another mesh, expect bad": {
			published(t, theirs.bundleFor(other, 0, 24*time.Hour, theirs), target(theirs), 0, nil), 0, publish.Bad, "wrong-identity: ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := publish.Inspect(test.secret, target(ours), after(test.at))
			assert.Equal(t, test.state, got.State)
			if test.err == "" {
				assert.NoError(t, got.Err)
			} else {
				assert.ErrorContains(t, got.Err, test.err)
			}
			assert.Equal(t, test.state == publish.Good || test.state == publish.Immutable, got.Bundle != nil, "a bundle is in it")
		})
	}
}

func TestRenewalPoint(t *testing.T) {
	m := newMesh(t)
	day, minute := m.bundle(0, 24*time.Hour), m.bundle(0, time.Minute)
	says := func(value string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.Annotations["isthmus.dev/renew-after"] = value }
	}
	at := func(d time.Duration) func(*corev1.Secret) { return says(after(d).UTC().Format(time.RFC3339)) }
	for name, test := range map[string]struct {
		secret *corev1.Secret
		expect time.Duration
	}{
		"if it was published at once, expect a third of its life":           {published(t, day, target(m), 0, nil), 8 * time.Hour},
		"if it was published late, expect a third of the rest":              {published(t, day, target(m), 6*time.Hour, nil), 12 * time.Hour},
		"if it was published very late, expect no more than two thirds":     {published(t, day, target(m), 18*time.Hour, nil), 16 * time.Hour},
		"if it lives a minute and is dated back by two, expect a third too": {published(t, minute, target(m), 0, nil), 20 * time.Second},
		"if there is no annotation, expect a third":                         {published(t, day, target(m), 6*time.Hour, says("")), 8 * time.Hour},
		"if the annotation is no time, expect a third":                      {published(t, day, target(m), 6*time.Hour, says("never")), 8 * time.Hour},
		"if it is years away, expect two thirds":                            {published(t, day, target(m), 0, at(10000*time.Hour)), 16 * time.Hour},
		"if it is before the certificate, expect a third":                   {published(t, day, target(m), 0, at(-time.Hour)), 8 * time.Hour},
		"if it is sooner than a third, expect it":                           {published(t, day, target(m), 0, at(time.Hour)), time.Hour},
		"if it is about another certificate, expect a third": {published(t, day, target(m), 6*time.Hour, func(s *corev1.Secret) {
			s.Annotations[serial] = "1"
		}), 8 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			got := publish.Inspect(test.secret, target(m), after(0))
			assert.Equal(t, after(test.expect).UTC(), got.RenewAfter.UTC())
		})
	}
}

func TestNeeds(t *testing.T) {
	m := newMesh(t)
	secret := published(t, m.bundle(0, 24*time.Hour), target(m), 0, nil)
	for at, expect := range map[time.Duration]bool{0: false, 8*time.Hour - time.Second: false, 8 * time.Hour: true, 25 * time.Hour: true} {
		assert.Equal(t, expect, publish.Inspect(secret, target(m), after(at)).Needs(after(at)), at)
	}
	assert.True(t, publish.Inspect(nil, target(m), start).Needs(start))
	secret.Labels = nil
	assert.False(t, publish.Inspect(secret, target(m), start).Needs(after(25*time.Hour)), "what is not ours needs nothing of us")
}
