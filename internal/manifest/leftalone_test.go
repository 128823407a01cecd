package manifest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// report returns decisions and warnings as lines.
func report(r Result) []string {
	var lines []string
	for _, d := range r.Decisions {
		lines = append(lines, d.Workload+": "+d.Summary)
		for _, w := range d.Warnings {
			lines = append(lines, "warning: "+d.Workload+": "+w)
		}
	}
	for _, w := range r.Warnings {
		lines = append(lines, "warning: "+w.Object+": "+w.Text)
	}
	return lines
}

// TestLeftAlone shows that an object that can hold an edge and is not edited is named with
// the reason, and that it keeps every byte.
func TestLeftAlone(t *testing.T) {
	containers := "containers: [{name: edge, image: edge}]"
	template := "spec: {template: {spec: {" + containers + "}}}\n"
	for name, test := range map[string]struct {
		in   string
		want []string
	}{
		"a kind with a pod template": {"apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x, namespace: y}\n" + template,
			[]string{"service/y/x: not looked into (the kind Service of serving.knative.dev/v1 is not known; it holds a pod at spec.template.spec)"}},
		"templates in a list of another field": {"apiVersion: v1\nkind: Template\nmetadata: {name: x}\nobjects:\n- apiVersion: v1\n  kind: Pod\n  spec: {" + containers + "}\n",
			[]string{"template/x: not looked into (the kind Template of v1 is not known; it holds a pod at objects[0].spec)"}},
		"the same in a List, in JSON": {`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"apps.kruise.io/v1","kind":"CloneSet","metadata":{"name":"x"},"spec":{"template":{"spec":{"containers":[{"image":"edge"}]}}}}]}`,
			[]string{"cloneset/x: not looked into (the kind CloneSet of apps.kruise.io/v1 is not known; it holds a pod at spec.template.spec)"}},
		"values of a chart": {"apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: x}\nspec: {values: {image: {repository: emissary}}}\n",
			[]string{"helmrelease/x: not looked into (workloads are rendered from it; give inject what is rendered, such as the output of helm template or kustomize build)"}},
		"an edge's image in an unknown kind": {"apiVersion: example.com/v1\nkind: Gateway\nmetadata: {name: x, annotations: {docs: https://emissary.example/docs/emissary, owner: team/emissaries, image: emissary}}\nspec: {image: 'docker.io/emissaryingress/emissary:3.9.1'}\n",
			[]string{"gateway/x: not looked into (the kind Gateway of example.com/v1 is not known; it names the image of an edge at spec.image)"}},
		"a list": {"- a: 1\n", []string{"a: document 1: not looked into (a list is no Kubernetes object; write its items as documents of their own, or below items: of a List)"}},
		"a list in JSON, after a document": {"kind: X\napiVersion: v1\n---\n[{\"kind\": \"Pod\"}]\n",
			[]string{"a: document 2: not looked into (a list is no Kubernetes object; write its items as documents of their own, or below items: of a List)"}},
		"text":                         {"just text\n", []string{"a: document 1: not looked into (text is no Kubernetes object)"}},
		"no kind":                      {"image: emissary\n", []string{"a: document 1: not looked into (it has no apiVersion and kind)"}},
		"null":                         {"--- ~\n", nil},
		"a comment":                    {"# nothing\n", nil},
		"other kind":                   {"apiVersion: v1\nkind: Service\nspec: {containers: {type: array}}\n", nil},
		"a custom resource definition": {"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nspec: {versions: [{schema: {properties: {containers: {items: {image: x}}}}}]}\n", nil},
		"a Rollout without a template": {"apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: x}\nspec: {workloadRef: {name: y}}\n",
			[]string{"rollout/default/x: unchanged (no pod template)"}},
		"a strategic merge patch": {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  template:\n    spec:\n      containers:\n      - $patch: delete\n        name: edge\n",
			[]string{"deployment/default/x: unchanged (a strategic merge patch with $patch, which is left alone)"}},
		"a patch with an order": {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {template: {spec: {$setElementOrder/containers: [{name: edge}], containers: [{name: edge, env: x}]}}}\n",
			[]string{"deployment/default/x: unchanged (a strategic merge patch with $setElementOrder/containers, which is left alone)"}},
		"a patch with primitives": {"apiVersion: v1\nkind: Pod\nmetadata: {name: x, $deleteFromPrimitiveList/finalizers: [a]}\nspec: {" + containers + "}\n",
			[]string{"pod/default/x: unchanged (a strategic merge patch with $deleteFromPrimitiveList/finalizers, which is left alone)"}},
		"a patch with kept keys": {"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {" + containers + ", securityContext: {$retainKeys: [a]}}\n",
			[]string{"pod/default/x: unchanged (a strategic merge patch with $retainKeys, which is left alone)"}},
		"a duplicate key with other values, no edge": {"apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  name: b\nspec: {}\n",
			[]string{"pod/default/b: unchanged (no-profile)", `warning: pod/default/b: a:5: duplicate key "name", first on line 4 with another value: Kubernetes uses the last one`}},
		"a duplicate key of a Namespace": {"apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\nspec: {}\nspec: {}\n",
			[]string{`warning: Namespace x: a:5: duplicate key "spec", first on line 4`}},
		"notes behind another kind": {"apiVersion: v1\nkind: Service\nmetadata: {name: x}\nNOTES: It is up.\n",
			[]string{"warning: service/x: a:4: NOTES is no field of a Service: Helm prints it behind the manifests; remove it, or use helm template, which does not print it"}},
		"an unknown field of a List": {"apiVersion: v1\nkind: List\nitem: []\n", []string{"warning: list: a:3: item is no field of a List"}},
	} {
		t.Run(name, func(t *testing.T) {
			result := transform(t, fakeEditor, test.in)
			assert.Equal(t, test.want, report(result))
			assert.Equal(t, test.in, string(result.Text()))
		})
	}
}

// TestEditedWithWarning shows what is warned of in a workload that is edited.
func TestEditedWithWarning(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"notes of Helm":   {edgePod + "NOTES: It is up.\n", "a:9: NOTES is no field of a Pod: Helm prints it behind the manifests; remove it, or use helm template, which does not print it"},
		"another field":   {"x-anchors: {}\n" + edgePod, "a:1: x-anchors is no field of a Pod"},
		"a duplicate key": {strings.Replace(edgePod, "  - name: edge\n", "  - name: edge\n    name: edge\n", 1), `a:8: duplicate key "name", first on line 7`},
		"a duplicate key behind a line break that editors do not show": {strings.Replace(edgePod, "  - name: edge\n", "  - name: edge\n    args: [\"a\u2028b\"]\n    name: edge\n", 1),
			`a:9: duplicate key "name", first on line 7`},
		"a duplicate key in JSON": {`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"edge",` + "\n" + `"name":"edge"}]}}`, `a:2: duplicate key "name", first on line 1`},
	} {
		t.Run(name, func(t *testing.T) {
			result := transform(t, fakeEditor, test.in)
			require.Len(t, result.Decisions, 1)
			assert.Equal(t, "injected", result.Decisions[0].Summary)
			assert.Equal(t, []string{test.want}, result.Decisions[0].Warnings)
		})
	}
}

// TestDuplicateInAnotherItem shows that a duplicate key with two values stops the edit of
// its own workload only.
func TestDuplicateInAnotherItem(t *testing.T) {
	item := func(fields string) string {
		return "- apiVersion: v1\n  kind: Pod\n  metadata: {name: x" + fields + "}\n  spec: {containers: [{name: edge}]}\n"
	}
	list := "apiVersion: v1\nkind: List\nitems:\n"
	other := strings.Replace(item(", uid: a, uid: b"), "name: edge", "name: web", 1)
	result := transform(t, fakeEditor, list+item("")+other)
	assert.Equal(t, []string{"injected", "unchanged (no-profile)"}, []string{result.Decisions[0].Summary, result.Decisions[1].Summary})

	_, err := Transform([]Source{{"a", []byte(list + item("") + item(", uid: a, uid: b"))}}, "default", fakeEditor)
	assert.EqualError(t, err, `a:10: document 1 (Pod default/x): duplicate key "uid" with another value, first on line 10: remove one of them`)
	_, err = Transform([]Source{{"a", []byte(list + item("") + "items:\n" + item(", uid: a"))}}, "default", fakeEditor)
	assert.EqualError(t, err, `a:8: document 1 (Pod default/x): duplicate key "items" with another value, first on line 3: remove one of them`)
}

// TestListDepth shows that lists in lists are unfolded, and that a limit is an error.
func TestListDepth(t *testing.T) {
	nested := func(depth int) string {
		return strings.Repeat(`{"apiVersion":"v1","kind":"List","items":[`, depth) +
			`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[{"name":"edge"}]}}` + strings.Repeat(`]}`, depth)
	}
	for _, depth := range []int{1, 10, maxListDepth} {
		result := transform(t, fakeEditor, nested(depth))
		assert.Equal(t, []string{"pod/default/x: injected"}, report(result))
	}
	_, err := Transform([]Source{{"a", []byte(nested(maxListDepth + 6))}}, "default", fakeEditor)
	assert.EqualError(t, err, fmt.Sprintf("a:1: document 1 (List): lists are in one another %d deep: at most %d are read; put the objects into one list", maxListDepth+6, maxListDepth))
}

// TestNotesThatDoNotParse shows that the error names the notes of Helm.
func TestNotesThatDoNotParse(t *testing.T) {
	_, err := Transform([]Source{{"a", []byte(edgePod + "NOTES:\nThe edge is up.\n  kubectl get pods\n")}}, "default", fakeEditor)
	require.Error(t, err)
	assert.Contains(t, err.Error(), "a:9: document 1: does not parse: ")
	assert.Contains(t, err.Error(), "; here start the NOTES that Helm prints behind the manifests: remove them, or use helm template, which does not print them")
}

// TestLossIsSaid shows the warning about a comment that cannot stay, and about a document that
// cannot be edited in place.
func TestLossIsSaid(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"nothing is lost":               {edgePod + "  volumes: [] # none\n", ""},
		"an entry with a question mark": {edgePod + "  ? volumes # no, \"none\"\n  : [] # three\n", `a:1: line 10 loses its comment "# three"`},
		"encoded again":                 {"# one\n" + edgePod + "    args:\n    - |1\n        a\n       # no comment\n", "a:1: the layout does not allow an edit in place, so the document is encoded again as a whole"},
	} {
		t.Run(name, func(t *testing.T) {
			result := transform(t, fakeEditor, test.in)
			got := ""
			for _, w := range result.Warnings {
				got += w.Object + ": " + w.Text
			}
			assert.Equal(t, test.want, strings.TrimPrefix(got, "Pod default/edge: "), string(result.Text()))
		})
	}
}
