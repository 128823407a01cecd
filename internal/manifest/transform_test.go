package manifest

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gomodules.xyz/jsonpatch/v2"
)

const edgePod = `apiVersion: v1
kind: Pod
metadata:
  name: edge
spec:
  containers:
  - name: edge
    image: edge
`

func transform(t *testing.T, edit Editor, texts ...string) Result {
	t.Helper()
	var sources []Source
	for i, text := range texts {
		sources = append(sources, Source{Name: string(rune('a' + i)), Data: []byte(text)})
	}
	result, err := Transform(sources, "default", edit)
	require.NoError(t, err)
	return result
}

// TestTransformKeepsBytes shows that documents without an edit keep every byte.
func TestTransformKeepsBytes(t *testing.T) {
	neighbour := strings.ReplaceAll(edgePod, "edge", "other")
	for name, text := range map[string]string{
		"nothing":                       "",
		"blank lines":                   "\n\n  \n",
		"comments only":                 "# a\n  # b",
		"markers only":                  "---\n---\n---",
		"marker at the end":             neighbour + "---\n",
		"Windows newlines":              strings.ReplaceAll("---\n"+neighbour+"---\n# x\n", "\n", "\r\n"),
		"mixed newlines":                neighbour + "\r\n---\r\n" + neighbour,
		"byte order mark":               "\xef\xbb\xbf" + neighbour,
		"no final newline":              strings.TrimSuffix(neighbour, "\n"),
		"trailing spaces":               strings.ReplaceAll(neighbour, "\n", "  \n"),
		"directive":                     "%YAML 1.1\n---\n" + neighbour,
		"end markers":                   neighbour + "...\n\n---\n" + neighbour + "...\n",
		"scalar":                        "just text\n",
		"sequence":                      "- a\n-   b\n",
		"mapping without kind":          "a:   1\n",
		"null":                          "~\n",
		"JSON":                          " {\"kind\" :\"Service\"}\n\n{\"kind\": \"ConfigMap\"}  ",
		"JSON and YAML":                 "{\"kind\" :\"Service\"}\n---\n" + neighbour,
		"flow style":                    "{apiVersion: v1, kind: Pod, spec: {containers: [{name: other}]}}\n",
		"kind that is not a string":     "apiVersion: v1\nkind: [Pod]\n",
		"duplicate key in another kind": "apiVersion: v1\nkind: ConfigMap\ndata: {a: 1, a: 2}\n",
		"Deployment of another group":   "apiVersion: apps.example.com/v1\nkind: Deployment\nspec: {template: 5}\n",
		"Pod of another group":          "apiVersion: metrics.k8s.io/v1\nkind: Pod\nspec: 5\n",
		"list of another kind":          "apiVersion: v1\nkind: ConfigMapList\nitems: 5\n",
		"list with odd items":           "apiVersion: v1\nkind: List\nitems: [1, ~, [x], {a: b}]\n",
		"list without items":            "apiVersion: v1\nkind: List\n",
		"patch without a template":      "apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 2}\n",
		"empty workload":                "apiVersion: apps/v1\nkind: Deployment\n",
		"null template":                 "apiVersion: apps/v1\nkind: Deployment\nspec: {template: ~}\n",
		"unicode line breaks":           "a: \"x\u2028y\"\nb: \"\u0085\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			result := transform(t, fakeEditor, text)
			assert.Equal(t, text, string(result.Text()))
			assert.Empty(t, string(diff(t, result)))
		})
	}
}

// TestTransformKeepsNeighbours shows that an edit does not change the documents around
// it.
func TestTransformKeepsNeighbours(t *testing.T) {
	before, after := "# x\na:   [1,  2]\n---   # y\n", "\n---\n\n# z\nb: {c:   d}   \n\n\n# end"
	for name, eol := range map[string]string{"Unix": "\n", "Windows": "\r\n"} {
		t.Run(name, func(t *testing.T) {
			in := strings.ReplaceAll(before+edgePod+after, "\n", eol)
			out := string(transform(t, fakeEditor, in).Text())
			require.NotEqual(t, in, out)
			assert.True(t, strings.HasPrefix(out, strings.ReplaceAll(before, "\n", eol)), out)
			assert.True(t, strings.HasSuffix(out, strings.ReplaceAll(after, "\n", eol)), out)
			assert.Equal(t, strings.Count(out, "\n"), strings.Count(out, eol), "every line keeps its line break")
		})
	}
	t.Run("no final newline", func(t *testing.T) {
		out := string(transform(t, fakeEditor, strings.TrimSuffix(edgePod, "\n")).Text())
		assert.False(t, strings.HasSuffix(out, "\n"))
		assert.Contains(t, out, "name: certs")
	})
	t.Run("byte order mark", func(t *testing.T) {
		out := string(transform(t, fakeEditor, "\xef\xbb\xbf"+edgePod).Text())
		assert.True(t, strings.HasPrefix(out, "\xef\xbb\xbfapiVersion: v1\n"), out)
		assert.Contains(t, out, "name: certs")
	})
}

func TestTransformJoinsSources(t *testing.T) {
	for name, test := range map[string]struct {
		in   []string
		want string
	}{
		"two files":                   {[]string{"a: 1\n", "b: 2\n"}, "a: 1\n---\nb: 2\n"},
		"marker in the second":        {[]string{"a: 1\n", "# x\n---\nb: 2\n"}, "a: 1\n---\n# x\n---\nb: 2\n"},
		"second starts with a marker": {[]string{"a: 1\n", "---\nb: 2\n"}, "a: 1\n---\nb: 2\n"},
		"no final newline":            {[]string{"a: 1", "b: 2"}, "a: 1\n---\nb: 2"},
		"JSON":                        {[]string{"{}", "{}\n"}, "{}\n{}\n"},
		"JSON then YAML":              {[]string{"{}\n", "b: 2\n"}, "{}\n---\nb: 2\n"},
		"empty first":                 {[]string{"", "b: 2\n"}, "b: 2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, string(transform(t, fakeEditor, test.in...).Text()))
		})
	}
}

func TestTransformErrors(t *testing.T) {
	deployment := func(spec string) string {
		return "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: edge, namespace: emissary}\nspec:\n  template:\n" + spec
	}
	for name, test := range map[string]struct {
		in   string
		want []string
	}{
		"YAML that does not parse": {"a: 1\n---\na: b: c\n---\nb: [\n", []string{
			"in.yaml:3: document 2: does not parse: mapping values are not allowed in this context",
			"in.yaml:5: document 3: does not parse: did not find expected node content"}},
		"Helm template": {"kind: Pod\napiVersion: v1\nmetadata:\n  name: {{ .Release.Name }}\n", []string{
			"in.yaml:4: document 1 (Pod): a key is not a scalar: render the template first"}},
		"tab":            {"a:\n\tb: 1\n", []string{"in.yaml:2: document 1: does not parse: found character that cannot start any token"}},
		"unknown anchor": {"a: *b\n", []string{"in.yaml:1: document 1: does not parse: unknown anchor 'b' referenced"}},
		"UTF-16":         {"\xff\xfea\x00", []string{"in.yaml: is UTF-16: save it as UTF-8 (PowerShell: Out-File -Encoding utf8)"}},
		"binary":         {"\x80\x81", []string{"in.yaml: is not UTF-8 text"}},
		"duplicate key": {"---\n" + edgePod + "  hostNetwork: true\n  hostNetwork: false\n", []string{
			`in.yaml:11: document 1 (Pod default/edge): duplicate key "hostNetwork" with another value, first on line 10: remove one of them`}},
		"duplicate key in JSON": {"{\"apiVersion\": \"v1\", \"kind\": \"Pod\",\n\"spec\": {},\n\"spec\": {\"containers\": [{\"name\": \"edge\"}]}}", []string{
			`in.yaml:3: document 1 (Pod): duplicate key "spec" with another value, first on line 2: remove one of them`}},
		"template that is a string": {"apiVersion: apps/v1\nkind: Deployment\nspec:\n  template: text\n", []string{
			"in.yaml:4: document 1 (Deployment): spec.template: want a mapping, got the string"}},
		"spec that is a list": {"apiVersion: apps/v1\nkind: Deployment\nspec: []\n", []string{
			"in.yaml:3: document 1 (Deployment): spec: want a mapping, got a list"}},
		"name that is a number": {"apiVersion: v1\nkind: Pod\nmetadata:\n  name: 12\n", []string{
			"in.yaml:4: document 1 (Pod): metadata.name: want a string, got a number 12: quote it"}},
		"metadata that is a list": {"apiVersion: v1\nkind: Pod\nmetadata: []\n", []string{
			"in.yaml:3: document 1 (Pod): metadata: want a mapping, got a list"}},
		"env that is a string": {deployment("    spec:\n      containers:\n      - name: edge\n        env: A=b\n"), []string{
			`in.yaml:9: document 1 (Deployment emissary/edge): spec.template.spec.containers[0].env: want a list, got the string "A=b"`}},
		"every wrong field is named": {deployment("    metadata:\n      annotations: {a/b: true}\n    spec:\n      hostNetwork: 'yes'\n      containers:\n      - ports: [{containerPort: x}]\n        resources: {limits: {cpu: 1x}}\n"), []string{
			`in.yaml:7: document 1 (Deployment emissary/edge): spec.template.metadata.annotations[a/b]: want a string, got a boolean true: quote it`,
			`in.yaml:11: document 1 (Deployment emissary/edge): spec.template.spec.containers[0].ports[0].containerPort: want a whole number, got the string "x"`,
			`in.yaml:12: document 1 (Deployment emissary/edge): spec.template.spec.containers[0].resources.limits.cpu: want a quantity such as 100m or 1Gi, got the string "1x"`,
			`in.yaml:9: document 1 (Deployment emissary/edge): spec.template.spec.hostNetwork: want true or false, got the string "yes"`}},
		"item of a list": {"apiVersion: v1\nkind: List\nitems:\n- a: b\n- apiVersion: batch/v1\n  kind: CronJob\n  metadata: {name: job}\n  spec:\n    jobTemplate:\n      spec: 5\n", []string{
			"in.yaml:10: document 1 (CronJob default/job): items[1].spec.jobTemplate.spec: want a mapping, got a number"}},
		"items that are a mapping": {"apiVersion: v1\nkind: PodList\nitems: {a: b}\n", []string{
			"in.yaml:3: document 1 (PodList): items: want a list, got a mapping"}},
		"error of the editor": {"# top\n" + strings.ReplaceAll(edgePod, "edge", "refused"), []string{
			"in.yaml:2: document 1 (Pod default/refused): no, for a reason"}},
		"an anchor that contains itself": {"apiVersion: v1\nkind: Pod\nmetadata: &m {labels: *m}\n", []string{
			"in.yaml:1: document 1 (Pod): does not parse: anchor 'm' value contains itself"}},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := Transform([]Source{{"in.yaml", []byte(test.in)}}, "default", func(w Workload) Edit {
				if w.Name == "refused" {
					return Edit{Err: errors.New("no, for a reason")}
				}
				return fakeEditor(w)
			})
			require.Error(t, err)
			assert.Equal(t, test.want, strings.Split(err.Error(), "\n"))
			assert.Empty(t, result.Documents)
		})
	}
}

func TestTransformLimits(t *testing.T) {
	t.Run("size", func(t *testing.T) {
		_, err := Transform([]Source{{"big.yaml", make([]byte, MaxBytes+1)}}, "default", fakeEditor)
		assert.EqualError(t, err, "big.yaml: holds more than 64 MiB: split it")
	})
	t.Run("alias bomb", func(t *testing.T) {
		bomb := edgePod + "  x0: &x0 [a,a,a,a,a,a,a,a,a,a]\n"
		for i := 1; i < 9; i++ {
			alias := "*x" + string(rune('0'+i-1))
			bomb += "  x" + string(rune('0'+i)) + ": &x" + string(rune('0'+i)) + " [" + strings.Repeat(alias+",", 10) + "]\n"
		}
		_, err := Transform([]Source{{"bomb.yaml", []byte(bomb)}}, "default", fakeEditor)
		assert.EqualError(t, err, "bomb.yaml:1: document 1 (Pod edge): does not parse: document contains excessive aliasing")
	})
}

// TestTransformNamespace shows which namespace a workload is in.
func TestTransformNamespace(t *testing.T) {
	var seen []Workload
	record := func(w Workload) Edit { seen = append(seen, w); return Edit{} }
	transform(t, record,
		edgePod+"---\n"+strings.Replace(edgePod, "name: edge", "name: edge\n  namespace: own", 1),
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: own, labels: {a: b}, annotations: {c: d}}\n")
	require.Len(t, seen, 2)
	assert.Equal(t, "default", seen[0].Namespace)
	assert.Equal(t, "default", seen[0].Pod.Namespace)
	assert.Nil(t, seen[0].NamespaceLabels)
	assert.Equal(t, "own", seen[1].Namespace)
	assert.Equal(t, map[string]string{"a": "b"}, seen[1].NamespaceLabels, "a Namespace applies from any position in the input")
	assert.Equal(t, map[string]string{"c": "d"}, seen[1].NamespaceAnnotations)
}

// TestTransformMetadata shows that reverting an edit removes the metadata that the edit
// added, and keeps metadata with other fields.
func TestTransformMetadata(t *testing.T) {
	in := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: edge}\nspec:\n  template:\n    spec:\n      containers:\n      - name: edge\n"
	add := func(Workload) Edit {
		return Edit{Patch: []jsonpatch.Operation{jsonpatch.NewOperation("add", "/metadata/labels", map[string]string{"a": "b"})}}
	}
	remove := func(Workload) Edit {
		return Edit{Patch: []jsonpatch.Operation{jsonpatch.NewOperation("remove", "/metadata/labels", nil)}}
	}
	added := string(transform(t, add, in).Text())
	assert.Equal(t, in+"    metadata:\n      labels:\n        a: b\n", added)
	assert.Equal(t, in, string(transform(t, remove, added).Text()))
	withName := strings.Replace(added, "      labels:", "      name: mine\n      labels:", 1)
	assert.Equal(t, strings.Replace(withName, "      labels:\n        a: b\n", "", 1), string(transform(t, remove, withName).Text()))
}
