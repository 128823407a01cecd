package controller

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/publish"
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
	oneRevision := defaultMesh()
	oneRevision["canary"] = meshSettings{err: errors.New("no revision canary")}
	for name, test := range map[string]struct {
		o      secretObservation
		former string
		want   string
		state  publish.State
		err    string
	}{
		"if there is one claim, expect it":                                     {o: secretObservation{claims: []claim{a}}, want: "account-a", state: publish.Absent},
		"if there is no Secret, expect the first":                              {o: secretObservation{claims: []claim{a, b}}, want: "account-a", state: publish.Absent},
		"if the Secret was deleted, expect the one that it served":             {o: secretObservation{claims: []claim{a, b}}, former: idOf("account-b").String(), want: "account-b", state: publish.Absent},
		"if the one that it served is gone, expect the first":                  {o: secretObservation{claims: []claim{a}}, former: idOf("account-b").String(), want: "account-a", state: publish.Absent},
		"if the Secret is valid, expect the one that it serves":                {o: secretObservation{secret: valid, claims: []claim{a, b}}, want: "account-b", state: publish.Good},
		"if the Secret is valid and served another before, expect the one now": {o: secretObservation{secret: valid, claims: []claim{a, b}}, former: idOf("account-a").String(), want: "account-b", state: publish.Good},
		"if the Secret expired, expect the one that it served":                 {o: secretObservation{secret: expired, claims: []claim{a, b}}, want: "account-b", state: publish.Bad},
		"if the Secret lost its annotations, expect the one before":            {o: secretObservation{secret: damaged, claims: []claim{a, b}}, former: idOf("account-b").String(), want: "account-b", state: publish.Bad},
		"if the Secret serves none of them, expect a conflict of the first":    {o: secretObservation{secret: others, claims: []claim{a, b}}, want: "account-a", state: publish.OtherIdentity},
		"if the roots are unknown, expect that":                                {o: secretObservation{claims: []claim{a}, rootsErr: errors.New("no ConfigMap")}, err: "roots of the mesh: no ConfigMap"},
		// Today's behaviour: a claim whose revision is unknown fails the check, unless the
		// Secret is valid for a claim before it.
		"if the revision of a later claim is unknown and the Secret is valid, expect the one that it serves": {
			o: secretObservation{secret: valid, claims: []claim{b, unknown}, mesh: oneRevision}, want: "account-b", state: publish.Good,
		},
		"if the revision of an earlier claim is unknown and the Secret is valid, expect that": {
			o: secretObservation{secret: valid, claims: []claim{unknown, b}, mesh: oneRevision}, err: "no revision canary",
		},
		"if the revision of a later claim is unknown and the Secret is not valid, expect that": {
			o: secretObservation{secret: expired, claims: []claim{b, unknown}, mesh: oneRevision}, err: "no revision canary",
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
			h, err := chooseHolder(o, test.former, noon)
			if test.err != "" {
				assert.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, h.serviceAccount)
			assert.Equal(t, idOf(test.want), h.target.ID)
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
	h, err := chooseHolder(o, "", noon)
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

func TestSourceOfSeveralClaims(t *testing.T) {
	ca, agent := podClaim("a", "a", time.Hour), podClaim("b", "b", time.Hour)
	agent.options.Source = policy.Agent
	assert.Equal(t, policy.IstioCA, sourceOf([]claim{ca}))
	assert.Equal(t, policy.Agent, sourceOf([]claim{ca, agent}), "the controller and a pod never both write")
}
