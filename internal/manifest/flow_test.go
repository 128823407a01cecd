package manifest

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gomodules.xyz/jsonpatch/v2"
)

// TestSpliceFlow edits documents in flow style and reverts the edit. An edit changes only
// lines that gain or lose something, and the reverted document has the original bytes.
func TestSpliceFlow(t *testing.T) {
	ops := func(list ...jsonpatch.Operation) []jsonpatch.Operation { return list }
	kyaml := "{\n  # one\n  a: { # two\n    b: \"x\", # three\n  },\n  c: [{\n    d: \"y\",\n  }],\n  e: [\n    \"z\",\n  ],\n}\n"
	for name, test := range map[string]struct {
		json          bool
		in, want      string
		patch, revert []jsonpatch.Operation
	}{
		"one line": {false, "{a: {b: 1}, c: [1, 2]} # x\n", "{a: {b: 1, d: \"yes\"}, c: [1, 2, 3], e: {f: [1]}} # x\n",
			ops(newOperation("add", "/a/d", "yes"), newOperation("add", "/c/-", 3), newOperation("add", "/e", map[string]any{"f": []int{1}})),
			ops(newOperation("remove", "/a/d", nil), newOperation("remove", "/c/2", nil), newOperation("remove", "/e", nil))},
		"no blanks":        {false, "{a: [1,2]}\n", "{a: [1,2,3]}\n", ops(newOperation("add", "/a/-", 3)), ops(newOperation("remove", "/a/2", nil))},
		"a trailing comma": {false, "a: {b: 1,}\n", "a: {b: 1, c: x,}\n", ops(newOperation("add", "/a/c", "x")), ops(newOperation("remove", "/a/c", nil))},
		"an empty value":   {false, "a: {b: 1, c: } # x\n", "a: {b: 1, c: , d: x} # x\n", ops(newOperation("add", "/a/d", "x")), ops(newOperation("remove", "/a/d", nil))},
		"quotes, brackets and comments in values": {false, "a: {b: \"},]\\\"\", 'c''': '{', d: it's # }\n  , e: a#b}\n", "a: {b: \"},]\\\"\", 'c''': '{', d: it's # }\n  , e: a#b, f: x}\n",
			ops(newOperation("add", "/a/f", "x")), ops(newOperation("remove", "/a/f", nil))},
		"an anchor and a tag": {false, "a: !!map &x {b: !!str 1, c: &y [1]}\nd: *y\n", "a: !!map &x {b: !!str 1, c: &y [1], e: x}\nd: *y\n",
			ops(newOperation("add", "/a/e", "x")), ops(newOperation("remove", "/a/e", nil))},
		"an item in front and in the middle": {false, "a: [b, c]\n", "a: [x, b, v, c]\n", ops(newOperation("add", "/a/0", "x"), newOperation("add", "/a/2", "v")),
			ops(newOperation("remove", "/a/2", nil), newOperation("remove", "/a/0", nil))},
		"several lines without a last comma": {false, "a: {\n  b: 1 # x\n}\n", "a: {\n  b: 1, # x\n  c: x\n}\n", ops(newOperation("add", "/a/c", "x")), ops(newOperation("remove", "/a/c", nil))},
		"KYAML": {false, kyaml,
			"{\n  # one\n  a: { # two\n    b: \"x\", # three\n    n/1: \"m\",\n    \"yes\": {\n      k: [\n        1,\n      ],\n    },\n  },\n  c: [{\n    d: \"y\",\n  }, {\n    f: \"w\",\n  }],\n  e: [\n    \"z\",\n    \"v\",\n  ],\n}\n",
			ops(newOperation("add", "/a/n~11", "m"), newOperation("add", "/a/yes", map[string]any{"k": []int{1}}), newOperation("add", "/c/-", map[string]any{"f": "w"}), newOperation("add", "/e/-", "v")),
			ops(newOperation("remove", "/a/n~11", nil), newOperation("remove", "/a/yes", nil), newOperation("remove", "/c/1", nil), newOperation("remove", "/e/1", nil))},
		"KYAML, an empty list": {false, "{\n  a: [],\n}\n", "{\n  a: [{\n    b: \"x\",\n  }],\n}\n", ops(newOperation("add", "/a/-", map[string]any{"b": "x"})), ops(newOperation("remove", "/a/0", nil))},
		"JSON keeps numbers, escapes and blanks": {true, `{"a":1.50,  "b":{ "c":"\u00e9\/" },"d":[ ]}`, `{"a":1.50,  "b":{ "c":"\u00e9\/", "e":"x" },"d":[ ]}`,
			ops(newOperation("add", "/b/e", "x")), ops(newOperation("remove", "/b/e", nil))},
		"indented JSON with an item on one line": {true, "{\n    \"a\": [\n        {\"b\": 1}\n    ]\n}", "{\n    \"a\": [\n        {\"b\": 1, \"c\": 2},\n        {\n            \"d\": \"x\"\n        }\n    ]\n}",
			ops(newOperation("add", "/a/0/c", 2), newOperation("add", "/a/-", map[string]any{"d": "x"})), ops(newOperation("remove", "/a/0/c", nil), newOperation("remove", "/a/1", nil))},
		"JSON with Windows newlines": {true, "{\r\n\t\"a\": 1\r\n}\r\n", "{\r\n\t\"a\": 1,\r\n\t\"b\": [\r\n\t\t2\r\n\t]\r\n}\r\n", ops(newOperation("add", "/b", []int{2})), ops(newOperation("remove", "/b", nil))},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := rewrite(rawDocument{body: []byte(test.in), isJSON: test.json}, test.patch)
			require.NoError(t, err)
			assert.Equal(t, test.want, string(got))
			back, err := rewrite(rawDocument{body: got, isJSON: test.json}, test.revert)
			require.NoError(t, err)
			assert.Equal(t, test.in, string(back))
		})
	}
}

// TestRemoveFlow removes entries at each position.
func TestRemoveFlow(t *testing.T) {
	lines := "{\n  a: 1, # a\n  # above b\n  b: 2, # b\n  c: 3 # c\n}\n"
	for name, test := range map[string]struct{ in, path, want string }{
		"the first of a line":   {"{a: 1, b: 2}\n", "/a", "{b: 2}\n"},
		"the last of a line":    {"{a: 1, b: 2}\n", "/b", "{a: 1}\n"},
		"one in the middle":     {"[1, 2, 3]\n", "/1", "[1, 3]\n"},
		"the only one":          {"a: {b: {c: 1}}\n", "/a/b/c", "a: {b: {}}\n"},
		"the first of lines":    {lines, "/a", "{\n  # above b\n  b: 2, # b\n  c: 3 # c\n}\n"},
		"the middle one":        {lines, "/b", "{\n  a: 1, # a\n  c: 3 # c\n}\n"},
		"the last of lines":     {lines, "/c", "{\n  a: 1, # a\n  # above b\n  b: 2 # b # c\n}\n"},
		"the last, with commas": {"{\n  a: 1,\n  b: 2,\n}\n", "/b", "{\n  a: 1,\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := rewrite(rawDocument{body: []byte(test.in)}, []jsonpatch.Operation{newOperation("remove", test.path, nil)})
			require.NoError(t, err)
			assert.Equal(t, test.want, string(got))
		})
	}
}

// TestScanFlow shows where collections and their entries end.
func TestScanFlow(t *testing.T) {
	for in, want := range map[string][]string{
		`{}`: nil, `[ # ]` + "\n" + `]`: nil,
		`{a: 1, "b":2 ,c: }`:              {"a: 1", `"b":2`, "c: "},
		`[a, [b, c], {d: e}, "f,]", ]`:    {"a", "[b, c]", "{d: e}", `"f,]"`},
		`{a: b c # , }` + "\n" + `, d: e`: nil,
		`[&x [1], *x, !!str y]`:           {"&x [1]", "*x", "!!str y"},
		`["unended]`:                      nil, `x`: nil,
	} {
		c, ok := scanFlow([]byte(in), 0)
		var got []string
		for _, e := range c.entries {
			got = append(got, in[e.start:e.end])
		}
		if ok {
			assert.Equal(t, want, got, in)
			assert.Equal(t, len(in)-1, c.close, in)
		} else {
			assert.Nil(t, want, in)
		}
	}
}
