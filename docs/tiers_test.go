package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testFolders returns every folder of the repository that contains Go tests, and every
// folder below test, both relative to the root.
func testFolders(t *testing.T) (tested, all []string) {
	t.Helper()
	seen := map[string]bool{}
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel("..", path)
		require.NoError(t, err)
		name = filepath.ToSlash(name)
		switch {
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "testdata" || name == "bin"):
			return fs.SkipDir
		case d.IsDir() && strings.HasPrefix(name, "test/"):
			all = append(all, name)
		case strings.HasSuffix(name, "_test.go") && !seen[filepath.Dir(name)]:
			seen[filepath.Dir(name)] = true
			tested = append(tested, filepath.ToSlash(filepath.Dir(name)))
		}
		return nil
	}))
	return tested, all
}

// TestEveryTestFolderIsInATier: the Makefile chooses tests by folder, so a folder that no
// target names would never be tested.
func TestEveryTestFolderIsInATier(t *testing.T) {
	found := regexp.MustCompile(`(?m)^UNIT := (.+)$`).FindStringSubmatch(page(t, filepath.Join("..", "Makefile")))
	require.NotNil(t, found, "the Makefile has no line UNIT")
	tiers := append(strings.Fields(found[1]), "./test/integration/...", "./test/mesh/...", "./test/guides", "./test/e2e/lifecycle",
		"./test/e2e/chaos", "./test/soak/...", "./test/tools/...")
	makefile := page(t, filepath.Join("..", "Makefile"))
	tested, _ := testFolders(t)
	for _, folder := range tested {
		in := false
		for _, tier := range tiers {
			base, below := strings.CutSuffix(strings.TrimPrefix(tier, "./"), "/...")
			in = in || folder == base || below && strings.HasPrefix(folder, base+"/")
		}
		assert.True(t, in, "no make target tests %s: see test/README.md", folder)
	}
	for _, tier := range tiers[:len(tiers)-1] {
		assert.Contains(t, makefile, tier)
	}
}

// TestFoldersOfTests: a name occurs once below test, the README names each tier, and each
// package of the framework says which tiers use it.
func TestFoldersOfTests(t *testing.T) {
	readme := page(t, filepath.Join("..", "test", "README.md"))
	_, all := testFolders(t)
	names := map[string]string{}
	for _, folder := range all {
		name := filepath.Base(folder)
		assert.Empty(t, names[name], "the name of %s occurs twice", folder)
		names[name] = folder
		if strings.Count(folder, "/") == 1 {
			assert.Contains(t, readme, "`"+folder)
		}
		if strings.HasPrefix(folder, "test/framework/") {
			files, err := filepath.Glob(filepath.Join("..", folder, "*.go"))
			require.NoError(t, err)
			hasComment := false
			for _, file := range files {
				content, err := os.ReadFile(file)
				require.NoError(t, err)
				hasComment = hasComment || strings.Contains(string(content), "// Package "+name+" stands for ") && strings.Contains(string(content), "\n// Tiers: ")
			}
			assert.True(t, hasComment || len(files) == 0, "%s: want a comment \"Package %s stands for ...\" with a line \"Tiers: ...\"", folder, name)
		}
	}
}

// TestTiersOfTheFramework: each package of the framework names every tier that imports it.
func TestTiersOfTheFramework(t *testing.T) {
	imported := regexp.MustCompile(`"github\.com/isthmus-mesh/isthmus/test/framework/(\w+)"`)
	line := regexp.MustCompile(`(?m)^// Tiers: (.*)$`)
	tested, _ := testFolders(t)
	for _, folder := range append(tested, "hack/demo") {
		tier := "unit"
		if folder == "hack/demo" || strings.HasPrefix(folder, "test/") {
			tier = strings.Join(strings.Split(folder, "/")[:2], "/")
		}
		if tier == "test/framework" || tier == "test/tools" {
			continue
		}
		files, err := filepath.Glob(filepath.Join("..", folder, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			for _, match := range imported.FindAllStringSubmatch(page(t, file), -1) {
				tiers := ""
				sources, err := filepath.Glob(filepath.Join("..", "test", "framework", match[1], "*.go"))
				require.NoError(t, err)
				for _, source := range sources {
					if found := line.FindStringSubmatch(page(t, source)); found != nil {
						tiers = found[1]
					}
				}
				isAll := strings.HasPrefix(tiers, "all") && tier != "hack/demo" && (tier != "unit" || !strings.Contains(tiers, "but unit"))
				assert.True(t, isAll || strings.Contains(tiers, tier), "%s imports test/framework/%s, whose tiers are: %s", file, match[1], tiers)
			}
		}
	}
}

// TestNamedTestsExist: go test succeeds if its -run pattern matches nothing, so after a
// renaming the Makefile would silently run fewer tests.
func TestNamedTestsExist(t *testing.T) {
	folders, _ := testFolders(t)
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)[A-Z]\w*)`)
	known := map[string]bool{}
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
		require.NoError(t, err)
		for _, file := range files {
			known[filepath.Base(file)] = true
			for _, match := range declaration.FindAllStringSubmatch(page(t, file), -1) {
				known[match[1]] = true
			}
		}
	}
	texts := pages(t)
	makefile := filepath.Join("..", "Makefile")
	texts[makefile] = page(t, makefile)
	for name, text := range texts {
		for _, test := range regexp.MustCompile(`\b(?:Test|Benchmark|Fuzz)[A-Z]\w*|\b\w+_test\.go\b`).FindAllString(text, -1) {
			assert.True(t, known[test], "%s names %s, which does not exist", name, test)
		}
	}
}
