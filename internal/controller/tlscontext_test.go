package controller

import (
	"errors"
	"testing"
	"time"
	"unique"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestReconcileRoots(t *testing.T) {
	good := &secretState{state: publish.Good, roots: unique.Make("the roots")}
	secret := func(labels map[string]string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "istio-certs-roots", Labels: labels}}
	}
	ours := map[string]string{policy.ManagedByLabel: policy.ManagedBy}
	for name, test := range map[string]struct {
		state     *secretState
		current   *corev1.Secret
		applied   map[string]string
		fail      error
		isApplied bool
		writes    int
		recorded  []string
		err       string
	}{
		"if there are none, expect the roots":                  {state: good, isApplied: true, writes: 1},
		"if they are ours, expect them to be applied":          {state: good, current: secret(ours), isApplied: true, writes: 1},
		"if they are applied, expect no write":                 {state: good, applied: map[string]string{"istio-certs-roots": "the roots"}, isApplied: true},
		"if other roots are applied, expect the roots":         {state: good, current: secret(ours), applied: map[string]string{"istio-certs-roots": "old"}, isApplied: true, writes: 1},
		"if they are someone else's, expect an Event":          {state: good, current: secret(nil), recorded: []string{EventConflict}},
		"if the Secret is bad, expect no roots":                {state: &secretState{state: publish.Bad, roots: good.roots}},
		"if the Secret was not checked yet, expect no roots":   {},
		"if they cannot be applied, expect the error":          {state: good, fail: errors.New("connection refused"), err: "connection refused"},
		"if the Secret turned bad, expect the roots to remain": {state: &secretState{state: publish.Bad, roots: good.roots}, current: secret(ours), applied: map[string]string{"istio-certs-roots": "the roots"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChecker(t, newAuthority(t))
			c.store.secret, c.store.fail = test.current, test.fail
			if test.state != nil {
				c.state.secrets["istio-certs"] = test.state
			}
			if test.applied != nil {
				c.state.applied = test.applied
			}
			isApplied, err := c.reconcileRoots(t.Context(), c.state, "istio-certs")
			assert.Equal(t, test.isApplied, isApplied)
			if test.err == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.err)
			}
			assert.Equal(t, test.writes, c.store.applies)
			assert.Equal(t, test.recorded, c.recorded)
			if test.writes > 0 {
				assert.Equal(t, "istio-certs-roots", c.store.secret.Name)
				assert.Equal(t, map[string][]byte{"tls.crt": []byte("the roots")}, c.store.secret.Data)
				assert.Equal(t, ours, c.store.secret.Labels)
				assert.Equal(t, "the roots", c.state.applied["istio-certs-roots"])
			}
		})
	}
}

// A TLSContext that refers to roots is applied after them.
func TestTLSContextWaitsForItsRoots(t *testing.T) {
	c := newChecker(t, newAuthority(t))
	o := newOwnedObject(c)
	options := policy.Options{SecretName: "istio-certs", TLSContext: "istio-upstream"}
	claims := []claim{podClaim("front", "emissary", time.Hour)}
	require.NoError(t, c.reconcileTLSContext(t.Context(), c.state, options, claims))
	assert.Empty(t, o.requests, "there is no certificate yet")

	c.state.secrets["istio-certs"] = &secretState{state: publish.Good, roots: unique.Make("the roots")}
	require.NoError(t, c.reconcileTLSContext(t.Context(), c.state, options, claims))
	assert.Equal(t, 1, c.store.applies)
	assert.Equal(t, []string{"get", "patch"}, o.requests)

	claims[0].options.Delivery = policy.DeliverySecret
	require.NoError(t, c.reconcileTLSContext(t.Context(), c.state, options, claims))
	assert.Equal(t, []string{"get", "patch", "get", "patch"}, o.requests, "without roots its content is another")
	assert.Equal(t, 1, c.store.applies)
}
