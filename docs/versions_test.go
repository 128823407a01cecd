package docs

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/patches"
)

var update = flag.Bool("update", false, "rewrite the tables of versions.md")

// The page's tables are the code's.
func TestVersionsPageIsTheTable(t *testing.T) {
	settings, needs, differences := patches.Facts()
	text := page(t, "versions.md")
	want := text
	for name, facts := range map[string][]patches.Fact{"settings": settings, "needs": needs, "differences": differences} {
		before, rest, found := strings.Cut(want, "<!-- "+name+" -->\n")
		require.True(t, found, name)
		_, after, found := strings.Cut(rest, "<!-- end -->")
		require.True(t, found, name)
		want = before + "<!-- " + name + " -->\n" + table(facts) + "<!-- end -->" + after
	}
	if *update {
		require.NoError(t, os.WriteFile("versions.md", []byte(want), 0o644))
		return
	}
	assert.Equal(t, want, text, "go test ./docs -update writes it")
}

func table(facts []patches.Fact) string {
	var b strings.Builder
	b.WriteString("| what | versions | what for | source |\n|---|---|---|---|\n")
	for _, f := range facts {
		versions := "all"
		switch {
		case f.Since != "" && f.Before != "":
			versions = f.Since + " until before " + f.Before
		case f.Since != "":
			versions = f.Since + " and later"
		case f.Before != "":
			versions = "before " + f.Before
		}
		name := f.Name
		if !strings.Contains(name, " ") || strings.HasPrefix(name, "--") || strings.HasPrefix(name, "proxy ") {
			name = "`" + name + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | `%s`: `%s` |\n", name, versions, f.Description, f.File, f.Symbol)
	}
	return b.String()
}
