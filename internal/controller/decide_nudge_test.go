package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestDecideNudge(t *testing.T) {
	for name, test := range map[string]struct {
		// now and last count from the publication.
		now, last time.Duration
		nudged    bool
		isDue     bool
		next      time.Duration
	}{
		"if it was just published, expect none":               {now: 0, next: 5 * time.Second},
		"if 5 s have passed, expect one":                      {now: 5 * time.Second, isDue: true, next: time.Minute},
		"if that was done, expect none":                       {now: 6 * time.Second, last: 5 * time.Second, nudged: true, next: time.Minute},
		"if a minute has passed, expect one":                  {now: time.Minute, last: 5 * time.Second, nudged: true, isDue: true, next: 10 * time.Minute},
		"if ten minutes have passed, expect one":              {now: 10 * time.Minute, last: time.Minute, nudged: true, isDue: true, next: 70 * time.Minute},
		"if half an hour has passed, expect none":             {now: 30 * time.Minute, last: 10 * time.Minute, nudged: true, next: 70 * time.Minute},
		"if an hour has passed after that, expect one":        {now: 70 * time.Minute, last: 10 * time.Minute, nudged: true, isDue: true, next: 130 * time.Minute},
		"if several were missed, expect one":                  {now: 5 * time.Hour, last: 10 * time.Minute, nudged: true, isDue: true, next: 5*time.Hour + 10*time.Minute},
		"if none was ever written, expect one":                {now: 20 * time.Minute, isDue: true, next: 70 * time.Minute},
		"if the last was of the publication before, expect 1": {now: 7 * time.Second, last: -time.Hour, nudged: true, isDue: true, next: time.Minute},
		"if the last is in the future, expect one":            {now: 7 * time.Second, last: time.Hour, nudged: true, isDue: true, next: time.Minute},
		"if our clock is behind, expect none":                 {now: -time.Minute, next: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var last time.Time
			if test.nudged {
				last = noon.Add(test.last)
			}
			assert.Equal(t, nudgeDecision{isDue: test.isDue, next: noon.Add(test.next)}, decideNudge(noon, last, noon.Add(test.now)))
		})
	}
	assert.Equal(t, nudgeDecision{}, decideNudge(time.Time{}, time.Time{}, noon), "an earlier version wrote the Secret")
}

func TestNudgesAreForEdgesThatMissChanges(t *testing.T) {
	emissary, other := podClaim("front", "emissary", time.Hour), podClaim("other", "emissary", time.Hour)
	other.secret = patches.SecretFacts{Forms: other.secret.Forms}
	assert.True(t, needsNudges("emissary", []claim{other, emissary}))
	assert.False(t, needsNudges("emissary", []claim{other}))
	assert.False(t, needsNudges("two", []claim{emissary}), "it holds another Secret")
}

// An hour after a publication: the annotation changes four times, and nothing else does.
func TestNudgesOfAnHour(t *testing.T) {
	e := newEdges(t)
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
	e.reconcile()
	published := e.store.secret.DeepCopy()
	require.Equal(t, noon.Format(time.RFC3339), published.Annotations[policy.PublishedAtKey])
	recorded := len(e.recorded)

	var nudges []time.Duration
	for e.clock.Now().Before(noon.Add(75 * time.Minute)) {
		before := e.store.annotations
		e.reconcile()
		if e.store.annotations > before {
			nudges = append(nudges, e.clock.Now().Sub(noon))
			assert.Equal(t, e.clock.Now().UTC().Format(time.RFC3339), e.store.secret.Annotations[policy.NudgeKey])
		}
		e.clock.SetTime(e.clock.Now().Add(time.Second))
	}
	assert.Equal(t, []time.Duration{5 * time.Second, time.Minute, 10 * time.Minute, 70 * time.Minute}, nudges)
	assert.Equal(t, 1, e.store.applies)
	assert.Len(t, e.recorded, recorded, "no Event")
	nudged := e.store.secret.DeepCopy()
	delete(nudged.Annotations, policy.NudgeKey)
	nudged.ResourceVersion = published.ResourceVersion
	assert.Equal(t, published, nudged)
}

// A new leader goes on where the last one stopped; a nudge that fails waits for the next.
func TestNudgesOfANewLeader(t *testing.T) {
	e := newEdges(t)
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
	e.reconcile()
	e.clock.SetTime(noon.Add(5 * time.Second))
	e.reconcile()
	require.Equal(t, 1, e.store.annotations)

	e.reconciler.forgetNamespace("edge")
	e.clock.SetTime(noon.Add(30 * time.Second))
	e.reconcile()
	assert.Equal(t, 1, e.store.annotations, "that one was done")
	assert.LessOrEqual(t, e.reconcile(), 30*time.Second, "the next is due a minute after the publication")

	e.store.fail = assert.AnError
	e.clock.SetTime(noon.Add(time.Minute))
	e.reconcile()
	e.store.fail = nil
	e.clock.SetTime(noon.Add(2 * time.Minute))
	e.reconcile()
	assert.Equal(t, 1, e.store.annotations, "what failed is not tried again")
	e.clock.SetTime(noon.Add(10 * time.Minute))
	e.reconcile()
	assert.Equal(t, 2, e.store.annotations)
}

// A profile without the fact gets no nudges.
func TestNoNudgesForOtherProfiles(t *testing.T) {
	e := newEdges(t)
	pod := e.edgePod("front", "")
	pod.Annotations[policy.ProfileKey] = "generic"
	e.cluster.pods = []corev1.Pod{pod}
	for range 20 {
		e.reconcile()
		e.clock.SetTime(e.clock.Now().Add(time.Minute))
	}
	assert.Zero(t, e.store.annotations)
	assert.Equal(t, 1, e.store.applies)
}
