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

func TestDesiredTLSContext(t *testing.T) {
	options := policy.Options{SecretName: "istio-certs", TLSContext: "istio-upstream"}
	files, fromSecret := podClaim("files", "emissary", time.Hour), podClaim("secret", "emissary", time.Hour)
	fromSecret.options.Delivery = policy.DeliverySecret
	withIDs := podClaim("named", "emissary", time.Hour)
	withIDs.ambassadorIDs = []string{"public", "internal", "public"}
	for name, test := range map[string]struct {
		options policy.Options
		claims  []claim
		want    map[string]any
		roots   string
	}{
		"if nothing asks for it, expect none":      {policy.Options{SecretName: "istio-certs"}, []claim{files}, nil, ""},
		"if there is no edge, expect none":         {options, nil, nil, ""},
		"if an edge reads files, expect the roots": {options, []claim{fromSecret, files}, map[string]any{"ca_secret": "istio-certs-roots"}, "istio-certs-roots"},
		"if all edges read the Secret, expect no roots": {
			options, []claim{fromSecret}, map[string]any{}, "",
		},
		"if edges have ids, expect each once": {
			options, []claim{fromSecret, {options: fromSecret.options, ambassadorIDs: withIDs.ambassadorIDs}}, map[string]any{"ambassador_id": []any{"internal", "public"}}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, roots := desiredTLSContext(test.options, test.claims)
			assert.Equal(t, test.roots, roots)
			if test.want == nil {
				assert.Nil(t, got)
				return
			}
			test.want["secret"], test.want["alpn_protocols"], test.want["secret_namespacing"] = "istio-certs", "istio", false
			assert.Equal(t, map[string]any{"spec": test.want}, got)
		})
	}
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
