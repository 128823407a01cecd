package docs

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	runner "github.com/isthmus-mesh/isthmus/test/framework/page"
)

// Every guide is listed, can be run, removes what it made, and says what it was
// tried with.
func TestGuidesCanBeRun(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("guides", "*.md"))
	require.NoError(t, err)
	list := page(t, filepath.Join("guides", "README.md"))
	guides := 0
	for _, file := range files {
		name := filepath.Base(file)
		if name == "README.md" {
			continue
		}
		guides++
		listed := strings.Contains(list, "("+name+")")
		assert.True(t, listed, "guides/README.md lists no %s", name)
		p, err := runner.Read(file)
		if !assert.NoError(t, err) {
			continue
		}
		expected := 0
		for _, b := range p.Blocks {
			if b.Expects && !b.Skip {
				expected++
			}
		}
		assert.NotZero(t, expected, "%s: blocks that say what they print", name)
		text := page(t, file)
		for _, heading := range []string{"## Clean up", "## Tried with"} {
			hasHeading := strings.Contains(text, "\n"+heading+"\n")
			assert.True(t, hasHeading, "%s has no %s", name, heading)
		}
		if at := strings.Index(text, "\n## Tried with\n"); at >= 0 {
			namesStandIns := strings.Contains(text[at:], "README.md#stand-ins")
			assert.True(t, namesStandIns, "%s does not name its stand-ins", name)
		}
	}
	assert.NotZero(t, guides)
}
