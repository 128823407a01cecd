package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// watched is a secretVersions with the requeues and repairs that it caused.
type watched struct {
	*secretVersions
	now      time.Time
	requeues []time.Duration
	repairs  []time.Duration
}

func newWatched() *watched {
	w := &watched{now: noon}
	w.secretVersions = newSecretVersions(func() time.Time { return w.now }, func(d time.Duration) { w.repairs = append(w.repairs, d) })
	w.start(func(_ string, delay time.Duration) { w.requeues = append(w.requeues, delay) })
	return w
}

// requests begins and ends a request.
func (w *watched) request(a answer) {
	w.begin("edge", "istio-certs")
	w.end("edge", "istio-certs", a)
}

func read(version string) answer { return answer{resourceVersion: version, isKnown: true} }

func written(version string) answer {
	return answer{resourceVersion: version, isKnown: true, isWrite: true}
}

func TestSecretVersionsRequeuesForTheChangesOfOthers(t *testing.T) {
	announce := func(w *watched, version string) { w.announce("edge", "istio-certs", version) }
	everywhere := func(string) bool { return true }
	for name, test := range map[string]struct {
		happens  func(w *watched)
		requeues int
	}{
		"if the Secret was never read, expect none":                  {func(w *watched) { announce(w, "1") }, 0},
		"if the version that was read is announced, expect none":     {func(w *watched) { w.request(read("1")); announce(w, "1") }, 0},
		"if another version is announced, expect a requeue":          {func(w *watched) { w.request(read("1")); announce(w, "2") }, 1},
		"if it is deleted, expect a requeue":                         {func(w *watched) { w.request(read("1")); announce(w, "") }, 1},
		"if it is created by somebody else, expect a requeue":        {func(w *watched) { w.request(read("")); announce(w, "1") }, 1},
		"if its own deletion is announced, expect none":              {func(w *watched) { w.request(read("1")); w.request(read("")); announce(w, "") }, 0},
		"if its own write is announced after it, expect none":        {func(w *watched) { w.request(read("1")); w.request(written("2")); announce(w, "2") }, 0},
		"if another Secret is announced, expect none":                {func(w *watched) { w.request(read("1")); w.announce("edge", "istio-certs-roots", "2") }, 0},
		"if the namespace was forgotten, expect none":                {func(w *watched) { w.request(read("1")); w.forgetNamespace("edge"); announce(w, "2") }, 0},
		"if the Secret was forgotten, expect none":                   {func(w *watched) { w.request(read("1")); w.forget("edge", "istio-certs"); announce(w, "2") }, 0},
		"if a read fails, expect the version before to count":        {func(w *watched) { w.request(read("1")); w.request(answer{}); announce(w, "1") }, 0},
		"if the first read fails, expect the Secret not to be known": {func(w *watched) { w.request(answer{}); announce(w, "1") }, 0},
		"if its own write is announced before the answer, expect none": {func(w *watched) {
			w.request(read("1"))
			w.begin("edge", "istio-certs")
			announce(w, "2")
			w.end("edge", "istio-certs", written("2"))
		}, 0},
		"if another version is announced before the answer, expect a requeue": {func(w *watched) {
			w.request(read("1"))
			w.begin("edge", "istio-certs")
			announce(w, "3")
			w.end("edge", "istio-certs", written("2"))
		}, 1},
		"if a write fails and a version was announced meanwhile, expect a requeue": {func(w *watched) {
			w.request(read("1"))
			w.begin("edge", "istio-certs")
			announce(w, "2")
			w.end("edge", "istio-certs", answer{isWrite: true})
		}, 1},
		"if a list has the version that was read, expect none": {func(w *watched) {
			w.request(read("1"))
			w.replace("istio-certs", everywhere, map[string]string{"edge": "1"})
		}, 0},
		"if a list does not have the Secret, expect a requeue": {func(w *watched) {
			w.request(read("1"))
			w.replace("istio-certs", everywhere, map[string]string{"other": "1"})
		}, 1},
		"if a list does not cover the namespace, expect none": {func(w *watched) {
			w.request(read("1"))
			w.replace("istio-certs", func(namespace string) bool { return namespace == "other" }, nil)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatched()
			test.happens(w)
			assert.Len(t, w.requeues, test.requeues)
		})
	}
}

func TestSecretVersionsTimesRepairs(t *testing.T) {
	w := newWatched()
	w.request(read("1"))
	w.request(written("2"))
	assert.Empty(t, w.repairs, "a renewal is no repair")

	w.announce("edge", "istio-certs", "")
	w.now = noon.Add(time.Second)
	w.announce("edge", "istio-certs", "3") // the first change counts
	assert.Equal(t, []string{"istio-certs"}, w.changed("edge"))
	w.request(read("3"))
	w.now = noon.Add(2 * time.Second)
	w.request(answer{isWrite: true}) // fails
	assert.Empty(t, w.repairs)
	w.request(written("4"))
	assert.Equal(t, []time.Duration{2 * time.Second}, w.repairs)
	assert.Empty(t, w.changed("edge"))

	w.announce("edge", "istio-certs", "5")
	w.settle("edge", "istio-certs", noon)
	assert.NotEmpty(t, w.changed("edge"), "announced after the check began")
	w.settle("edge", "istio-certs", w.now)
	assert.Empty(t, w.changed("edge"))
	w.request(written("6"))
	assert.Len(t, w.repairs, 1, "nothing was to be repaired")

	w.announce("edge", "istio-certs", "7")
	began := w.now
	w.now = w.now.Add(time.Second)
	w.announce("edge", "istio-certs", "") // while the check of 7 is under way
	w.settle("edge", "istio-certs", began)
	assert.Equal(t, []string{"istio-certs"}, w.changed("edge"), "the deletion has not been dealt with")
	w.now = w.now.Add(time.Second)
	w.request(written("8"))
	assert.Equal(t, []time.Duration{2 * time.Second, time.Second}, w.repairs)
}

// Two controllers that overwrite each other must not ask for certificates without end.
func TestSecretVersionsSlowsDownAFight(t *testing.T) {
	w := newWatched()
	w.request(written("0"))
	for range repairBurst + 3 {
		w.announce("edge", "istio-certs", "theirs")
		w.request(written("ours"))
	}
	for i, delay := range w.requeues[:repairBurst] {
		require.Zero(t, delay, "repair %d", i)
	}
	assert.Equal(t, []time.Duration{repairPause, 2 * repairPause, 3 * repairPause}, w.requeues[repairBurst:])
	w.now = noon.Add(time.Hour)
	w.announce("edge", "istio-certs", "theirs")
	assert.Zero(t, w.requeues[len(w.requeues)-1], "an hour later the first is at once again")
}

// failing fails every request.
type failing struct {
	memory
	err error
}

func (f *failing) Get(context.Context, string, string) (*corev1.Secret, error) { return nil, f.err }

func TestTrackedSecretsNotesAnswers(t *testing.T) {
	w, store := newWatched(), &memory{}
	tracked := trackedSecrets{Secrets: store, versions: w.secretVersions}
	current := func() *secretVersion { return w.byNamespace["edge"]["istio-certs"] }
	_, err := tracked.Get(t.Context(), "edge", "istio-certs")
	require.True(t, apierrors.IsNotFound(err))
	assert.True(t, current().isKnown)
	assert.Empty(t, current().current)

	applied, err := tracked.Apply(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "istio-certs"}}, false)
	require.NoError(t, err)
	assert.Equal(t, applied.ResourceVersion, current().current)
	require.NoError(t, tracked.Delete(t.Context(), "edge", "istio-certs", applied.UID, applied.ResourceVersion))
	assert.Empty(t, current().current)

	tracked.Secrets = &failing{err: errors.New("connection refused")}
	_, err = tracked.Get(t.Context(), "other", "istio-certs")
	require.Error(t, err)
	assert.Empty(t, w.byNamespace["other"])
	assert.Empty(t, w.requeues)
}
