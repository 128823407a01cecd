package controller

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"
	"unique"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// knownContexts is an index that has seen that there are no TLSContexts.
func knownContexts(settings inject.Settings) *contextIndex {
	x := newContextIndex(nil, contextNames(settings.WithDefaults().TLSContextNames), make(chan event.GenericEvent))
	x.isListed = true
	return x
}

// goodSecret is the state of a Secret of an account that holds the mesh's roots.
func goodSecret(account string) *secretState {
	return &secretState{state: publish.Good, roots: unique.Make("the roots"), account: account, target: publish.Target{Namespace: "edge", Name: "istio-certs", ID: idOf(account)}}
}

func TestReconcileRoots(t *testing.T) {
	good := goodSecret("emissary")
	secret := func(labels map[string]string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "istio-certs-roots", Labels: labels}}
	}
	ours := map[string]string{policy.ManagedByLabel: policy.ManagedBy, "edge": "blue"}
	known := func(content string) map[string]string { return map[string]string{"istio-certs-roots": content} }
	for name, test := range map[string]struct {
		state     *secretState
		unneeded  bool
		current   *corev1.Secret
		applied   map[string]string
		rescanned bool
		fail      error
		writes    int
		isDeleted bool
		recorded  []string
		err       string
	}{
		"if there are none, expect the roots":                         {state: good, writes: 1},
		"if they are ours, expect them to be applied":                 {state: good, current: secret(ours), writes: 1},
		"if they are applied, expect no write":                        {state: good, applied: known("the roots")},
		"if other roots are applied, expect the roots":                {state: good, current: secret(ours), applied: known("old"), writes: 1},
		"if they are someone else's, expect an Event":                 {state: good, current: secret(nil), recorded: []string{EventConflict}},
		"if the Secret is bad, expect no roots":                       {state: &secretState{state: publish.Bad, roots: good.roots}},
		"if the Secret was not checked yet, expect no roots":          {},
		"if they cannot be applied, expect the error":                 {state: good, fail: errors.New("connection refused"), err: "connection refused"},
		"if the Secret turned bad, expect the roots to remain":        {state: &secretState{state: publish.Bad, roots: good.roots}, current: secret(ours), applied: known("the roots")},
		"if they are not needed any more, expect them to go":          {state: good, unneeded: true, current: secret(ours), applied: known("the roots"), isDeleted: true},
		"if an earlier leader left them, expect them to go":           {unneeded: true, current: secret(ours), rescanned: true, isDeleted: true},
		"if they were never needed, expect nothing at the first scan": {unneeded: true, current: secret(ours)},
		"if they are not needed and someone else's, expect them left": {unneeded: true, current: secret(nil), rescanned: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChecker(t, newAuthority(t))
			c.Settings.SecretLabels = map[string]string{"edge": "blue"}
			c.store.roots, c.store.fail = test.current, test.fail
			c.state.rescanned = test.rescanned
			if test.state != nil {
				c.state.secrets["istio-certs"] = test.state
			}
			maps.Copy(c.state.applied, test.applied)
			err := c.reconcileRoots(t.Context(), c.state, "istio-certs", !test.unneeded)
			if test.err == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.err)
			}
			assert.Equal(t, test.writes, c.store.rootsApplies)
			assert.Equal(t, test.recorded, c.recorded)
			assert.Equal(t, test.isDeleted, test.current != nil && c.store.roots == nil)
			if test.writes > 0 {
				assert.Equal(t, "istio-certs-roots", c.store.roots.Name)
				assert.Equal(t, corev1.SecretTypeOpaque, c.store.roots.Type)
				assert.Equal(t, map[string][]byte{"tls.crt": []byte("the roots"), "ca.crt": []byte("the roots")}, c.store.roots.Data)
				assert.Equal(t, ours, c.store.roots.Labels)
				assert.Equal(t, "the roots", c.state.applied["istio-certs-roots"])
			}
		})
	}
}

// requested are the options of a namespace that requests a TLSContext.
var requested = policy.Options{SecretName: "istio-certs", TLSContext: "istio-upstream"}

// A TLSContext is applied after the roots that it refers to, and with its companion.
func TestTLSContextWaitsForItsRoots(t *testing.T) {
	c := newChecker(t, newAuthority(t))
	o := newOwnedObject(c)
	claims := []claim{podClaim("front", "emissary", time.Hour)}
	require.NoError(t, c.reconcileContexts(t.Context(), c.state, requested, claims))
	assert.Empty(t, o.requests, "there is no certificate yet")

	c.state.secrets["istio-certs"] = goodSecret("emissary")
	require.NoError(t, c.reconcileContexts(t.Context(), c.state, requested, claims))
	assert.Equal(t, 1, c.store.rootsApplies)
	assert.Equal(t, []string{"patch", "patch"}, o.requests)
	require.NoError(t, c.reconcileContexts(t.Context(), c.state, requested, claims))
	assert.Equal(t, []string{"patch", "patch"}, o.requests, "nothing changed")

	claims[0].id.Value = "two"
	require.NoError(t, c.reconcileContexts(t.Context(), c.state, requested, claims))
	assert.Len(t, o.requests, 4, "it addresses another edge")
	assert.Equal(t, 1, c.store.rootsApplies)

	claims[0].options.Delivery = policy.DeliverySecret
	require.NoError(t, c.reconcileContexts(t.Context(), c.state, requested, claims))
	assert.Len(t, o.requests, 4, "the delivery makes no difference")
}

// While nothing says which edges hold the Secret, what an earlier leader wrote stays,
// and the edges count as unknown in other namespaces. When that is known, what is not
// wanted goes.
func TestTLSContextStaysWhileItsEdgesAreUnknown(t *testing.T) {
	front := podClaim("front", "emissary", time.Hour)
	front.id.Value = "one"
	for name, test := range map[string]struct {
		options    policy.Options
		claims     []claim
		state      *secretState
		hasUnclear bool
		requests   []string
		// ids are those that are applied; wide those that other namespaces see, nil
		// while they are unknown.
		ids  []any
		wide []string
		// isRootsDeleted is true when the Secret of the roots goes.
		isRootsDeleted bool
	}{
		"if the Secret's holder is unknown, expect all to stay": {
			options: requested, claims: []claim{front}, state: &secretState{},
		},
		"if the Secret was never checked, expect all to stay": {options: requested, claims: []claim{front}},
		"if every pod is unclear, expect all to stay":         {options: requested, hasUnclear: true},
		"if one pod is unclear, expect the IDs that are there to stay": {
			options: requested, claims: []claim{front}, state: goodSecret("emissary"), hasUnclear: true,
			requests: []string{"patch", "patch"}, ids: []any{"one", "two"}, wide: []string{"one", "two"},
		},
		"if the holder is known, expect its IDs alone": {
			options: requested, claims: []claim{front}, state: goodSecret("emissary"),
			requests: []string{"patch", "patch"}, ids: []any{"one"}, wide: []string{"one"},
		},
		"if there is no edge, expect all to go": {
			options: requested, requests: []string{"get", "delete", "get", "delete"}, wide: []string{}, isRootsDeleted: true,
		},
		"if nothing asks for them, expect them to go although a pod is unclear": {
			options: policy.Options{SecretName: "istio-certs"}, hasUnclear: true, requests: []string{"get", "delete", "get", "delete"}, wide: []string{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChecker(t, newAuthority(t))
			labels := map[string]string{policy.ManagedByLabel: policy.ManagedBy}
			for _, name := range contextNames([]string{"istio-upstream"}) {
				c.contexts.put(foundContext{namespace: "edge", name: name, ids: []string{"two"}, isManaged: true, content: content{labels: labels}})
			}
			o := newOwnedObject(c)
			o.setCurrent(labels)
			o.keepCurrent = true
			c.store.roots = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "istio-certs-roots", Labels: labels}}
			c.state.rescanned = true
			if test.state != nil {
				c.state.secrets["istio-certs"] = test.state
			}
			if test.hasUnclear {
				c.state.unclear["unclear-1"] = true
			}
			require.NoError(t, c.reconcileContexts(t.Context(), c.state, test.options, test.claims))
			assert.Equal(t, test.requests, o.requests)
			assert.Equal(t, test.wide, c.contexts.wide["edge"])
			assert.Equal(t, test.isRootsDeleted, c.store.roots == nil)
			if test.ids != nil {
				assert.Equal(t, test.ids, o.applied["spec"].(map[string]any)["ambassador_id"])
			}
		})
	}
}

// What a watch has not delivered yet is not taken for absent.
func TestTLSContextWaitsForTheIndex(t *testing.T) {
	c := newChecker(t, newAuthority(t))
	o := newOwnedObject(c)
	c.contexts.isListed = false
	c.state.secrets["istio-certs"] = goodSecret("emissary")
	claims := []claim{podClaim("front", "emissary", time.Hour)}
	require.NoError(t, c.reconcileContexts(t.Context(), c.state, requested, claims))
	assert.Empty(t, o.requests)
	assert.True(t, c.contexts.waiting["edge"])
	assert.Equal(t, 1, c.store.rootsApplies, "the roots need no TLSContext")
}

func TestReconcileContexts(t *testing.T) {
	labels := map[string]string{policy.ManagedByLabel: policy.ManagedBy}
	found := func(namespace, name string, isManaged bool) foundContext {
		c := foundContext{namespace: namespace, name: name, ids: []string{"default"}, isManaged: isManaged}
		if isManaged {
			c.content.labels = labels
		}
		return c
	}
	for name, test := range map[string]struct {
		options  policy.Options
		found    []foundContext
		wide     map[string][]string
		requests []string
		recorded []string
		// left are the TLSContexts of the namespace afterwards.
		left []string
	}{
		"if one is requested, expect it with its companion": {
			options: requested, requests: []string{"patch", "patch"}, left: []string{"istio-upstream", "istio-upstream-tcp"},
		},
		"if none is requested, expect both to go": {
			options: policy.Options{SecretName: "istio-certs"}, found: []foundContext{found("edge", "istio-upstream", true), found("edge", "istio-upstream-tcp", true)},
			requests: []string{"get", "delete", "get", "delete"},
		},
		"if another name is requested, expect the others to go": {
			options: policy.Options{SecretName: "istio-certs", TLSContext: "mesh-upstream"}, found: []foundContext{found("edge", "istio-upstream", true), found("edge", "istio-upstream-tcp", true)},
			requests: []string{"get", "delete", "get", "delete", "patch", "patch"}, left: []string{"mesh-upstream", "mesh-upstream-tcp"},
		},
		"if none is requested and one is someone else's, expect it left": {
			options: policy.Options{SecretName: "istio-certs"}, found: []foundContext{found("edge", "istio-upstream", false)}, left: []string{"istio-upstream"},
		},
		"if one is someone else's, expect an Event": {
			options: requested, found: []foundContext{found("edge", "istio-upstream", false)}, requests: []string{"patch"},
			recorded: []string{EventConflict}, left: []string{"istio-upstream", "istio-upstream-tcp"},
		},
		"if another namespace has one, expect Events on both and the companion alone": {
			options: requested, found: []foundContext{found("aaa", "istio-upstream", false)}, requests: []string{"patch"},
			recorded: []string{EventContextClash, EventContextClash}, left: []string{"istio-upstream-tcp"},
		},
		"if both are there and Emissary uses the other, expect ours to go after the Events": {
			options: requested, found: []foundContext{found("aaa", "istio-upstream", true), found("edge", "istio-upstream", true)}, wide: map[string][]string{"aaa": {"default"}},
			requests: []string{"get", "delete", "patch"}, recorded: []string{EventContextClash, EventContextClash}, left: []string{"istio-upstream-tcp"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChecker(t, newAuthority(t))
			c.Settings.TLSContextNames = []string{"istio-upstream", "mesh-upstream"}
			c.contexts = knownContexts(c.Settings)
			for _, f := range test.found {
				c.contexts.put(f)
			}
			maps.Copy(c.contexts.wide, test.wide)
			o := newOwnedObject(c)
			o.setCurrent(labels)
			o.keepCurrent = true
			c.state.secrets["istio-certs"] = goodSecret("emissary")
			require.NoError(t, c.reconcileContexts(t.Context(), c.state, test.options, []claim{podClaim("front", "emissary", time.Hour)}))
			assert.Equal(t, test.requests, o.requests)
			assert.Equal(t, test.recorded, c.recorded)
			var left []string
			for name, namespaces := range c.contexts.found {
				if _, ok := namespaces["edge"]; ok {
					left = append(left, name)
				}
			}
			slices.Sort(left)
			assert.Equal(t, test.left, left)
		})
	}
}

// A clash is reported once for as long as it lasts, also when the companion has none,
// and again when it comes back.
func TestClashIsReportedOnce(t *testing.T) {
	c := newChecker(t, newAuthority(t))
	newOwnedObject(c)
	c.state.secrets["istio-certs"] = goodSecret("emissary")
	claims := []claim{podClaim("front", "emissary", time.Hour)}
	both := []string{EventContextClash, EventContextClash}
	other := foundContext{namespace: "aaa", name: "istio-upstream", ids: []string{"default"}}
	look := func(options policy.Options, want []string, why string) {
		t.Helper()
		c.recorded = nil
		for range 3 {
			require.NoError(t, c.reconcileContexts(t.Context(), c.state, options, claims))
		}
		assert.Equal(t, want, c.recorded, why)
	}
	c.contexts.put(other)
	look(requested, both, "the first clash")
	look(requested, nil, "it lasts")
	c.contexts.remove("aaa", "istio-upstream")
	look(requested, nil, "it has ended")
	c.contexts.remove("edge", "istio-upstream")
	c.contexts.put(other)
	look(requested, both, "it came back")
	look(policy.Options{SecretName: "istio-certs"}, nil, "nothing asks for a TLSContext")
	look(requested, both, "it is asked for again")
}

// A TLSContext that was not written, since its namespace is gone, stands in nobody's
// way.
func TestTLSContextThatWasNotWrittenIsForgotten(t *testing.T) {
	c := newChecker(t, newAuthority(t))
	o := newOwnedObject(c)
	o.fail["patch"] = apierrors.NewNotFound(corev1.Resource("namespaces"), "edge")
	c.state.secrets["istio-certs"] = goodSecret("emissary")
	require.NoError(t, c.reconcileContexts(t.Context(), c.state, requested, []claim{podClaim("front", "emissary", time.Hour)}))
	require.Len(t, o.requests, 2)
	assert.Empty(t, c.contexts.found["istio-upstream"])
	assert.Empty(t, c.contexts.found["istio-upstream-tcp"])

	c.contexts.put(foundContext{namespace: "edge", name: "istio-upstream", isManaged: true})
	c.contexts.put(foundContext{namespace: "edge", name: "istio-upstream-tcp"})
	require.NoError(t, c.deleteContexts(t.Context(), "edge"))
	assert.Empty(t, c.contexts.found["istio-upstream"])
	assert.NotEmpty(t, c.contexts.found["istio-upstream-tcp"], "it is someone else's")
}
