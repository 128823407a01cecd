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
			t.Cleanup(func() { env.cleanUp(t) })
			err = page.Run(t.Context(), p, page.Options{Dir: filepath.Join(env.folder, "work"), Env: env.pageEnvironment(), Progress: os.Stderr})
			require.NoError(t, err)
		})
	}
}

// watchedKinds are the kinds of objects that a page could leave behind for the next page.
const watchedKinds = "namespaces,peerauthentications.security.istio.io,authorizationpolicies.security.istio.io," +
	"mappings.getambassador.io,tlscontexts.getambassador.io,deployments,mutatingwebhookconfigurations,customresourcedefinitions"

// listObjects returns the names of the objects of watchedKinds, by kind, as namespace/name.
func (env *Environment) listObjects(ctx context.Context) (map[string]map[string]bool, error) {
	all := map[string]map[string]bool{}
	for kind := range strings.SplitSeq(watchedKinds, ",") {
		out, err := env.output(ctx, "", "kubectl", "get", kind, "-A", "-o",
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

// cleanUp deletes the namespaces that a page created, and fails if the page left anything
// else.
func (env *Environment) cleanUp(t *testing.T) {
	t.Helper()
	if t.Failed() {
		env.dump(os.Stderr) // before anything is deleted
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	now, err := env.listObjects(ctx)
	require.NoError(t, err)
	arguments := []string{"delete", "namespace"}
	for name := range now["namespaces"] {
		if !env.initialObjects["namespaces"][name] {
			arguments = append(arguments, strings.TrimPrefix(name, "/"))
		}
	}
	if len(arguments) > 2 {
		require.NoError(t, env.kubectl(ctx, "", arguments...))
	}
	if t.Failed() {
		return // the page did not reach its own cleanup
	}
	now, err = env.listObjects(ctx)
	require.NoError(t, err)
	assert.Equal(t, env.initialObjects, now, "the page has to delete these objects at its end")
}
