package publish

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// Ten publishers learn of a rotation of roots one half after the other, and look again
// and again at once. Each set of roots is written once.
func TestPublishersOfDifferentKnowledgeWriteEachSetOfRootsOnce(t *testing.T) {
	const replicas, looks = 10, 10
	e := newEdge(t)
	now := time.Now()
	bundle, next := e.bundle(now, 24*time.Hour), certtest.NewAuthority(t)
	targets := make([]publish.Target, replicas)
	publishers := make([]*publish.Publisher, replicas)
	for i := range publishers {
		targets[i] = e.target()
		publishers[i] = &publish.Publisher{Secrets: e.client(), Now: func() time.Time { return now }}
	}
	look := func() {
		for range looks {
			var ended sync.WaitGroup
			for i, p := range publishers {
				ended.Go(func() {
					_, err := p.Publish(t.Context(), targets[i], bundle, publish.WhenDue)
					assert.NoError(t, err)
				})
			}
			ended.Wait()
		}
	}
	learn := func(replicas []publish.Target, roots ...*certtest.Pair) {
		for i := range replicas {
			replicas[i].Roots = nil
			for _, r := range roots {
				replicas[i].Roots = append(replicas[i].Roots, r.Certificate)
			}
		}
	}
	h := e.watch()
	assertRoots := func(writes, roots int) {
		t.Helper()
		s := e.secret()
		require.Eventually(t, func() bool {
			seen := h.all()
			return len(seen) > 0 && seen[len(seen)-1].ResourceVersion == s.ResourceVersion
		}, timeout, pollInterval, "the watch has every version")
		count := len(h.all())
		assert.Equal(t, writes, count, "writes")
		held, err := certs.ParseCertificates(s.Data["ca.crt"])
		require.NoError(t, err)
		assert.Len(t, held, roots)
	}
	look()
	assertRoots(1, 1)
	learn(targets[:replicas/2], e.root, next)
	look()
	assertRoots(2, 2)
	learn(targets[replicas/2:], e.root, next)
	look()
	assertRoots(2, 2)

	learn(targets[:replicas/2], e.root) // the new root is withdrawn
	look()
	assertRoots(2, 2)
	now = now.Add(3 * time.Minute) // one half has not heard of it
	look()
	assertRoots(3, 1)
	learn(targets[replicas/2:], e.root)
	now = now.Add(3 * time.Minute)
	look()
	assertRoots(3, 1)
}
