package controller

import (
	"errors"
	"testing"
	"time"
	"unique"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestDecideOwned(t *testing.T) {
	for name, test := range map[string]struct {
		o    ownedObservation
		want ownedAction
	}{
		"if it is wanted and unknown, expect it to be read":       {ownedObservation{wanted: "{}"}, ownedObserve},
		"if it is wanted and absent, expect it to be applied":     {ownedObservation{wanted: "{}", current: absent}, ownedApply},
		"if it is wanted and ours, expect it to be applied":       {ownedObservation{wanted: "{}", current: managed}, ownedApply},
		"if it is wanted and another's, expect an Event":          {ownedObservation{wanted: "{}", current: unmanaged}, ownedReport},
		"if it is applied, expect nothing":                        {ownedObservation{wanted: "{}", applied: "{}", isKnown: true}, ownedKeep},
		"if something else is applied, expect it to be read":      {ownedObservation{wanted: "{1}", applied: "{}", isKnown: true}, ownedObserve},
		"if it is wanted and known to be absent, expect a read":   {ownedObservation{wanted: "{}", isKnown: true}, ownedObserve},
		"if it is not wanted at the first scan, expect nothing":   {ownedObservation{}, ownedKeep},
		"if it is not wanted at the second scan, expect a read":   {ownedObservation{rescanned: true}, ownedObserve},
		"if it is not wanted and known to be absent, keep it so":  {ownedObservation{isKnown: true, rescanned: true}, ownedKeep},
		"if it is not wanted any more, expect a read":             {ownedObservation{applied: "{}", isKnown: true}, ownedObserve},
		"if it is not wanted any more and ours, expect its end":   {ownedObservation{applied: "{}", isKnown: true, current: managed}, ownedDelete},
		"if it is left from before and ours, expect its end":      {ownedObservation{rescanned: true, current: managed}, ownedDelete},
		"if it is not wanted and absent, expect that to be known": {ownedObservation{rescanned: true, current: absent}, ownedForget},
		"if it is not wanted and another's, expect it to be left": {ownedObservation{rescanned: true, current: unmanaged}, ownedForget},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, decideOwned(test.o)) })
	}
}

func TestOwnershipOf(t *testing.T) {
	ours := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{policy.ManagedByLabel: policy.ManagedBy}}}
	failure := errors.New("connection refused")
	for name, test := range map[string]struct {
		current *corev1.Secret
		err     error
		want    ownership
	}{
		"if it has our label, expect it to be managed":  {ours, nil, managed},
		"if it has no label, expect it to be unmanaged": {&corev1.Secret{}, nil, unmanaged},
		"if there is none, expect it to be absent":      {nil, apierrors.NewNotFound(corev1.Resource("secrets"), "s"), absent},
		"if it cannot be read, expect the error":        {nil, failure, notObserved},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ownershipOf(test.current, test.err)
			assert.Equal(t, test.want, got)
			assert.Equal(t, test.want == notObserved, err != nil)
		})
	}
}

func TestDesiredBinding(t *testing.T) {
	agent := func(name, account string) claim {
		c := podClaim(name, account, time.Hour)
		c.options.Source = policy.Agent
		return c
	}
	annotation := agent("", "named")
	annotation.uid = ""
	assert.Nil(t, desiredBinding("edge", []claim{podClaim("front", "emissary", time.Hour), annotation}), "no pod carries the publisher")
	assert.Equal(t, map[string]any{
		"roleRef": map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "isthmus-publisher"},
		"subjects": []any{
			map[string]any{"kind": "ServiceAccount", "name": "a", "namespace": "edge"},
			map[string]any{"kind": "ServiceAccount", "name": "b", "namespace": "edge"},
		},
	}, desiredBinding("edge", []claim{agent("1", "b"), agent("2", "a"), agent("3", "b"), annotation}))
}

func TestNeedsRoots(t *testing.T) {
	emissary, other := podClaim("front", "emissary", time.Hour), podClaim("other", "emissary", time.Hour)
	other.secret = patches.SecretFacts{}
	elsewhere, ambient := emissary, emissary
	elsewhere.options.SecretName, ambient.mode = "other-certs", policy.Ambient
	requested := policy.Options{SecretName: "istio-certs", TLSContext: "istio-upstream"}
	for name, test := range map[string]struct {
		claims  []claim
		options policy.Options
		want    bool
	}{
		"if an edge reads them, expect them":                          {[]claim{other, emissary}, policy.Options{}, true},
		"if an edge reads them from the Secret, expect them":          {[]claim{fromSecret(emissary)}, policy.Options{}, true},
		"if no edge reads them, expect none":                          {[]claim{other}, policy.Options{}, false},
		"if a TLSContext names them, expect them":                     {[]claim{other}, requested, true},
		"if a TLSContext of another Secret is requested, expect none": {[]claim{other}, policy.Options{SecretName: "other-certs", TLSContext: "istio-upstream"}, false},
		"if the edge has another Secret, expect none":                 {[]claim{elsewhere}, requested, false},
		"if the edge has no certificate, expect none":                 {[]claim{ambient}, requested, false},
		"if there is no edge, expect none":                            {nil, requested, false},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, needsRoots("istio-certs", test.claims, test.options)) })
	}
}

// fromSecret is the claim of an edge that reads the Secret.
func fromSecret(c claim) claim {
	c.options.Delivery = policy.DeliverySecret
	return c
}

func TestDesiredRoots(t *testing.T) {
	good := &secretState{state: publish.Good, roots: unique.Make("the roots")}
	bad := &secretState{state: publish.Bad, roots: good.roots}
	for name, test := range map[string]struct {
		s    *secretState
		want string
	}{
		"if the Secret is good, expect its roots":        {good, "the roots"},
		"if the Secret has become bad, expect none":      {bad, ""},
		"if there is no Secret, expect none":             {&secretState{state: publish.Absent}, ""},
		"if the Secret is not writable, expect none":     {&secretState{state: publish.Foreign}, ""},
		"if the Secret was not checked yet, expect none": {&secretState{}, ""},
		"if no edge claims the Secret, expect none":      {nil, ""},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, desiredRoots(test.s)) })
	}
}
