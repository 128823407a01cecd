package manifest

import (
	"strings"
	"testing"

	udiff "github.com/aymanbagabas/go-udiff"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"gomodules.xyz/jsonpatch/v2"
	sigsyaml "sigs.k8s.io/yaml"
)

func newOperation(operation, path string, value any) jsonpatch.Operation {
	return jsonpatch.NewOperation(operation, path, value)
}

// rewrite returns a document after a patch.
func rewrite(d rawDocument, patch []jsonpatch.Operation) ([]byte, error) {
	edits, _, err := rewriteDocument(d, change{patch: patch})
	if err != nil {
		return nil, err
	}
	return udiff.ApplyBytes(d.body, edits)
}

// TestSpliceDocument shows that an edit changes its own lines and no others.
func TestSpliceDocument(t *testing.T) {
	for name, test := range map[string]struct {
		in    string
		patch []jsonpatch.Operation
		want  string
	}{
		"a new key comes after the last": {"a:\n  b: 1\n\n# foot\nc: 2\n", []jsonpatch.Operation{newOperation("add", "/a/d", "x")}, "a:\n  b: 1\n  d: x\n\n# foot\nc: 2\n"},
		"an item keeps the list's indentation": {"a:\n   - 1\nb:\n- 1\n", []jsonpatch.Operation{newOperation("add", "/a/-", 2), newOperation("add", "/b/-", 3)},
			"a:\n   - 1\n   - 2\nb:\n- 1\n- 3\n"},
		"an item in the middle":                          {"a:\n- 1\n- 3 # three\n", []jsonpatch.Operation{newOperation("add", "/a/1", 2)}, "a:\n- 1\n- 2\n- 3 # three\n"},
		"a list in a list":                               {"a:\n- - 1\n  - 2\n- - 3\n", []jsonpatch.Operation{newOperation("add", "/a/0/-", 9)}, "a:\n- - 1\n  - 2\n  - 9\n- - 3\n"},
		"after a block scalar":                           {"a:\n  b: |\n    x\n    # text\n\n  # comment\nc: 1\n", []jsonpatch.Operation{newOperation("add", "/a/d", 1)}, "a:\n  b: |\n    x\n    # text\n  d: 1\n\n  # comment\nc: 1\n"},
		"after a block scalar with chomping indicator +": {"a:\n  b: |+\n    x\n\nc: 1\n", []jsonpatch.Operation{newOperation("add", "/a/d", 1)}, "a:\n  b: |+\n    x\n\n  d: 1\nc: 1\n"},
		"after an empty block scalar":                    {"a:\n  b: |\nc: 1\n", []jsonpatch.Operation{newOperation("add", "/a/d", 1)}, "a:\n  b: |\n  d: 1\nc: 1\n"},
		"after a scalar of two lines":                    {"a:\n  b: x\n    y\nc: 1\n", []jsonpatch.Operation{newOperation("add", "/a/d", 1)}, "a:\n  b: x\n    y\n  d: 1\nc: 1\n"},
		"a scalar keeps its comment":                     {"a: 'x' # why\nb: 1\n", []jsonpatch.Operation{newOperation("replace", "/a", "true")}, "a: 'true' # why\nb: 1\n"},
		"the first key of an item":                       {"a:\n- b: 1\n  c: 2\n", []jsonpatch.Operation{newOperation("replace", "/a/0/b", 9)}, "a:\n- b: 9\n  c: 2\n"},
		"the first key of an item is removed":            {"a:\n- b: 1\n  c: 2\n# x\nd:   1\n", []jsonpatch.Operation{newOperation("remove", "/a/0/b", nil)}, "a:\n- c: 2\n# x\nd:   1\n"},
		"null becomes a list":                            {"a:\nb:   1\n", []jsonpatch.Operation{newOperation("add", "/a", []int{1})}, "a:\n- 1\nb:   1\n"},
		"an empty list becomes a block":                  {"a: []\nb:   1\n", []jsonpatch.Operation{newOperation("add", "/a/-", 1)}, "a:\n- 1\nb:   1\n"},
		"flow style stays flow style":                    {"a: {b: [1]}\nc:   1\n", []jsonpatch.Operation{newOperation("add", "/a/b/-", 2)}, "a: {b: [1, 2]}\nc:   1\n"},
		"a key is removed":                               {"a:\n  b: 1\n  c:\n  - 2\n  # left\n  d: 3\n", []jsonpatch.Operation{newOperation("remove", "/a/c", nil)}, "a:\n  b: 1\n  # left\n  d: 3\n"},
		"the last key is removed":                        {"a:\n  b: 1\nc:   2\n", []jsonpatch.Operation{newOperation("remove", "/a/b", nil)}, "a: {}\nc:   2\n"},
		"the last item is removed":                       {"a:\n- b\nc:   2\n", []jsonpatch.Operation{newOperation("remove", "/a/0", nil)}, "a: []\nc:   2\n"},
		"an item is removed with its comment":            {"a:\n- b\n# y\n\n# x\n# x\n- c\n# z\n- d\n", []jsonpatch.Operation{newOperation("remove", "/a/1", nil)}, "a:\n- b\n# y\n\n# z\n- d\n"},
		"the comment above the first item stays":         {"a:\n# x\n- b\n- c\n", []jsonpatch.Operation{newOperation("remove", "/a/0", nil)}, "a:\n# x\n- c\n"},
		"a comment above a replaced value stays":         {"a:\n  b: 1\n  # x\n  c: |\n    1\n    2\n  # y\n  d: 1\n", []jsonpatch.Operation{newOperation("replace", "/a/c", "3\n4\n")}, "a:\n  b: 1\n  # x\n  c: |\n    3\n    4\n  # y\n  d: 1\n"},
		"a key with slash and tilde":                     {"a:\n  b/c~d: 1\n", []jsonpatch.Operation{newOperation("replace", "/a/b~1c~0d", 2)}, "a:\n  b/c~d: 2\n"},
		"a dash on a separate line":                      {"a:\n-\n  b: 1\n-\n  c: 1\n", []jsonpatch.Operation{newOperation("remove", "/a/0", nil), newOperation("add", "/a/-", 5)}, "a:\n-\n  c: 1\n- 5\n"},
		"an edit of an edit":                             {"a: 1\n", []jsonpatch.Operation{newOperation("add", "/b", map[string]any{}), newOperation("add", "/b/c", []any{}), newOperation("add", "/b/c/-", "x")}, "a: 1\nb:\n  c:\n  - x\n"},
		"a sibling alias keeps its value":                {"a: &a\n  b: 1\nc: *a\nd:   1\n", []jsonpatch.Operation{newOperation("add", "/a/x", 1)}, "a: &a\n  b: 1\n  x: 1\nc:\n  b: 1\nd:   1\n"},
		"an alias becomes a copy":                        {"a: &a\n  b: 1\nc: *a\nd:   1\n", []jsonpatch.Operation{newOperation("add", "/c/x", 1)}, "a: &a\n  b: 1\nc:\n  b: 1\n  x: 1\nd:   1\n"},
		"a merge key stays":                              {"a: &a\n  b: 1\n  e: 1\nc:\n  b: 2\n  <<: *a\n", []jsonpatch.Operation{newOperation("add", "/c/x", 1)}, "a: &a\n  b: 1\n  e: 1\nc:\n  b: 2\n  <<: *a\n  x: 1\n"},
		"merged keys are written out":                    {"a: &a\n  b: 1\n  e: [1]\nc:\n  <<: *a\n  b: 2\n", []jsonpatch.Operation{newOperation("add", "/c/e/-", 2)}, "a: &a\n  b: 1\n  e: [1]\nc:\n  b: 2\n  e: [1, 2]\n"},
		"a merged key is removed":                        {"a: &a\n  b: 1\n  e: 1\nc:\n  d: 1\n  <<: *a\n", []jsonpatch.Operation{newOperation("remove", "/c/b", nil)}, "a: &a\n  b: 1\n  e: 1\nc:\n  d: 1\n  e: 1\n"},
		"an anchor that is merged is edited":             {"a: &a\n  b: 1\nc:\n  <<: *a\n  d: 1\n", []jsonpatch.Operation{newOperation("add", "/a/x", 2)}, "a: &a\n  b: 1\n  x: 2\nc:\n  d: 1\n  b: 1\n"},
		"an alias beside the edit stays":                 {"a: &a\n  b: 1\nc: *a\nd:\n  e: 1\n", []jsonpatch.Operation{newOperation("add", "/d/x", 1)}, "a: &a\n  b: 1\nc: *a\nd:\n  e: 1\n  x: 1\n"},
		"an anchor that is removed":                      {"a: &a\n  b: 1\nc: *a\nd:   1\n", []jsonpatch.Operation{newOperation("remove", "/a", nil)}, "c:\n  b: 1\nd:   1\n"},
		"a list with an anchor":                          {"a: &a\n- 1\nc: 2\n", []jsonpatch.Operation{newOperation("add", "/a/-", 1)}, "a: &a\n- 1\n- 1\nc: 2\n"},
		"the first merged mapping wins":                  {"a: &a {x: 1}\nb: &b {x: 2, w: 2}\nc:\n  d: 1\n  <<: [*a, *b]\n", []jsonpatch.Operation{newOperation("replace", "/c/w", 3)}, "a: &a {x: 1}\nb: &b {x: 2, w: 2}\nc:\n  d: 1\n  x: 1\n  w: 3\n"},
		"Windows newlines":                               {"a:\r\n  b: 1\r\n", []jsonpatch.Operation{newOperation("add", "/a/d", "x")}, "a:\r\n  b: 1\r\n  d: x\r\n"},
		"no final newline":                               {"a:\n  b: 1", []jsonpatch.Operation{newOperation("add", "/a/d", "x")}, "a:\n  b: 1\n  d: x"},
	} {
		t.Run(name, func(t *testing.T) {
			d := rawDocument{body: []byte(test.in)}
			edits, ok := spliceDocument(d, change{patch: test.patch})
			require.True(t, ok)
			text, err := udiff.ApplyBytes(d.body, edits)
			require.NoError(t, err)
			assert.Equal(t, test.want, string(text))
			whole, err := rewrite(d, test.patch)
			require.NoError(t, err)
			assert.Equal(t, test.want, string(whole), "the spliced text has the right meaning")
		})
	}
}

// TestRewriteFallsBack shows documents whose lines cannot be edited one by one: the
// result has the right meaning and the layout of the library.
func TestRewriteFallsBack(t *testing.T) {
	for name, test := range map[string]struct {
		in, want string
		patch    []jsonpatch.Operation
	}{
		"one line of flow style": {"{a: {b: 1}} # x\n", "{a: {b: 1, c: \"yes\"}} # x\n", []jsonpatch.Operation{newOperation("add", "/a/c", "yes")}},
		"a tag at the top":       {"!!map {a: 1}\n", "!!map {a: 1, b: 2}\n", []jsonpatch.Operation{newOperation("add", "/b", 2)}},
		"explicit indentation":   {"a:\n  b: |1\n    x\n   # text\n\n# foot\nc: 1\n", "a:\n  b: |2\n     x\n    # text\n  d: 1\n# foot\nc: 1\n", []jsonpatch.Operation{newOperation("add", "/a/d", 1)}},
		"everything is removed":  {"a: 1\n", "{}\n", []jsonpatch.Operation{newOperation("remove", "/a", nil)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := rewrite(rawDocument{body: []byte(test.in)}, test.patch)
			require.NoError(t, err)
			assert.Equal(t, test.want, string(got))
		})
	}
}

// TestRewriteKeepsMeaning edits documents with unusual scalars and compares the values
// that Kubernetes reads before and after.
func TestRewriteKeepsMeaning(t *testing.T) {
	for _, scalar := range []string{
		"yes", "no", "on", "off", "y", "n", "Yes", "TRUE", "~", "null", "Null", "", "0777", "0o17", "0x1F", "0b11", "1_000", "1e3", "1.5e-3", ".5", "-.5", ".inf",
		"-.INF", ".NaN", "12:30:45", "2001-01-01", "2001-01-01T00:00:00Z", "12345678901234567890", "1e400", "=", "<<", "'yes'", `"\u00e9"`, "!!str 5", "!!str yes", "!!int '5'", "!!float 3",
		"!!binary aGVsbG8=", "- 5", "[yes, 0777]", "{on: off}", "1000m", "128Mi",
	} {
		t.Run(scalar, func(t *testing.T) {
			if scalar == "- 5" || strings.HasPrefix(scalar, ".") || scalar == "-.INF" || scalar == "1e400" {
				t.Logf("%s has no JSON equivalent or is not a scalar: the result may be an error, but no other value", scalar)
			}
			in := "v: " + scalar + "\nlist:\n- " + scalar + "\n" + "inner:\n  v: " + scalar + "\n"
			before, err := sigsyaml.YAMLToJSON([]byte(in))
			got, editErr := rewrite(rawDocument{body: []byte(in)}, []jsonpatch.Operation{newOperation("add", "/inner/new", "yes"), newOperation("add", "/list/-", "0777")})
			if err != nil {
				assert.Error(t, editErr)
				return
			}
			require.NoError(t, editErr)
			want, err := patchJSON(before, []jsonpatch.Operation{newOperation("add", "/inner/new", "yes"), newOperation("add", "/list/-", "0777")})
			require.NoError(t, err)
			after, err := sigsyaml.YAMLToJSON(got)
			require.NoError(t, err)
			assert.JSONEq(t, string(want), string(after))
			assert.Contains(t, string(got), "v: "+scalar+"\n", "the scalar's spelling stays")
		})
	}
}

// TestStringNode shows that Kubernetes and parsers of YAML 1.2 read an added string as
// that string.
func TestStringNode(t *testing.T) {
	for _, want := range oddValues {
		for name, wrap := range map[string]func(*yaml.Node) *yaml.Node{
			"value": func(n *yaml.Node) *yaml.Node {
				return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{stringNode("k"), n}}
			},
			"key": func(n *yaml.Node) *yaml.Node {
				return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{n, stringNode("v")}}
			},
		} {
			text, err := layout{indent: 2, compact: true}.encode(wrap(stringNode(want)))
			require.NoError(t, err, "%s %q", name, want)
			expected := map[string]any{"k": want}
			if name == "key" {
				expected = map[string]any{want: "v"}
			}
			var read, readByOthers map[string]any
			require.NoError(t, sigsyaml.Unmarshal(text, &read), "%s", text)
			assert.Equal(t, expected, read, "%s", text)
			require.NoError(t, yaml.Unmarshal(text, &readByOthers), "%s", text)
			assert.Equal(t, expected, readByOthers, "%s", text)
		}
	}
}

func TestApplyErrors(t *testing.T) {
	for name, test := range map[string]struct {
		op   jsonpatch.Operation
		want string
	}{
		"the document itself":             {newOperation("replace", "", 1), `patch replace "": want a path below the document`},
		"not a pointer":                   {newOperation("add", "a", 1), `patch add "a": want a path below the document`},
		"missing parent":                  {newOperation("add", "/x/y", 1), `patch add "/x/y": nothing at "/x"`},
		"missing key":                     {newOperation("remove", "/x", nil), `patch remove "/x": no key "x"`},
		"missing item":                    {newOperation("replace", "/list/1", 1), `patch replace "/list/1": no item "1" of 1`},
		"not an index":                    {newOperation("add", "/list/01", 1), `patch add "/list/01": no item "01" of 1`},
		"inside a scalar":                 {newOperation("add", "/a/b", 1), `patch add "/a/b": want a mapping or a sequence to edit`},
		"unknown operation":               {newOperation("move", "/a", nil), `patch move "/a": want add, replace or remove`},
		"value without a JSON equivalent": {newOperation("add", "/b", func() {}), `patch add "/b": json: unsupported type: func()`},
	} {
		t.Run(name, func(t *testing.T) {
			root, err := parseYAML([]byte("a: 1\nlist: [1]\n"))
			require.NoError(t, err)
			e := treeEditor{root: root}
			assert.EqualError(t, e.apply(test.op), test.want)
		})
	}
}
