package controller

import (
	"cmp"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestChooseHolder(t *testing.T) {
	a, b := podClaim("pod-a", "account-a", 2*time.Hour), podClaim("pod-b", "account-b", time.Hour)
	ca := newAuthority(t)
	valid := ca.secretOf(t, ca.bundle(t, "account-b", noon.Add(-time.Hour), noon.Add(time.Hour)), policy.IstioCA, noon.Add(-time.Hour))
	expired := ca.secretOf(t, ca.bundle(t, "account-b", noon.Add(-2*time.Hour), noon.Add(-time.Hour)), policy.IstioCA, noon.Add(-2*time.Hour))
	damaged := expired.DeepCopy()
	damaged.Annotations = nil
	others := ca.secretOf(t, ca.bundle(t, "account-c", noon.Add(-time.Hour), noon.Add(time.Hour)), policy.IstioCA, noon.Add(-time.Hour))
	unknown := podClaim("pod-c", "account-c", 3*time.Hour)
	unknown.options.Revision = "canary"
	sameAccount := podClaim("pod-d", "account-c", time.Hour)
	otherDomain := map[string]meshSettings{"": {Mesh: patches.Mesh{TrustDomain: "new.example"}.WithDefaults()}}
	oneRevision := defaultMesh()
	oneRevision["canary"] = meshSettings{err: errors.New("no revision canary")}
	for name, test := range map[string]struct {
		o      secretObservation
		former spiffeid.ID
		want   string
		state  publish.State
		// ignored are the service accounts whose claims are left out.
		ignored []string
		domain  string
		err     string
	}{
		"if there is one claim, expect it":                                     {o: secretObservation{claims: []claim{a}}, want: "account-a", state: publish.Absent},
		"if there is no Secret, expect the first":                              {o: secretObservation{claims: []claim{a, b}}, want: "account-a", state: publish.Absent},
		"if the Secret was deleted, expect the one that it served":             {o: secretObservation{claims: []claim{a, b}}, former: idOf("account-b"), want: "account-b", state: publish.Absent},
		"if the one that it served is gone, expect the first":                  {o: secretObservation{claims: []claim{a}}, former: idOf("account-b"), want: "account-a", state: publish.Absent},
		"if the Secret is valid, expect the one that it serves":                {o: secretObservation{secret: valid, claims: []claim{a, b}}, want: "account-b", state: publish.Good},
		"if the Secret is valid and served another before, expect the one now": {o: secretObservation{secret: valid, claims: []claim{a, b}}, former: idOf("account-a"), want: "account-b", state: publish.Good},
		"if the Secret expired, expect the one that it served":                 {o: secretObservation{secret: expired, claims: []claim{a, b}}, want: "account-b", state: publish.Bad},
		"if the Secret lost its annotations, expect the one before":            {o: secretObservation{secret: damaged, claims: []claim{a, b}}, former: idOf("account-b"), want: "account-b", state: publish.Bad},
		"if the Secret serves none of them, expect a conflict of the first":    {o: secretObservation{secret: others, claims: []claim{a, b}}, want: "account-a", state: publish.OtherIdentity},
		"if the roots are unknown, expect that":                                {o: secretObservation{claims: []claim{a}, rootsErr: errors.New("no ConfigMap")}, err: "roots of the mesh: no ConfigMap"},
		"if the revision of a later claim is unknown and the Secret is valid, expect the one that it serves": {
			o: secretObservation{secret: valid, claims: []claim{b, unknown}, mesh: oneRevision}, want: "account-b", state: publish.Good,
		},
		"if the revision of an earlier claim is unknown and the Secret is valid, expect it to be left out": {
			o: secretObservation{secret: valid, claims: []claim{unknown, b}, mesh: oneRevision}, want: "account-b", state: publish.Good, ignored: []string{"account-c"},
		},
		"if the revision of a later claim is unknown and the Secret is not valid, expect it to be left out": {
			o: secretObservation{secret: expired, claims: []claim{b, unknown}, mesh: oneRevision}, want: "account-b", state: publish.Bad, ignored: []string{"account-c"},
		},
		"if a later pod of the same account names a revision that is known, expect that": {
			o: secretObservation{claims: []claim{unknown, sameAccount}, mesh: oneRevision}, want: "account-c", state: publish.Absent, ignored: []string{"account-c"},
		},
		"if the trust domain changed, expect the one that it served": {
			o: secretObservation{secret: valid, claims: []claim{a, b}, mesh: otherDomain}, want: "account-b", state: publish.Bad, domain: "new.example",
		},
		"if the trust domain changed and the Secret is gone, expect the one that it served": {
			o: secretObservation{claims: []claim{a, b}, mesh: otherDomain}, former: idOf("account-b"), want: "account-b", state: publish.Absent, domain: "new.example",
		},
		"if a revision is unknown, expect that": {
			o: secretObservation{claims: []claim{a}, mesh: map[string]meshSettings{"": {err: errors.New("no revision")}}}, err: "no revision",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := test.o
			o.namespace, o.name, o.roots = "edge", "istio-certs", ca.roots()
			if o.mesh == nil {
				o.mesh = defaultMesh()
			}
			h, ignored, err := chooseHolder(o, test.former, noon)
			if test.err != "" {
				assert.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, h.serviceAccount)
			assert.Equal(t, spiffeid.RequireFromString(fmt.Sprintf("spiffe://%s/ns/edge/sa/%s", cmp.Or(test.domain, "cluster.local"), test.want)), h.target.ID)
			var accounts []string
			for _, i := range ignored {
				accounts = append(accounts, i.serviceAccount)
			}
			assert.Equal(t, test.ignored, accounts)
			assert.Equal(t, test.state, h.observation.State)
		})
	}
}

// A simulation inspects Secrets without PEM.
func TestChooseHolderWithAnotherInspection(t *testing.T) {
	var inspected []string
	o := secretObservation{namespace: "edge", name: "istio-certs", mesh: defaultMesh(), claims: []claim{podClaim("pod-a", "account-a", time.Hour), podClaim("pod-b", "account-b", 0)}}
	o.inspect = func(target publish.Target, now time.Time) publish.Observation {
		assert.Equal(t, noon, now)
		inspected = append(inspected, target.ID.String())
		if target.ID == idOf("account-b") {
			return publish.Observation{State: publish.Good}
		}
		return publish.Observation{State: publish.OtherIdentity}
	}
	h, _, err := chooseHolder(o, spiffeid.ID{}, noon)
	require.NoError(t, err)
	assert.Equal(t, "account-b", h.serviceAccount)
	assert.Equal(t, []string{idOf("account-a").String(), idOf("account-b").String()}, inspected)
}

func TestClaimsByPrecedence(t *testing.T) {
	older, younger := podClaim("z", "z", 2*time.Hour), podClaim("a", "a", time.Hour)
	same := podClaim("b", "b", time.Hour)
	ambient := podClaim("ambient", "ambient", 3*time.Hour)
	ambient.mode = policy.Ambient
	annotation := claim{mode: policy.Sidecar, serviceAccount: "named", options: older.options}
	elsewhere := podClaim("c", "c", time.Hour)
	elsewhere.options.SecretName = "istio-other"
	groups := groupBySecret([]claim{same, younger, ambient, older, elsewhere, annotation})
	var accounts []string
	for _, c := range groups["istio-certs"] {
		accounts = append(accounts, c.serviceAccount)
	}
	assert.Equal(t, []string{"named", "z", "a", "b"}, accounts)
	assert.Len(t, groups["istio-other"], 1)
	assert.Len(t, groups, 2)
}

// The claims of the service account that holds the Secret decide on its source.
func TestSourceOfSeveralClaims(t *testing.T) {
	ca, agent, other := podClaim("a", "a", time.Hour), podClaim("b", "a", time.Hour), podClaim("c", "c", time.Hour)
	agent.options.Source, other.options.Source = policy.Agent, policy.Agent
	assert.Equal(t, policy.IstioCA, sourceOf([]claim{ca}))
	assert.Equal(t, policy.Agent, sourceOf([]claim{ca, agent}), "the controller and a pod do not both renew")

	o := secretObservation{namespace: "edge", name: "istio-certs", claims: []claim{ca, other}, roots: newAuthority(t).roots(), mesh: defaultMesh()}
	h, _, err := chooseHolder(o, spiffeid.ID{}, noon)
	require.NoError(t, err)
	assert.Equal(t, policy.IstioCA, h.source, "a claim that loses changes nothing")
	o.claims = []claim{ca, other, agent}
	h, _, err = chooseHolder(o, spiffeid.ID{}, noon)
	require.NoError(t, err)
	assert.Equal(t, policy.Agent, h.source)
}

// The publisher of a service account that the Secret does not serve may not write it.
func TestHoldingClaims(t *testing.T) {
	front, back, elsewhere := podClaim("front", "emissary", time.Hour), podClaim("back", "other", 0), podClaim("c", "c", 0)
	groups := map[string][]claim{"istio-certs": {front, back}, "istio-other": {elsewhere}}
	secrets := map[string]*secretState{"istio-certs": {account: "emissary", target: publish.Target{Name: "istio-certs"}}, "istio-other": {}}
	_, isKnown := holdingClaims(groups, secrets)
	assert.False(t, isKnown, "one was not checked")
	secrets["istio-other"] = &secretState{account: "c", target: publish.Target{Name: "istio-other"}}
	holding, isKnown := holdingClaims(groups, secrets)
	assert.True(t, isKnown)
	assert.ElementsMatch(t, []claim{front, elsewhere}, holding)

	secrets["istio-other"] = &secretState{hasIgnored: true}
	holding, isKnown = holdingClaims(groups, secrets)
	assert.True(t, isKnown, "one that cannot be checked does not keep the others waiting")
	assert.ElementsMatch(t, []claim{front, elsewhere}, holding, "the only service account that claims it keeps its rights")
	groups["istio-other"] = append(groups["istio-other"], podClaim("d", "d", 0))
	holding, isKnown = holdingClaims(groups, secrets)
	assert.True(t, isKnown)
	assert.ElementsMatch(t, []claim{front}, holding, "of two service accounts nobody knows which it serves")
}
