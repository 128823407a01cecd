package publish_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

func at(s publish.Secrets, d time.Duration) *publish.Publisher {
	return &publish.Publisher{Secrets: s, Now: func() time.Time { return after(d) }}
}

func TestPublishWritesEverythingAtOnce(t *testing.T) {
	m := newMesh(t)
	s, b := &store{}, m.bundle(0, 24*time.Hour)
	out, err := at(s, 3*time.Hour).Publish(t.Context(), target(m), b, publish.WhenDue)
	require.NoError(t, err)
	assert.Equal(t, publish.Published, out.Result)
	assert.Equal(t, publish.Good, out.Observation.State)
	assert.Equal(t, after(10*time.Hour).UTC(), out.Observation.RenewAfter.UTC())

	stamp := func(d time.Duration) string { return after(d).UTC().Format(time.RFC3339) }
	assert.Equal(t, []bool{false}, s.applies)
	assert.Equal(t, map[string]string{"app.kubernetes.io/managed-by": "isthmus"}, s.secret.Labels)
	assert.Equal(t, map[string]string{
		"isthmus.dev/spiffe-id": edge, "isthmus.dev/serial": b.Serial(), "isthmus.dev/source": "agent",
		"isthmus.dev/not-before": stamp(-2 * time.Minute), "isthmus.dev/not-after": stamp(24 * time.Hour), "isthmus.dev/renew-after": stamp(10 * time.Hour),
		"isthmus.dev/published-at": stamp(3 * time.Hour),
	}, s.secret.Annotations)
	assert.Equal(t, after(3*time.Hour).UTC().Truncate(time.Second), out.Observation.PublishedAt.UTC())
	assert.Equal(t, corev1.SecretTypeTLS, s.secret.Type)
	assert.Equal(t, map[string][]byte{"tls.crt": b.Chain(), "tls.key": b.Key(), "ca.crt": b.Roots(), "root-cert.pem": b.Roots()}, s.secret.Data)

	out, err = at(s, 4*time.Hour).Publish(t.Context(), target(m), m.bundle(0, 48*time.Hour), publish.WhenDue)
	require.NoError(t, err)
	assert.Equal(t, publish.Unchanged, out.Result)
	assert.Len(t, s.applies, 1)
}

// Only one of several writers knows the labels of the installation; the others keep what
// is there.
func TestPublishLabels(t *testing.T) {
	m := newMesh(t)
	s, b := &store{}, m.bundle(0, 24*time.Hour)
	labelled, unaware := target(m), target(m)
	labelled.Labels = map[string]string{"edge": "blue"}
	publishAs := func(tt publish.Target) publish.Cause {
		out, err := at(s, time.Hour).Publish(t.Context(), tt, nil, publish.WhenDue)
		require.NoError(t, err)
		return out.Cause
	}
	_, err := at(s, time.Hour).Publish(t.Context(), unaware, b, publish.WhenDue)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"app.kubernetes.io/managed-by": "isthmus"}, s.secret.Labels)

	assert.Equal(t, publish.CauseLabels, publishAs(labelled))
	want := map[string]string{"app.kubernetes.io/managed-by": "isthmus", "edge": "blue"}
	assert.Equal(t, want, s.secret.Labels)
	assert.Equal(t, publish.CauseNotDue, publishAs(labelled))
	assert.Equal(t, publish.CauseNotDue, publishAs(unaware))

	s.secret.Annotations["isthmus.dev/serial"] = "another"
	assert.Equal(t, publish.CauseLabels, publishAs(unaware))
	assert.Equal(t, want, s.secret.Labels, "a writer that does not know them keeps them")

	s.secret.Labels["edge"] = "red"
	assert.Equal(t, publish.CauseLabels, publishAs(labelled))
	assert.Equal(t, want, s.secret.Labels)
}

func TestPublishKeepsTheSecretsType(t *testing.T) {
	m := newMesh(t)
	s := &store{secret: &corev1.Secret{Type: corev1.SecretTypeOpaque}}
	s.secret.UID, s.secret.ResourceVersion, s.secret.Annotations = "u", "7", map[string]string{"isthmus.dev/adopt": "true"}
	out, err := at(s, 0).Publish(t.Context(), target(m), m.bundle(0, time.Hour), publish.WhenDue)
	require.NoError(t, err)
	assert.Equal(t, publish.Published, out.Result)
	assert.Equal(t, publish.CauseBad, out.Cause)
	assert.Equal(t, corev1.SecretTypeOpaque, s.secret.Type)
}

func TestPublishDecidesAgainAfterAConflict(t *testing.T) {
	m := newMesh(t)
	ours, theirs := m.bundle(9*time.Hour, 33*time.Hour), m.bundle(9*time.Hour, 34*time.Hour)
	current := published(t, m.bundle(0, 24*time.Hour), target(m), 0, nil)
	// racing makes another write come between the first read and the apply.
	racing := func(write func(s *store)) *store {
		s := &store{secret: current.DeepCopy(), version: 10}
		s.before = func(s *store) { s.before = nil; write(s) }
		return s
	}
	for name, test := range map[string]struct {
		store     *store
		result    publish.Result
		cause     publish.Cause
		serial    string
		forced    []bool
		conflicts int
	}{
		"if another replica was first, expect its bundle": {racing(func(s *store) {
			s.put(published(t, theirs, target(m), 9*time.Hour, nil))
		}), publish.Unchanged, publish.CauseNotDue, theirs.Serial(), []bool{false}, 1},
		"if the other write is no bundle, expect ours": {racing(func(s *store) {
			broken := current.DeepCopy()
			broken.Data = nil
			s.put(broken)
		}), publish.Published, publish.CauseBad, ours.Serial(), []bool{false, false}, 1},
		"if it was deleted, expect that it is decided on as absent": {racing(func(s *store) {
			s.secret = nil
		}), publish.Published, publish.CauseAbsent, ours.Serial(), []bool{false, false}, 1},
		"if its label was removed, expect no write": {racing(func(s *store) {
			gone := current.DeepCopy()
			gone.Labels = nil
			s.put(gone)
		}), publish.RefusedForeign, publish.CauseForeign, "", []bool{false}, 1},
		"if another field manager has our fields, expect force only then": {racing(func(s *store) {
			s.manager = "kubectl-edit"
		}), publish.Published, publish.CauseDue, ours.Serial(), []bool{false, true}, 1},
		"if the resourceVersion changes after that, expect no force": {racing(func(s *store) {
			s.manager = "kubectl-edit"
			s.before = func(s *store) { s.before, s.manager = nil, ""; s.put(current) }
		}), publish.Published, publish.CauseDue, ours.Serial(), []bool{false, true, false}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := at(test.store, 9*time.Hour).Publish(t.Context(), target(m), ours, publish.WhenDue)
			assert.Equal(t, test.result == publish.RefusedForeign, err != nil, err)
			assert.Equal(t, test.result, out.Result)
			assert.Equal(t, test.cause, out.Cause)
			assert.Equal(t, test.forced, test.store.applies)
			assert.Equal(t, test.conflicts, out.Conflicts)
			if test.serial != "" {
				assert.Equal(t, test.serial, test.store.secret.Annotations[serial])
			}
		})
	}
}

func TestPublishGivesUpOnEndlessConflicts(t *testing.T) {
	m := newMesh(t)
	s := &store{}
	s.before = func(s *store) {
		s.put(&corev1.Secret{})
		s.secret.Labels = map[string]string{"app.kubernetes.io/managed-by": "isthmus"}
	}
	out, err := at(s, 0).Publish(t.Context(), target(m), m.bundle(0, time.Hour), publish.WhenDue)
	assert.ErrorContains(t, err, "write secret edge/istio-certs: gave up after 6 conflicts: ")
	assert.Equal(t, publish.Failed, out.Result)
	assert.Len(t, s.applies, 6)
}

func TestPublishReportsErrorsOfTheAPIServer(t *testing.T) {
	m := newMesh(t)
	b := m.bundle(0, time.Hour)
	s := &store{fail: errors.New("connection refused")}
	out, err := at(s, 0).Publish(t.Context(), target(m), b, publish.WhenDue)
	assert.EqualError(t, err, "read secret edge/istio-certs: connection refused")
	assert.Equal(t, publish.Failed, out.Result)

	s = &store{}
	s.before = func(s *store) { s.fail = errors.New("connection reset") }
	out, err = at(s, 0).Publish(t.Context(), target(m), b, publish.WhenDue)
	assert.EqualError(t, err, "write secret edge/istio-certs: connection reset")
	assert.Equal(t, publish.Failed, out.Result)
	assert.Len(t, s.applies, 1)

	out, err = at(&store{}, 0).Publish(t.Context(), target(), b, publish.WhenDue)
	assert.EqualError(t, err, "secret edge/istio-certs: no root certificate of the mesh is known")
	assert.Equal(t, publish.Failed, out.Result)
}

// Fifty replicas, whose agents rotate one after the other, publish for the first
// time, when all of them find no Secret, and then through ten rotations.
func TestManyPublishersWriteOncePerRotation(t *testing.T) {
	const replicas, rotations = 50, 10
	m := newMesh(t)
	s := &store{}
	bundles := make([]*certs.Bundle, replicas)
	var now atomic.Int64
	p := &publish.Publisher{Secrets: s, Now: func() time.Time { return after(time.Duration(now.Load())) }}
	publishAll := func() {
		var ended sync.WaitGroup
		for _, b := range bundles {
			ended.Go(func() {
				_, err := p.Publish(t.Context(), target(m), b, publish.WhenDue)
				assert.NoError(t, err)
			})
		}
		ended.Wait()
	}
	for i := range bundles {
		bundles[i] = m.bundle(time.Duration(i)*time.Second, 24*time.Hour+time.Duration(i)*time.Second)
	}
	publishAll()
	require.Equal(t, 1, s.version)
	for rotation := 1; rotation <= rotations; rotation++ {
		now.Store(int64(time.Duration(rotation) * 12 * time.Hour))
		for i := range bundles { // each gets its new bundle while the others have their old one
			begin := time.Duration(now.Load()) + time.Duration(i)*time.Millisecond
			now.Store(int64(begin))
			bundles[i] = m.bundle(begin, begin+24*time.Hour)
			if i%25 == 0 { // some have the next one and some do not
				publishAll()
			}
		}
		publishAll()
		require.Equal(t, 1+rotation, s.version, "writes after rotation %d", rotation)
	}
}
