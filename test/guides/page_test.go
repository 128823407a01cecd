//go:build guides

package guides

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/page"
)

// TestPages runs every guide.
func TestPages(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root(), "docs", "guides", "*.md"))
	require.NoError(t, err)
	files = slices.DeleteFunc(files, func(file string) bool { return filepath.Base(file) == "README.md" })
	require.NotEmpty(t, files)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		t.Run(name, func(t *testing.T) {
			p, err := page.Read(file)
			require.NoError(t, err)
			p.Path = filepath.Join("docs", "guides", filepath.Base(file))
			t.Cleanup(func() { world.tidy(t) })
			err = page.Run(t.Context(), p, page.Options{Dir: filepath.Join(world.folder, "work"), Env: world.env(), Progress: os.Stderr})
			require.NoError(t, err)
		})
	}
}

// kept are the kinds of objects, outside of namespaces that a page makes, that
// would change what the next page sees.
const kept = "namespaces,peerauthentications.security.istio.io,authorizationpolicies.security.istio.io," +
	"mappings.getambassador.io,tlscontexts.getambassador.io,deployments,mutatingwebhookconfigurations,customresourcedefinitions"

// objects are those of the kinds that are kept, by kind, as namespace/name.
func (w *World) objects(ctx context.Context) (map[string]map[string]bool, error) {
	all := map[string]map[string]bool{}
	for kind := range strings.SplitSeq(kept, ",") {
		out, err := w.output(ctx, "", "kubectl", "get", kind, "-A", "-o",
			`jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}`)
		if err != nil {
			return nil, err
		}
		all[kind] = map[string]bool{}
		for _, name := range strings.Fields(out) {
			all[kind][name] = true
		}
	}
	return all, nil
}

// tidy removes the namespaces that a page made, and fails where it left anything
// else.
func (w *World) tidy(t *testing.T) {
	t.Helper()
	if t.Failed() {
		w.dump(os.Stderr) // now, while what is there tells why
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	now, err := w.objects(ctx)
	require.NoError(t, err)
	arguments := []string{"delete", "namespace"}
	for name := range now["namespaces"] {
		if !w.before["namespaces"][name] {
			arguments = append(arguments, strings.TrimPrefix(name, "/"))
		}
	}
	if len(arguments) > 2 {
		require.NoError(t, w.kubectl(ctx, "", arguments...))
	}
	if t.Failed() {
		return // it did not come to its end
	}
	now, err = w.objects(ctx)
	require.NoError(t, err)
	assert.Equal(t, w.before, now, "what the page has to remove at its end")
}
