package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestDesiredContext(t *testing.T) {
	edge := func(name string, change ...func(*claim)) claim {
		c := podClaim(name, "emissary", time.Hour)
		for _, f := range change {
			f(&c)
		}
		return c
	}
	id := func(value string) func(*claim) { return func(c *claim) { c.id.Value = value } }
	account := func(name string) func(*claim) { return func(c *claim) { c.serviceAccount = name } }
	unknown := func(c *claim) { c.id = inject.Variable{Origin: "key id of ConfigMap settings"} }
	uncertain := func(c *claim) {
		c.id = inject.Variable{Origin: "ConfigMap settings (envFrom)", IsUncertain: true}
	}
	otherSecret := func(c *claim) { c.options.SecretName = "other-certs" }
	alone := func(c *claim) { c.seesAll = false }
	owned := func(c *claim) {
		c.owner = &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "edge-abc", UID: "rs-1"}
	}
	unrecognised := func(c *claim) { c.secret = patches.SecretFacts{} }
	ambient := func(c *claim) { c.mode = policy.Ambient }
	named := edge("", func(c *claim) { c.uid, c.secret = "", patches.SecretFacts{} })

	for name, test := range map[string]struct {
		options policy.Options
		claims  []claim
		holder  string
		// hasUnclear is true when nothing says which Secret a pod holds.
		hasUnclear bool
		// ids is nil when no TLSContext is wanted. wide defaults to ids.
		ids, wide []string
		events    []string
		// isUnknown is true when what is there stays.
		isUnknown bool
	}{
		"if nothing asks for it, expect none":                  {options: policy.Options{SecretName: "istio-certs"}, claims: []claim{edge("1")}},
		"if there is no edge, expect none":                     {},
		"if it is not known who holds the Secret, keep them":   {claims: []claim{edge("1")}, holder: "none", isUnknown: true},
		"if nobody claims the Secret, expect none":             {claims: []claim{edge("1", otherSecret)}, holder: "none"},
		"if an ambient edge alone names it, expect none":       {claims: []claim{edge("1", ambient)}, holder: "none"},
		"if every edge is unclear, keep them":                  {holder: "none", hasUnclear: true, isUnknown: true},
		"if an unclear edge may hold the Secret, keep them":    {claims: []claim{edge("1", otherSecret)}, holder: "none", hasUnclear: true, isUnknown: true},
		"if another edge is unclear, expect the IDs known":     {claims: []claim{edge("1", id("one"))}, hasUnclear: true, ids: []string{"one"}},
		"if nothing asks for it and one is unclear, none":      {options: policy.Options{SecretName: "istio-certs"}, hasUnclear: true},
		"if no edge has an ID, expect the default":             {claims: []claim{edge("1"), edge("2")}, ids: []string{"default"}},
		"if one of two edges has an ID, expect both":           {claims: []claim{edge("1"), edge("2", id("two"))}, ids: []string{"default", "two"}},
		"if edges share an ID, expect it once":                 {claims: []claim{edge("1", id("two")), edge("2", id("one")), edge("3", id("two"))}, ids: []string{"one", "two"}},
		"if an edge sees its namespace alone, expect its ID":   {claims: []claim{edge("1", alone), edge("2", id("two"))}, ids: []string{"default", "two"}, wide: []string{"two"}},
		"if only the namespace names an account, expect it":    {claims: []claim{named}, ids: []string{"default"}},
		"if the account's edge has an ID, expect that alone":   {claims: []claim{named, edge("1", id("one"))}, ids: []string{"one"}},
		"if another edge is not Emissary, expect no ID of it":  {claims: []claim{edge("1", id("one")), edge("2", unrecognised)}, ids: []string{"one"}},
		"if no profile tells of TLSContexts, expect all edges": {claims: []claim{edge("1", id("one"), unrecognised), edge("2", unrecognised)}, ids: []string{"default", "one"}},
		"if an edge is in mode ambient, expect no ID of it":    {claims: []claim{edge("1", id("one")), edge("2", ambient)}, ids: []string{"one"}},
		"if all edges are in mode ambient, expect none":        {claims: []claim{edge("2", ambient)}},
		"if an edge has another Secret, expect an Event and no ID of it": {
			claims: []claim{edge("1", id("one"), account("emissary")), edge("2", id("two"), otherSecret, account("two"), owned)}, ids: []string{"one"},
			events: []string{
				`Pod/2 TLSContextNotForEdge: TLSContext edge/istio-upstream is for the edges that hold Secret istio-certs of service account emissary, and this edge (AMBASSADOR_ID "two") holds another: it gets no TLSContext of Isthmus; write one for it that names its own Secret and its own AMBASSADOR_ID`,
				`ReplicaSet/edge-abc TLSContextNotForEdge: TLSContext edge/istio-upstream is for`,
			},
		},
		"if an edge of another account lost the Secret, expect an Event and no ID of it": {
			claims: []claim{edge("1", id("one")), edge("2", account("two"))}, ids: []string{"one"},
			events: []string{`Pod/2 TLSContextNotForEdge: `},
		},
		"if no edge holds the Secret, expect an Event and none": {
			claims: []claim{edge("2", otherSecret)}, events: []string{`Pod/2 TLSContextNotForEdge: `},
		},
		"if an ID comes from a ConfigMap, expect an Event and no ID of it": {
			claims: []claim{edge("1"), edge("2", unknown)}, ids: []string{"default"},
			events: []string{`Pod/2 AmbassadorIDUnknown: AMBASSADOR_ID comes from key id of ConfigMap settings, which Isthmus does not read, so TLSContext edge/istio-upstream does not name it and the edge ignores the TLSContext; set AMBASSADOR_ID to a value, or take it from a label of the pod by fieldRef`},
		},
		"if every ID comes from a ConfigMap, expect an Event and none": {
			claims: []claim{edge("2", unknown)}, events: []string{`Pod/2 AmbassadorIDUnknown: `},
		},
		"if a ConfigMap may set the ID, expect an Event and the default": {
			claims: []claim{edge("1", uncertain)}, ids: []string{"default"},
			events: []string{`Pod/1 AmbassadorIDUnknown: AMBASSADOR_ID may come from ConfigMap settings (envFrom), which Isthmus does not read; TLSContext edge/istio-upstream addresses the edge as "default"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			options, holder := test.options, "emissary"
			if options.SecretName == "" {
				options = requested
			}
			if test.holder == "none" {
				holder = ""
			}
			d := desiredContext("edge", options, test.claims, holder, test.hasUnclear)
			if test.wide == nil {
				test.wide = test.ids
			}
			assert.Equal(t, test.ids, d.ids)
			assert.Equal(t, test.wide, d.wide)
			assert.Equal(t, test.isUnknown, d.isUnknown)
			assert.Equal(t, test.ids != nil, d.name != "")
			require.Len(t, d.events, len(test.events))
			for i, e := range d.events {
				assert.Contains(t, fmt.Sprintf("%s/%s %s: %s", e.Regarding.Kind, e.Regarding.Name, e.Reason, e.Note), test.events[i])
			}
		})
	}
}

func TestContextSpec(t *testing.T) {
	d := contextDesire{name: "istio-upstream", secret: "istio-certs", ids: []string{"default"}}
	want := map[string]any{"secret": "istio-certs", "ca_secret": "istio-certs-roots", "alpn_protocols": "istio-http/1.1,istio", "secret_namespacing": false}
	assert.Equal(t, want, d.spec("istio-http/1.1,istio"), "without IDs it is for the default ID")
	d.ids = []string{"default", "two"}
	want["ambassador_id"], want["alpn_protocols"] = []any{"default", "two"}, "istio"
	assert.Equal(t, want, d.spec("istio"))
}

func TestDecideContext(t *testing.T) {
	found := func(namespace string, isManaged bool, ids ...string) foundContext {
		return foundContext{namespace: namespace, name: "istio-upstream", ids: ids, isManaged: isManaged}
	}
	ours := func(namespace string, wide []string, ids ...string) otherContext {
		return otherContext{foundContext: found(namespace, true, ids...), wide: wide}
	}
	theirs := func(namespace string, ids ...string) otherContext {
		return otherContext{foundContext: found(namespace, false, ids...)}
	}
	all := []string{"default", "one", "two"}
	alone := []string{}
	for name, test := range map[string]struct {
		// ids and wide are those of the edges of namespace m; wide defaults to ids.
		ids, wide []string
		// current are the IDs of the TLSContext of m; nil when there is none.
		current []string
		foreign bool
		others  []otherContext
		first   bool // the first scan of m
		want    contextAction
		clashes []string
	}{
		"if there is no other, expect it":                                 {want: contextApply},
		"if it is someone else's, expect a report":                        {current: all, foreign: true, want: contextReport},
		"if an earlier namespace has one, expect none":                    {others: []otherContext{ours("a", all, "default")}, want: contextKeep, clashes: []string{"a default"}},
		"if a later namespace has one, expect none":                       {others: []otherContext{ours("z", all, "default")}, want: contextKeep, clashes: []string{"z default"}},
		"if an earlier one is made by hand, expect none":                  {others: []otherContext{theirs("a", "default")}, want: contextKeep, clashes: []string{"a default"}},
		"if a later one is made by hand, expect none":                     {others: []otherContext{theirs("z", "default")}, want: contextKeep, clashes: []string{"z default"}},
		"if the IDs are disjoint, expect it":                              {ids: []string{"two"}, others: []otherContext{ours("a", all, "one"), theirs("z", "default")}, want: contextApply},
		"if the IDs overlap, expect none":                                 {ids: []string{"one", "two"}, others: []otherContext{ours("a", all, "one")}, want: contextKeep, clashes: []string{"a one"}},
		"if several IDs overlap, expect each":                             {ids: []string{"one", "two"}, others: []otherContext{ours("a", all, "default", "one", "two")}, want: contextKeep, clashes: []string{"a one,two"}},
		"if our edges see their namespace alone, expect it":               {wide: alone, others: []otherContext{ours("a", all, "default"), theirs("b", "default")}, want: contextApply},
		"if the later edges see their namespace alone, expect it":         {others: []otherContext{ours("z", alone, "default")}, want: contextApply},
		"if the earlier edges see their namespace alone, expect none":     {others: []otherContext{ours("a", alone, "default")}, want: contextKeep, clashes: []string{"a default"}},
		"if both are there and the other is first, expect ours withdrawn": {current: []string{"default"}, others: []otherContext{ours("a", all, "default")}, want: contextWithdraw, clashes: []string{"a default"}},
		"if both are there and ours is first, expect ours":                {current: []string{"default"}, others: []otherContext{ours("z", all, "default")}, want: contextApply},
		"if both are there and ours is before a hand-made one, report":    {current: []string{"default"}, others: []otherContext{theirs("z", "default")}, want: contextApply, clashes: []string{"z default"}},
		"if a hand-made one is before ours, expect ours withdrawn":        {current: []string{"default"}, others: []otherContext{theirs("a", "default")}, want: contextWithdraw, clashes: []string{"a default"}},
		"if a new ID would clash, expect no change":                       {ids: []string{"default", "one"}, current: []string{"default"}, others: []otherContext{ours("a", all, "one")}, want: contextKeep, clashes: []string{"a one"}},
		"if a new ID would take from a later one, expect no change":       {ids: []string{"default", "one"}, current: []string{"default"}, others: []otherContext{ours("z", all, "one")}, want: contextKeep, clashes: []string{"z one"}},
		"if one of two others is first, expect ours withdrawn":            {current: []string{"default"}, others: []otherContext{ours("a", all, "default"), ours("z", all, "default")}, want: contextWithdraw, clashes: []string{"a default"}},
		"if a later namespace's edges are unknown yet, wait":              {others: []otherContext{ours("z", nil, "default")}, first: true, want: contextKeep},
		"if they stay unknown, expect none":                               {others: []otherContext{ours("z", nil, "default")}, want: contextKeep, clashes: []string{"z default"}},
		"if both are there and the others are unknown yet, wait":          {current: []string{"default"}, others: []otherContext{ours("z", nil, "default")}, first: true, want: contextKeep},
		"if an earlier namespace's edges are unknown yet, report":         {others: []otherContext{ours("a", nil, "default")}, first: true, want: contextKeep, clashes: []string{"a default"}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.ids == nil {
				test.ids = []string{"default"}
			}
			if test.wide == nil {
				test.wide = test.ids
			}
			o := contextObservation{
				desire: contextDesire{name: "istio-upstream", secret: "istio-certs", ids: test.ids, wide: test.wide},
				name:   "istio-upstream", namespace: "m", others: test.others, rescanned: !test.first,
			}
			if test.current != nil {
				current := found("m", !test.foreign, test.current...)
				o.current = &current
			}
			d := decideContext(o)
			assert.Equal(t, test.want, d.action)
			var clashes []string
			for _, c := range d.clashes {
				text := c.other.namespace + " "
				for i, id := range c.ids {
					if i > 0 {
						text += ","
					}
					text += id
				}
				clashes = append(clashes, text)
			}
			assert.Equal(t, test.clashes, clashes)
			for _, e := range clashEvents(o, d) {
				assert.Equal(t, EventContextClash, e.Reason)
				for _, part := range []string{"m/istio-upstream", "isthmus.dev/tls-context", "AMBASSADOR_ID"} {
					assert.Contains(t, e.Note, part)
				}
			}
			assert.Len(t, clashEvents(o, d), 2*len(clashes), "one on each namespace")
		})
	}
}

func TestClashIsExplained(t *testing.T) {
	clash := contextClash{other: foundContext{namespace: "aaa", name: "istio-upstream"}, ids: []string{"default", "one"}}
	o := contextObservation{name: "istio-upstream", namespace: "edge"}
	list := clashEvents(o, contextDecision{action: contextKeep, clashes: []contextClash{clash}})
	require.Len(t, list, 2)
	assert.Equal(t, "TLSContexts aaa/istio-upstream and edge/istio-upstream have one name, and the AMBASSADOR_IDs default, one are in both: Emissary would use one for the edges of both, with one identity. "+
		"edge/istio-upstream is not written. Choose another name with annotation isthmus.dev/tls-context on one of the namespaces, or give the edges different AMBASSADOR_IDs", list[0].Note)
	assert.Equal(t, namespaceReference("edge"), list[0].Regarding)
	assert.Equal(t, namespaceReference("aaa"), list[1].Regarding)
	o.current = &foundContext{}
	for action, want := range map[contextAction]string{
		contextWithdraw: ". Emissary uses aaa/istio-upstream, and edge/istio-upstream is removed. ",
		contextKeep:     ". edge/istio-upstream stays as it is. ",
		contextApply:    ". Emissary uses edge/istio-upstream. ",
	} {
		assert.Contains(t, clashEvents(o, contextDecision{action: action, clashes: []contextClash{clash}})[0].Note, want)
	}
}
