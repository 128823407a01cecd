package manifest

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
)

func rejoin(documents []rawDocument) []byte {
	var out bytes.Buffer
	for _, d := range documents {
		out.Write(d.prefix)
		out.Write(d.body)
		out.Write(d.suffix)
	}
	return out.Bytes()
}

func TestSplit(t *testing.T) {
	for name, test := range map[string]struct {
		in     string
		bodies []string
		lines  []int
	}{
		"nothing":                        {in: ""},
		"one document":                   {in: "a: 1\n", bodies: []string{"a: 1\n"}, lines: []int{1}},
		"no final newline":               {in: "a: 1", bodies: []string{"a: 1"}, lines: []int{1}},
		"two documents":                  {in: "a: 1\n---\nb: 2\n", bodies: []string{"a: 1\n", "b: 2\n"}, lines: []int{1, 3}},
		"marker first":                   {in: "---\na: 1\n", bodies: []string{"a: 1\n"}, lines: []int{2}},
		"marker last":                    {in: "a: 1\n---\n", bodies: []string{"a: 1\n", ""}, lines: []int{1, 3}},
		"marker last, no newline":        {in: "a: 1\n---", bodies: []string{"a: 1\n", ""}, lines: []int{1, 2}},
		"markers only":                   {in: "---\n---\n", bodies: []string{"", ""}, lines: []int{2, 3}},
		"trailing space on the marker":   {in: "a: 1\n---  \nb: 2\n", bodies: []string{"a: 1\n", "b: 2\n"}, lines: []int{1, 3}},
		"comment on the marker":          {in: "--- # Source: x\nb: 2\n", bodies: []string{"b: 2\n"}, lines: []int{2}},
		"content on the marker":          {in: "--- {b: 2}\n", bodies: []string{"{b: 2}\n"}, lines: []int{1}},
		"content after a tab":            {in: "---\t{b: 2} \n", bodies: []string{"{b: 2} \n"}, lines: []int{1}},
		"comment above the first key":    {in: "# source\na: 1\n", bodies: []string{"# source\na: 1\n"}, lines: []int{1}},
		"comments only":                  {in: "# nothing\n\n# here\n", bodies: []string{""}, lines: []int{4}},
		"comment above the first marker": {in: "# licence\n---\na: 1\n", bodies: []string{"", "a: 1\n"}, lines: []int{2, 3}},
		"directive":                      {in: "%YAML 1.1\n# x\n---\na: 1\n", bodies: []string{"a: 1\n"}, lines: []int{4}},
		"byte order mark":                {in: "\xef\xbb\xbfa: 1\n", bodies: []string{"a: 1\n"}, lines: []int{1}},
		"byte order mark and marker":     {in: "\xef\xbb\xbf---\na: 1\n", bodies: []string{"a: 1\n"}, lines: []int{2}},
		"Windows newlines":               {in: "a: 1\r\n---\r\nb: 2\r\n", bodies: []string{"a: 1\r\n", "b: 2\r\n"}, lines: []int{1, 3}},
		"end marker":                     {in: "a: 1\n...\nb: 2\n", bodies: []string{"a: 1\n", "b: 2\n"}, lines: []int{1, 3}},
		"end marker then marker":         {in: "a: 1\n...\n---\nb: 2\n", bodies: []string{"a: 1\n", "b: 2\n"}, lines: []int{1, 4}},
		"dashes in a block scalar":       {in: "a: |\n  ---\n  x\n----\n", bodies: []string{"a: |\n  ---\n  x\n----\n"}, lines: []int{1}},
		"JSON":                           {in: "{\"a\": 1}\n", bodies: []string{`{"a": 1}`}, lines: []int{1}},
		"concatenated JSON":              {in: "{\"a\": 1}\n\n{\"b\": 2}{\"c\": 3}", bodies: []string{`{"a": 1}`, `{"b": 2}`, `{"c": 3}`}, lines: []int{1, 3, 3}},
		"JSON after a marker":            {in: "---\n{\"a\": 1}\n---\n{\"b\": 2}\n", bodies: []string{`{"a": 1}`, `{"b": 2}`}, lines: []int{2, 4}},
		"flow style is not JSON":         {in: "{a: 1}\n", bodies: []string{"{a: 1}\n"}, lines: []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			documents := splitDocuments([]byte(test.in))
			var bodies []string
			var at []int
			for _, d := range documents {
				bodies, at = append(bodies, string(d.body)), append(at, d.line)
			}
			assert.Equal(t, test.bodies, bodies)
			assert.Equal(t, test.lines, at)
			assert.Equal(t, test.in, string(rejoin(documents)))
		})
	}
}
