package security

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testFunctions returns the tests in a folder, whatever their build tags.
func testFunctions(t testing.TB, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "..", filepath.FromSlash(folder), "*_test.go"))
	require.NoError(t, err)
	all := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && testName.MatchString(f.Name.Name) {
				all[f.Name.Name] = true
			}
		}
	}
	delete(all, "TestMain")
	return all
}

var (
	testName      = regexp.MustCompile(`^(Test|Fuzz)[A-Z]`)
	testReference = regexp.MustCompile("`(?:([a-z0-9/]+) )?((?:Test|Fuzz)[A-Z][A-Za-z0-9]*)`")
)

// TestList checks that every line of the red-team list names existing tests, and that every
// test of this package is on the list.
func TestList(t *testing.T) {
	page, err := os.ReadFile("../../../docs/security.md")
	require.NoError(t, err)
	_, list, found := strings.Cut(string(page), "\n## Red-team list\n")
	require.True(t, found)
	list, _, _ = strings.Cut(list, "\n## ")
	listed, lines := map[string]bool{"TestList": true}, 0
	for line := range strings.Lines(list) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| attack |") {
			continue
		}
		lines++
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		require.Len(t, cells, 3, line)
		tests := testReference.FindAllStringSubmatch(cells[2], -1)
		assert.NotEmpty(t, tests, "no test for: %s", line)
		for _, test := range tests {
			folder, name := test[1], test[2]
			if folder == "" {
				folder, listed[name] = "test/mesh/security", true
			}
			assert.True(t, testFunctions(t, folder)[name], "%s: there is no %s in %s", cells[0], name, folder)
		}
	}
	assert.Greater(t, lines, 20)
	for name := range testFunctions(t, "test/mesh/security") {
		assert.True(t, listed[name], "%s is not in the list of docs/security.md", name)
	}
}
