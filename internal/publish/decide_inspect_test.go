package publish_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/publish"
)

const serial = "isthmus.dev/serial"

func TestInspectFindsTheState(t *testing.T) {
	mesh, otherMesh := newMesh(t), newMesh(t)
	good := mesh.bundle(0, 24*time.Hour)
	otherEdge := mesh.bundleFor(other, 0, 24*time.Hour, mesh)
	yes := true
	for name, test := range map[string]struct {
		secret *corev1.Secret
		at     time.Duration
		state  publish.State
		err    string
	}{
		"if there is none, expect absent":       {nil, 0, publish.Absent, ""},
		"if it was just published, expect good": {published(t, good, target(mesh), 0, nil), 0, publish.Good, ""},
		"if it is about to expire, expect bad":  {published(t, good, target(mesh), 0, nil), 24*time.Hour - 59*time.Second, publish.Bad, "expired: valid until"},
		"if our clock is behind, expect bad":    {published(t, good, target(mesh), 0, nil), -time.Hour, publish.Bad, "not-yet-valid: valid from"},
		"if the key belongs to another certificate, expect bad": {published(t, good, target(mesh), 0, func(s *corev1.Secret) {
			s.Data["tls.key"] = mesh.bundle(0, 24*time.Hour).Key()
		}), 0, publish.Bad, "key-mismatch: "},
		"if the data is gone, expect bad": {published(t, good, target(mesh), 0, func(s *corev1.Secret) {
			s.Data = nil
		}), 0, publish.Bad, "malformed: "},
		"if another mesh signed it, expect bad although the Secret holds its root": {
			published(t, otherMesh.bundle(0, 24*time.Hour), target(otherMesh), 0, nil), 0, publish.Bad, "untrusted: ",
		},
		"if the label names another manager, expect foreign": {published(t, good, target(mesh), 0, func(s *corev1.Secret) {
			s.Labels["app.kubernetes.io/managed-by"] = "Helm"
		}), 0, publish.Foreign, `secret edge/istio-certs (type kubernetes.io/tls) is not managed by Isthmus: app.kubernetes.io/managed-by is "Helm"; annotate it isthmus.dev/adopt: "true" to give it to Isthmus, or choose another Secret name with isthmus.dev/secret-name`},
		"if there is no label, expect foreign": {published(t, good, target(mesh), 0, func(s *corev1.Secret) {
			s.Labels = nil
		}), 0, publish.Foreign, "is not managed by Isthmus: it has no label app.kubernetes.io/managed-by; annotate"},
		"if it was adopted, expect good": {published(t, good, target(mesh), 0, func(s *corev1.Secret) {
			s.Labels, s.Annotations["isthmus.dev/adopt"] = nil, "true"
		}), 0, publish.Good, ""},
		"if the adopt annotation is not true, expect foreign": {published(t, good, target(mesh), 0, func(s *corev1.Secret) {
			s.Labels, s.Annotations["isthmus.dev/adopt"] = nil, "yes"
		}), 0, publish.Foreign, "is not managed by Isthmus"},
		"if it is immutable, expect that": {published(t, good, target(mesh), 0, func(s *corev1.Secret) {
			s.Immutable = &yes
		}), 0, publish.Immutable, "secret edge/istio-certs is immutable, so its certificate cannot be renewed: delete it, and Isthmus creates it again"},
		"if it is foreign and immutable, expect foreign": {published(t, good, target(mesh), 0, func(s *corev1.Secret) {
			s.Immutable, s.Labels = &yes, nil
		}), 0, publish.Foreign, "is not managed by Isthmus"},
		"if it holds another edge's certificate, expect other identity": {published(t, otherEdge, target(mesh), 0, nil), 0, publish.OtherIdentity,
			"secret edge/istio-certs holds a certificate of " + other + " that is valid until " + after(24*time.Hour).UTC().Format(time.RFC3339) +
				", but this edge needs one of " + edge + ": two edges with two service accounts need two Secrets; choose another name with isthmus.dev/secret-name"},
		"if another edge's certificate has expired, expect bad": {published(t, otherEdge, target(mesh), 0, nil), 25 * time.Hour, publish.Bad, "wrong-identity: "},
		"if another edge's certificate is of another mesh, expect bad": {
			published(t, otherMesh.bundleFor(other, 0, 24*time.Hour, otherMesh), target(otherMesh), 0, nil), 0, publish.Bad, "wrong-identity: ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := publish.Inspect(test.secret, target(mesh), after(test.at))
			assert.Equal(t, test.state, got.State)
			if test.err == "" {
				assert.NoError(t, got.Err)
			} else {
				assert.ErrorContains(t, got.Err, test.err)
			}
			assert.Equal(t, test.state == publish.Good || test.state == publish.Immutable, got.Bundle != nil, "the Secret holds a bundle")
		})
	}
}

func TestInspectFindsTheRenewalPoint(t *testing.T) {
	m := newMesh(t)
	day, minute := m.bundle(0, 24*time.Hour), m.bundle(0, time.Minute)
	annotated := func(value string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.Annotations["isthmus.dev/renew-after"] = value }
	}
	at := func(d time.Duration) func(*corev1.Secret) { return annotated(after(d).UTC().Format(time.RFC3339)) }
	for name, test := range map[string]struct {
		secret *corev1.Secret
		expect time.Duration
	}{
		"if it was published at once, expect a third of its life":          {published(t, day, target(m), 0, nil), 8 * time.Hour},
		"if it was published late, expect a third of the rest":             {published(t, day, target(m), 6*time.Hour, nil), 12 * time.Hour},
		"if it was published very late, expect no more than two thirds":    {published(t, day, target(m), 18*time.Hour, nil), 16 * time.Hour},
		"if it lives a minute and is backdated by two, expect a third too": {published(t, minute, target(m), 0, nil), 20 * time.Second},
		"if the annotation is missing, expect a third":                     {published(t, day, target(m), 6*time.Hour, annotated("")), 8 * time.Hour},
		"if the annotation is no time, expect a third":                     {published(t, day, target(m), 6*time.Hour, annotated("never")), 8 * time.Hour},
		"if the annotation is years away, expect two thirds":               {published(t, day, target(m), 0, at(10000*time.Hour)), 16 * time.Hour},
		"if the annotation is before the certificate, expect a third":      {published(t, day, target(m), 0, at(-time.Hour)), 8 * time.Hour},
		"if the annotation is earlier than a third, expect it":             {published(t, day, target(m), 0, at(time.Hour)), time.Hour},
		"if the annotation is about another certificate, expect a third": {published(t, day, target(m), 6*time.Hour, func(s *corev1.Secret) {
			s.Annotations[serial] = "1"
		}), 8 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			got := publish.Inspect(test.secret, target(m), after(0))
			assert.Equal(t, after(test.expect).UTC(), got.RenewAfter.UTC())
		})
	}
}

func TestNeedsCertificateWhenAbsentBadOrDue(t *testing.T) {
	m := newMesh(t)
	secret := published(t, m.bundle(0, 24*time.Hour), target(m), 0, nil)
	for at, expect := range map[time.Duration]bool{0: false, 8*time.Hour - time.Second: false, 8 * time.Hour: true, 25 * time.Hour: true} {
		assert.Equal(t, expect, publish.Inspect(secret, target(m), after(at)).NeedsCertificate(after(at)), at)
	}
	assert.True(t, publish.Inspect(nil, target(m), start).NeedsCertificate(start))
	secret.Labels = nil
	assert.False(t, publish.Inspect(secret, target(m), start).NeedsCertificate(after(25*time.Hour)), "a Secret that Isthmus does not manage needs nothing")
}
