package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const manualSamples = "../../samples/by-hand/"

// By default adopt prints a diff, and how the injected pod differs. With -o yaml it
// prints manifests that inject accepts and uninject restores.
func TestAdopt(t *testing.T) {
	in, err := os.ReadFile(manualSamples + "sidecar.yaml")
	require.NoError(t, err)
	shown := isthmus(t, string(in), "adopt", "-f", "-")
	require.Equal(t, exitOK, shown.status, shown.stderr)
	assert.True(t, strings.HasPrefix(shown.stdout, "--- <stdin>\n+++ <stdin>\n@@ -29,6 +29,12 @@ Deployment emissary/emissary-ingress\n"), shown.stdout)
	assert.Contains(t, shown.stdout, "\n-        - name: istio-proxy\n")
	assert.Contains(t, shown.stdout, "\n+        isthmus.dev/inject: \"true\"\n")
	assert.True(t, strings.HasPrefix(shown.stderr, defaults+
		"deployment/emissary/emissary-ingress: adopted (container istio-proxy written by hand; profile emissary, mode sidecar)\n"+
		"  once injected, it differs from what was written by hand in:\n"), shown.stderr)
	assert.Contains(t, shown.stderr, "\n  spec.initContainers[istio-proxy].image: \"docker.io/istio/proxyv2:1.24.2\" -> \"docker.io/istio/proxyv2:1.31.1\" (the mesh's own image, not pinned: it follows Istio's version)\n")
	assert.Equal(t, output{exitOK, shown.stdout, ""}, isthmus(t, string(in), "adopt", "-q", "-o", "diff", "-f", "-"))

	adopted := isthmus(t, string(in), "adopt", "-q", "-f", "-", "-o", "yaml")
	require.Equal(t, exitOK, adopted.status, adopted.stderr)
	assert.NotContains(t, adopted.stdout, "istio-proxy")
	assert.Equal(t, output{exitOK, "", defaults + "deployment/emissary/emissary-ingress: unchanged (not integrated by hand)\n"}, isthmus(t, adopted.stdout, "adopt", "-f", "-"), "adopting twice is the same as once")
	injected := isthmus(t, adopted.stdout, "inject", "-q", "-f", "-")
	require.Equal(t, exitOK, injected.status, injected.stderr)
	assert.Contains(t, injected.stdout, "\n        - name: istio-proxy\n")
	assert.Equal(t, adopted.stdout, isthmus(t, injected.stdout, "uninject", "-q", "-f", "-").stdout)
	refused := isthmus(t, injected.stdout, "adopt", "-f", "-")
	assert.Equal(t, exitError, refused.status)
	assert.Empty(t, refused.stdout)
	assert.Contains(t, refused.stderr, "error: <stdin>:15: document 2 (Deployment emissary/emissary-ingress): cannot be adopted: metadata.annotations[isthmus.dev/status]: Isthmus has already injected this pod; revert that first with isthmus uninject\n")
}

// patch(1) can apply the diff to the file.
func TestAdoptPatches(t *testing.T) {
	for _, name := range []string{"sidecar.yaml", "annotations.yaml", "values.yaml", "edge-stack-values.yaml"} {
		data, err := os.ReadFile(manualSamples + name)
		require.NoError(t, err)
		file := write(t, name, string(data))
		diff := isthmus(t, "", "adopt", "-q", "-f", file)
		want := isthmus(t, "", "adopt", "-q", "-o", "yaml", "-f", file)
		require.Equal(t, exitOK, diff.status, diff.stderr)
		assert.Equal(t, want.stdout, patched(t, data, diff.stdout), name)
	}
}

func TestAdoptChoices(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		want   []string
		absent []string
		stderr string
	}{
		"the image stays":   {[]string{"--keep-image"}, []string{"sidecar.istio.io/proxyImage: docker.io/istio/proxyv2:1.24.2\n", "isthmus.dev/inject: \"true\"\n"}, nil, ""},
		"by the pod":        {[]string{"--by", "pod"}, []string{"isthmus.dev/inject: \"true\"\n"}, []string{"proxyImage"}, ""},
		"by the namespace":  {[]string{"--by", "namespace"}, []string{"isthmus.dev/cert-ttl: \"12h\"\n"}, []string{"isthmus.dev/inject"}, "warning: deployment/emissary/emissary-ingress: gets no identity until its namespace is labelled: kubectl label namespace emissary isthmus.dev/injection=enabled\n"},
		"with the settings": {[]string{"--settings", write(t, "s.yaml", "mesh: {trustDomain: corp.example, caAddress: istiod.corp:15012}\n")}, nil, nil, "warning: deployment/emissary/emissary-ingress: the sidecar written by hand sets CA_ADDR to \"istiod.istio-system.svc:15012\", and the mesh settings used here say \"istiod.corp:15012\"; check them, with --from-cluster or --settings\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := isthmus(t, "", append([]string{"adopt", "-q", "-o", "yaml", "-f", manualSamples + "sidecar.yaml"}, test.args...)...)
			require.Equal(t, exitOK, got.status, got.stderr)
			for _, want := range test.want {
				assert.Contains(t, got.stdout, want)
			}
			for _, absent := range test.absent {
				assert.NotContains(t, got.stdout, absent)
			}
			assert.Equal(t, test.stderr, got.stderr)
		})
	}
	assert.Equal(t, output{exitUsage, "", "error: --by \"me\": want pod or namespace\n"}, isthmus(t, "", "adopt", "-f", "-", "--by", "me"))
	assert.Equal(t, output{exitUsage, "", "error: -f is missing: name a file, a directory or - for standard input, as in \"isthmus adopt -f emissary.yaml\"\n"}, isthmus(t, "", "adopt"))
	assert.Equal(t, output{exitUsage, "", "error: --revision has no effect without --from-cluster: add --from-cluster, or leave --revision out\n"}, isthmus(t, "", "adopt", "-f", "-", "--revision", "x"))

	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitUsage, run(context.Background(), []string{"kubectl-isthmus", "adopt"}, strings.NewReader(""), &stdout, &stderr))
	assert.Contains(t, stderr.String(), `as in "kubectl isthmus adopt -f emissary.yaml"`)
}

// docs/adopt.md shows this output.
func TestAdoptPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/adopt.md")
	require.NoError(t, err)
	for _, name := range []string{"annotations.yaml", "values.yaml"} {
		args := []string{"adopt", "-q", "-f", manualSamples + name}
		if name == "values.yaml" {
			args = append(args, "-n", "emissary")
		}
		got := isthmus(t, "", args...)
		require.Equal(t, exitOK, got.status, got.stderr)
		shown := strings.ReplaceAll(got.stdout, manualSamples, "samples/by-hand/")
		assert.Contains(t, string(page), "$ isthmus "+strings.ReplaceAll(strings.Join(args, " "), manualSamples, "samples/by-hand/")+"\n"+shown+"```\n")
	}
}
