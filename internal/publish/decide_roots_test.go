package publish_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

// rotation is an edge of many replicas, each with its own publisher, that learn of the
// mesh's roots at different times.
type rotation struct {
	t          *testing.T
	store      *store
	bundle     *certs.Bundle
	now        time.Time
	publishers []*publish.Publisher
	// known are the roots that each publisher knows.
	known [][]mesh
}

func newRotation(t *testing.T, replicas int, roots ...mesh) *rotation {
	r := &rotation{t: t, store: &store{}, now: start, bundle: roots[0].bundle(0, 24*time.Hour)}
	r.publishers = make([]*publish.Publisher, replicas)
	r.restart()
	for range replicas {
		r.known = append(r.known, roots)
	}
	r.look(0)
	require.Len(t, r.store.applies, 1)
	return r
}

// learn has some of the publishers learn of other roots.
func (r *rotation) learn(from, to int, roots ...mesh) {
	for i := from; i < to; i++ {
		r.known[i] = roots
	}
}

// look has each publisher look once, after a pause.
func (r *rotation) look(pause time.Duration) {
	r.t.Helper()
	r.now = r.now.Add(pause)
	for i, p := range r.publishers {
		_, err := p.Publish(context.Background(), target(r.known[i]...), r.bundle, publish.WhenDue)
		require.NoError(r.t, err)
	}
}

// restart replaces the publishers by others that remember nothing.
func (r *rotation) restart() {
	for i := range r.publishers {
		r.publishers[i] = &publish.Publisher{Secrets: r.store, Now: func() time.Time { return r.now }}
	}
}

// renew gives the publishers another certificate once the present one is due.
func (r *rotation) renew(m mesh) {
	r.t.Helper()
	r.now = r.now.Add(9 * time.Hour)
	age := r.now.Sub(start)
	r.bundle = m.bundle(age, age+24*time.Hour)
	r.look(0)
}

// publishAsController has the controller check the Secret. It knows all roots.
func (r *rotation) publishAsController(roots ...mesh) {
	r.t.Helper()
	p := publish.Publisher{Secrets: r.store, Now: func() time.Time { return r.now }}
	_, err := p.Publish(context.Background(), target(roots...), nil, publish.WhenNewer)
	require.NoError(r.t, err)
}

// assertRoots counts the writes so far and compares the Secret's roots.
func (r *rotation) assertRoots(writes int, roots ...mesh) {
	r.t.Helper()
	assert.Len(r.t, r.store.applies, writes)
	for _, key := range []string{"ca.crt", "root-cert.pem"} {
		got, err := certs.ParseCertificates(r.store.secret.Data[key])
		require.NoError(r.t, err)
		assert.ElementsMatch(r.t, rootsOf(roots...), got)
	}
}

// Writes are bounded by the number of different sets of roots, not by the number of
// replicas or of looks.
func TestRotationOfRootsWithPublishersOfDifferentKnowledge(t *testing.T) {
	old, next := newMesh(t), newMesh(t)
	r := newRotation(t, 10, old)
	r.learn(0, 5, old, next)
	for range 10 {
		r.look(10 * time.Second)
	}
	r.assertRoots(2, old, next)

	r.learn(5, 10, old, next)
	r.look(time.Minute)
	r.assertRoots(2, old, next)

	// The old root leaves. The leaf is still of the old root, so the publishers keep it.
	young := next.bundle(0, 30*time.Hour)
	r.store.secret = published(t, young, target(old, next), 0, nil)
	r.bundle = young
	r.learn(0, 5, next)
	r.look(10 * time.Second)
	r.learn(5, 9, next) // the node of the last one is cut off
	for range 30 {
		r.look(10 * time.Second)
	}
	r.assertRoots(3, next)
}

func TestRootsThatAPublisherDoesNotKnow(t *testing.T) {
	old, next := newMesh(t), newMesh(t)
	t.Run("if it was there at the first look, expect it gone with the renewal", func(t *testing.T) {
		r := newRotation(t, 10, old, next)
		r.restart()
		r.learn(0, 10, old)
		r.look(time.Minute)
		r.look(time.Hour)
		r.assertRoots(1, old, next)
		r.renew(old)
		r.assertRoots(2, old)
	})
	t.Run("if the controller knows it, expect one write for all restarts", func(t *testing.T) {
		r := newRotation(t, 10, old)
		r.publishAsController(old, next)
		r.restart()
		r.look(time.Minute)
		r.look(time.Hour)
		r.publishAsController(old, next)
		r.assertRoots(2, old, next)
		r.renew(old)
		r.assertRoots(3, old)
		r.publishAsController(old, next)
		r.look(time.Minute)
		r.assertRoots(4, old, next)
		r.renew(old)
		r.publishAsController(old, next)
		r.look(time.Hour)
		r.assertRoots(5, old, next)
	})
	t.Run("if it left before the renewal, expect it gone with the renewal", func(t *testing.T) {
		r := newRotation(t, 1, old, next)
		r.learn(0, 1, old)
		r.look(6 * time.Hour)
		r.renew(old)
		r.assertRoots(2, old)
	})
	t.Run("if somebody added it since, expect that it stays", func(t *testing.T) {
		r := newRotation(t, 2, old)
		r.learn(1, 2, old, next)
		r.look(time.Minute)
		r.look(time.Hour)
		r.assertRoots(2, old, next)
		r.now, r.bundle = start.Add(9*time.Hour), old.bundle(9*time.Hour, 33*time.Hour)
		_, err := r.publishers[0].Publish(t.Context(), target(old), r.bundle, publish.WhenDue)
		require.NoError(t, err)
		r.assertRoots(3, old, next)
	})
	t.Run("if it comes back before it was taken out, expect no write", func(t *testing.T) {
		r := newRotation(t, 1, old, next)
		r.learn(0, 1, old)
		r.look(time.Minute)
		r.learn(0, 1, old, next)
		r.look(time.Minute)
		r.learn(0, 1, old)
		r.look(time.Minute)
		r.assertRoots(1, old, next)
	})
	t.Run("if a key with roots is damaged, expect it repaired at once", func(t *testing.T) {
		r := newRotation(t, 1, old, next)
		r.look(time.Minute)
		delete(r.store.secret.Data, "ca.crt")
		r.look(time.Minute)
		r.assertRoots(2, old, next)
	})
}

// A write of the roots alone keeps the source of the certificate, and may bring its
// renewal forward.
func TestPublishOfRootsAlone(t *testing.T) {
	old, next := newMesh(t), newMesh(t)
	for name, test := range map[string]struct {
		renewBy, want time.Duration
	}{
		"if no time is given, expect the renewal point to stay":          {0, 8 * time.Hour},
		"if the time is earlier, expect it":                              {2 * time.Hour, 2 * time.Hour},
		"if the time is later, expect the renewal point to stay as well": {9 * time.Hour, 8 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := &store{secret: published(t, old.bundle(0, 24*time.Hour), target(old), 0, nil), version: 10}
			changed := target(old, next)
			changed.Source = "istio-ca"
			p := at(s, time.Hour)
			if test.renewBy != 0 {
				p.RenewBy = after(test.renewBy)
			}
			out, err := p.Publish(t.Context(), changed, nil, publish.WhenNewer)
			require.NoError(t, err)
			assert.Equal(t, publish.CauseRoots, out.Cause)
			assert.Equal(t, after(test.want).UTC(), out.Observation.RenewAfter.UTC())
			assert.Equal(t, "agent", s.secret.Annotations["isthmus.dev/source"])
		})
	}
}
