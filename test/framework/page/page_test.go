package page_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/page"
)

// markdown replaces ~~~ with the fences of Markdown.
func markdown(text string) string { return strings.ReplaceAll(text, "~~~", "```") }

func TestParse(t *testing.T) {
	p, err := page.Parse("guide.md", markdown(`# A guide

~~~sh
one=1
echo $one
~~~

~~~text
1
~~~

Words between.

~~~yaml
kind: Pod
~~~

- in a list

  ~~~sh retry
  echo two
  ~~~

~~~sh skip
rm -rf /
~~~

More words.

~~~text
of no block
~~~
`))
	require.NoError(t, err)
	assert.Equal(t, []page.Block{
		{Line: 3, Commands: "one=1\necho $one\n", Expects: true, Want: "1\n"},
		{Line: 20, Commands: "echo two\n", Retry: true},
		{Line: 24, Commands: "rm -rf /\n", Skip: true},
	}, p.Blocks)
}

func TestParseRejectsInvalidPages(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"if a block has no end, expect an error with its line":         {"text\n~~~sh\ntrue\n", "guide.md:2: this block has no end"},
		"if a word is unknown, expect an error that names it":          {"~~~sh retries\ntrue\n~~~\n", `guide.md:1: unknown word "retries": choose retry or skip`},
		"if the second word is unknown, expect an error that names it": {"~~~sh retry now\ntrue\n~~~\n", `guide.md:1: unknown word "now": choose retry or skip`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := page.Parse("guide.md", markdown(test.text))
			assert.EqualError(t, err, test.want)
		})
	}
}

func TestMatch(t *testing.T) {
	for name, test := range map[string]struct {
		want, got string
		differs   bool
	}{
		"if both are the same, expect a match":                       {want: "a\nb\n", got: "a\nb\n"},
		"if blanks differ, expect a match":                           {want: "NAME READY\n", got: "NAME      READY   \n\n"},
		"if a line differs, expect none":                             {want: "a\nb", got: "a\nc", differs: true},
		"if a line is missing, expect none":                          {want: "a\nb", got: "a", differs: true},
		"if there is an extra line, expect none":                     {want: "a", got: "a\nb", differs: true},
		"if dots stand for lines, expect a match":                    {want: "a\n...\nd", got: "a\nb\nc\nd"},
		"if dots stand for nothing, expect a match":                  {want: "a\n...\nd", got: "a\nd"},
		"if dots come first and last, expect a match":                {want: "...\nb\n...", got: "a\nb\nc"},
		"if the line after the dots is missing, expect none":         {want: "...\nb", got: "a\nc", differs: true},
		"if dots end a line, expect a match":                         {want: "error: ...", got: "error: no such file"},
		"if a line has another beginning, expect none":               {want: "error: ...", got: "warning: no such file", differs: true},
		"if a word is a placeholder, expect a match":                 {want: "pod/quote-⟨id⟩ is ⟨state⟩.", got: "pod/quote-5d4-x is Running."},
		"if a placeholder would be two words, expect none":           {want: "pod/⟨id⟩", got: "pod/a b", differs: true},
		"if a placeholder would be empty, expect none":               {want: "pod/⟨id⟩", got: "pod/", differs: true},
		"if a character is special in patterns, expect it literally": {want: "a.c", got: "abc", differs: true},
		"if no output is expected and there is some, expect none":    {want: "", got: "a", differs: true},
	} {
		t.Run(name, func(t *testing.T) {
			err := page.Match(test.want, test.got)
			if test.differs {
				require.Error(t, err)
				return
			}
			assert.NoError(t, err)
		})
	}
}

func TestRun(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"if every block prints what is expected, expect no error": {
			text: "~~~sh\nname=world\n~~~\n\n~~~sh\necho hello $name\n~~~\n~~~text\nhello ⟨who⟩\n~~~\n",
		},
		"if a command fails, expect its position": {
			text: "~~~sh\ntrue\n~~~\n~~~sh\necho before\nfalse\necho after\n~~~\n",
			want: "guide.md:4: a command failed; it printed:\nbefore\n\nthe commands:\necho before\nfalse\necho after\n",
		},
		"if a command of a pipe fails, expect its position": {
			text: "~~~sh\nfalse | cat\n~~~\n",
			want: "guide.md:1: a command failed; it printed:\n\nthe commands:\nfalse | cat\n",
		},
		"if a block prints something else, expect both texts": {
			text: "~~~sh\necho no\n~~~\n~~~text\nyes\n~~~\n",
			want: "guide.md:1: expected:\nyes\nprinted:\nno\nthe commands:\necho no\n",
		},
		"if the shell exits, expect the position of the block": {
			text: "~~~sh\nexit 0\n~~~\n",
			want: "guide.md:1: a command failed; it printed:\n\nthe commands:\nexit 0\n",
		},
		"if a block is skipped, expect that it does not run": {
			text: "~~~sh skip\nfalse\n~~~\n",
		},
		"if standard input is read, expect it to be empty": {
			text: "~~~sh\ncat\n~~~\n~~~sh\necho still here\n~~~\n~~~text\nstill here\n~~~\n",
		},
		"if the third attempt succeeds, expect no error": {
			text: "~~~sh retry\necho . >> count\n[ $(wc -l < count) -ge 3 ]\nwc -l < count\n~~~\n~~~text\n3\n~~~\n",
		},
		"if no attempt succeeds, expect the error of the last one": {
			text: "~~~sh retry\necho sorry\nfalse\necho after\n~~~\n",
			want: "guide.md:1: ended with status 1, and printed:\nsorry\n\nthe commands:\necho sorry\nfalse\necho after\n",
		},
		"if a block takes too long, expect that it is killed": {
			text: "~~~sh\necho begun\nsleep 60\n~~~\n",
			want: "guide.md:1: not done: context deadline exceeded; it printed:\nbegun\n\nthe commands:\necho begun\nsleep 60\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := page.Parse("guide.md", markdown(test.text))
			require.NoError(t, err)
			progress := &bytes.Buffer{}
			err = page.Run(t.Context(), p, page.Options{
				Dir: t.TempDir(), Env: []string{"PATH=" + os.Getenv("PATH")}, Progress: progress, RetryTimeout: 2 * time.Second, Timeout: 3 * time.Second,
			})
			if test.want != "" {
				assert.EqualError(t, err, test.want)
				return
			}
			require.NoError(t, err)
			assert.Contains(t, progress.String(), "guide.md:1: ")
		})
	}
}
