package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const defaults = "mesh: defaults (no --settings, no --from-cluster)\n"

func TestInject(t *testing.T) {
	in := "# top\n" + service + "---\n" + edgePod + "---\n" + service
	got := isthmus(t, in, "inject", "-f", "-")
	require.Equal(t, exitOK, got.status, got.stderr)
	assert.Equal(t, defaults+"pod/default/edge: injected (profile emissary, mode sidecar)\n", got.stderr)
	assert.True(t, strings.HasPrefix(got.stdout, "# top\n"+service+"---\n"), got.stdout)
	assert.True(t, strings.HasSuffix(got.stdout, "---\n"+service), got.stdout)
	assert.Contains(t, got.stdout, "  name: edge   # the edge\n")
	assert.Contains(t, got.stdout, "name: istio-proxy\n")

	second := isthmus(t, got.stdout, "inject", "-q", "-f", "-")
	assert.Equal(t, output{exitOK, got.stdout, ""}, second, "injecting twice is the same as once")
	back := isthmus(t, got.stdout, "uninject", "-f", "-")
	assert.Equal(t, output{exitOK, in, "pod/default/edge: uninjected\n"}, back)
	none := isthmus(t, in, "uninject", "-f", "-")
	assert.Equal(t, output{exitOK, in, "pod/default/edge: unchanged (not injected)\n"}, none)
}

// docs/cli.md shows this output.
func TestInjectModeSecret(t *testing.T) {
	const sample = "../../samples/secret/nginx.yaml"
	got := isthmus(t, "", "inject", "-f", sample, "-o", "diff")
	require.Equal(t, exitOK, got.status, got.stderr)
	shown := got.stderr
	for _, line := range regexp.MustCompile(`(?m)^\+.*(injected:|secretName|mountPath|path:).*\n`).FindAllString(got.stdout, -1) {
		shown += line
	}
	page, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	assert.Contains(t, string(page), "mountPath|path:)'\n"+shown+"```\n")

	original, err := os.ReadFile(sample)
	require.NoError(t, err)
	injected := isthmus(t, string(original), "inject", "-q", "-f", "-")
	require.Equal(t, exitOK, injected.status, injected.stderr)
	assert.NotContains(t, injected.stdout, "istio-proxy")
	assert.Equal(t, output{exitOK, string(original), ""}, isthmus(t, injected.stdout, "uninject", "-q", "-f", "-"))
}

// A build that is not a release needs the publisher's image from the settings.
func TestInjectPublisher(t *testing.T) {
	pod := strings.Replace(edgePod, "spec:", "  annotations: {isthmus.dev/publish: 'true'}\nspec:", 1)
	got := isthmus(t, pod, "inject", "-q", "-f", "-")
	assert.Equal(t, exitOK, got.status)
	assert.Equal(t, pod, got.stdout)
	assert.Contains(t, got.stderr, "the settings name no publisherImage")

	settings := write(t, "settings.yaml", "publisherImage: registry.example/isthmus:1.0.0\n")
	got = isthmus(t, pod, "inject", "-q", "-f", "-", "--settings", settings)
	assert.Equal(t, exitOK, got.status, got.stderr)
	assert.Contains(t, got.stdout, "image: registry.example/isthmus:1.0.0\n")
	assert.Equal(t, output{exitOK, pod, ""}, isthmus(t, got.stdout, "uninject", "-q", "-f", "-"))
}

func TestInjectOutputs(t *testing.T) {
	in := service + "---\n" + edgePod
	t.Run("diff", func(t *testing.T) {
		got := isthmus(t, in, "inject", "-f", "-", "-o", "diff")
		require.Equal(t, exitOK, got.status, got.stderr)
		assert.True(t, strings.HasPrefix(got.stdout, "--- <stdin>\n+++ <stdin>\n@@ -6,7 +6,"), got.stdout)
		assert.Contains(t, got.stdout, "\n+  - name: istio-proxy\n")
		assert.NotContains(t, got.stdout, "\x1b[", "no colour without a terminal")
		assert.NotContains(t, got.stdout, "\n-", "nothing is removed")
	})
	t.Run("diff of nothing", func(t *testing.T) {
		assert.Equal(t, output{exitOK, "", ""}, isthmus(t, service, "inject", "-q", "-f", "-", "-o", "diff"))
	})
	t.Run("json", func(t *testing.T) {
		got := isthmus(t, in, "inject", "-q", "-f", "-", "-o", "json")
		require.Equal(t, exitOK, got.status, got.stderr)
		dec := json.NewDecoder(strings.NewReader(got.stdout))
		var kinds []any
		for dec.More() {
			var manifest map[string]any
			require.NoError(t, dec.Decode(&manifest))
			kinds = append(kinds, manifest["kind"])
		}
		assert.Equal(t, []any{"Service", "Pod"}, kinds)
	})
}

func TestInjectFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"b.yml": edgePod, "a.yaml": service, "c.JSON": "{\"kind\": \"Service\"}\n", "README.md": "not: [this"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "deeper.yaml"), 0o700))
	got := isthmus(t, "kind: More\n", "uninject", "-q", "-f", dir, "-f", "-")
	assert.Equal(t, output{exitOK, service + "---\n" + edgePod + "---\n{\"kind\": \"Service\"}\n---\nkind: More\n", ""}, got)
}

func TestInjectNamespace(t *testing.T) {
	got := isthmus(t, edgePod, "inject", "-n", "own", "-f", "-")
	assert.Contains(t, got.stderr, "pod/own/edge: injected")
	locked := "apiVersion: v1\nkind: Namespace\nmetadata: {name: own, labels: {isthmus.dev/injection: disabled}}\n---\n" + edgePod
	got = isthmus(t, locked, "inject", "-n", "own", "-f", "-")
	assert.Equal(t, exitOK, got.status)
	assert.Equal(t, locked, got.stdout)
	assert.Contains(t, got.stderr, "pod/own/edge: unchanged (")
}

// All errors are printed on standard error, and then nothing on standard output.
func TestInjectErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	bad := write(t, "bad.yaml", service+"---\na: b: c\n---\n"+strings.Replace(edgePod, "  - name: ambassador", "  - name: ambassador\n    env: A=b", 1)+"---\n"+edgePod)
	denied := write(t, "denied.yaml", strings.Replace(edgePod, "spec:", "  annotations: {isthmus.dev/mode: bogus}\nspec:", 1))
	settings := write(t, "settings.yaml", "mesh: {trustDomian: x}\n")
	value := write(t, "value.yaml", "mesh: {trustDomain: 'a b'}\n")
	profile := write(t, "profile.yaml", "name: mine\nfrobnicate: 1\n")
	empty := t.TempDir()
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"missing file": {[]string{"-f", missing}, []string{"error: stat " + missing + ": no such file or directory"}},
		"empty folder": {[]string{"-f", empty}, []string{"error: " + empty + ": no *.yaml, *.yml or *.json file in this directory"}},
		"bad documents": {[]string{"-f", bad}, []string{
			"error: " + bad + ":5: document 2: does not parse: mapping values are not allowed in this context",
			"error: " + bad + `:14: document 3 (Pod default/edge): spec.containers[0].env: want a list, got the string "A=b"`}},
		"denied": {[]string{"-f", denied}, []string{
			"error: " + denied + `:1: document 1 (Pod default/edge): denied (invalid-override): annotation isthmus.dev/mode: "bogus" is not allowed; want sidecar, istio, secret or ambient`}},
		"missing settings":          {[]string{"-f", bad, "--settings", missing}, []string{"error: open " + missing + ": no such file or directory"}},
		"unknown field in settings": {[]string{"-f", bad, "--settings", settings}, []string{"error: " + settings + `:1: mesh has no field "trustDomian"; known are `}},
		"bad value in settings":     {[]string{"-f", bad, "--settings", value}, []string{"error: " + value + `: mesh: trustDomain "a b": want a SPIFFE trust domain such as cluster.local`}},
		"unknown field in profile":  {[]string{"-f", bad, "--profiles", profile}, []string{"error: " + profile + ":2: "}},
		"missing profiles":          {[]string{"-f", bad, "--profiles", missing}, []string{"error: open " + missing + ": no such file or directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := isthmus(t, "", append([]string{"inject", "-q"}, test.args...)...)
			assert.Equal(t, exitError, got.status)
			assert.Empty(t, got.stdout)
			lines := strings.Split(strings.TrimSuffix(got.stderr, "\n"), "\n")
			require.Len(t, lines, len(test.want), got.stderr)
			for i, want := range test.want {
				assert.True(t, strings.HasPrefix(lines[i], want), "want %s\ngot  %s", want, lines[i])
			}
		})
	}
}

func TestInjectSettings(t *testing.T) {
	settings := write(t, "settings.yaml", "mesh:\n  trustDomain: corp.example\n  maxCertTTL: 12h\n")
	got := isthmus(t, edgePod, "inject", "-f", "-", "--settings", settings)
	require.Equal(t, exitOK, got.status, got.stderr)
	assert.Contains(t, got.stderr, "mesh: maxCertTTL=12h0m0s ("+settings+")\nmesh: trustDomain=corp.example ("+settings+")\n")
	assert.Contains(t, got.stdout, "value: corp.example\n")

	nothing := write(t, "nothing.yaml", "secretNames: [istio-certs]\n")
	got = isthmus(t, edgePod, "inject", "-f", "-", "--settings", nothing)
	assert.Contains(t, got.stderr, "mesh: defaults ("+nothing+" sets none)\n")
}

func TestInjectProfiles(t *testing.T) {
	profile := write(t, "profile.yaml", "name: mine\ndescription: An edge of our own.\nmatch:\n- images: [corp/edge]\n")
	in := strings.Replace(edgePod, "docker.io/emissaryingress/emissary:4.1.0", "registry.example/corp/edge:1", 1)
	got := isthmus(t, in, "inject", "-f", "-")
	assert.Equal(t, output{exitOK, in, defaults + "pod/default/edge: unchanged (no-profile)\n"}, got)
	got = isthmus(t, in, "inject", "-f", "-", "--profiles", profile)
	require.Equal(t, exitOK, got.status, got.stderr)
	assert.Contains(t, got.stderr, "pod/default/edge: injected (profile mine, mode sidecar)\n")
}

// A workload that is no edge is not judged by its values for Istio.
func TestInjectNeighbour(t *testing.T) {
	in := "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  annotations:\n    sidecar.istio.io/logLevel: \"rbac:debug,jwt:debug\"\n    status.sidecar.istio.io/port: \"0\"\nspec:\n  containers:\n  - name: web\n    image: registry.example/web:1\n"
	assert.Equal(t, output{exitOK, in, defaults + "pod/default/web: unchanged (no-profile)\n"}, isthmus(t, in, "inject", "-f", "-"))
}

func TestInjectWarns(t *testing.T) {
	got := isthmus(t, "# nothing\n", "inject", "-q", "-f", "-")
	assert.Equal(t, output{exitOK, "# nothing\n", "warning: <stdin>: contains no objects\n"}, got)

	got = isthmus(t, strings.Replace(edgePod, "spec:", "  annotations: {isthmus.dev/delivry: secret}\nspec:", 1), "inject", "-q", "-f", "-")
	assert.Equal(t, exitOK, got.status)
	assert.Contains(t, got.stderr, "warning: pod/default/edge: ")
	assert.Contains(t, got.stderr, "isthmus.dev/delivery", "the nearest key is named, and --quiet keeps warnings")
}

// A warning is printed once: with the objects that it concerns, or about their namespace.
func TestInjectGroupsWarnings(t *testing.T) {
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {isthmus.dev/moed: x}}\n"
	in := namespace
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		in += "---\n" + strings.Replace(edgePod, "spec:", "  annotations: {isthmus.dev/delivry: secret}\nspec:", 1)
		in = strings.Replace(in, "name: edge ", "name: "+name+" ", 1)
	}
	got := isthmus(t, in, "inject", "-q", "-f", "-")
	require.Equal(t, exitOK, got.status, got.stderr)
	lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
	require.Len(t, lines, 2, got.stderr)
	assert.True(t, strings.HasPrefix(lines[0], "warning: pod/default/a, pod/default/b, pod/default/c, pod/default/d, pod/default/e and 2 more: "), lines[0])
	assert.Equal(t, "warning: namespace/default: annotation isthmus.dev/moed is not known and has no effect; did you mean isthmus.dev/mode?", lines[1])
}

// What can hold an edge and is not looked into has a line, which -q keeps quiet.
func TestInjectNamesWhatIsLeftAlone(t *testing.T) {
	in := "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: edge}\n---\n- kind: Pod\n"
	got := isthmus(t, in, "inject", "-f", "-")
	assert.Equal(t, output{exitOK, in, defaults +
		"helmrelease/edge: not looked into (workloads are rendered from it; give inject what is rendered, such as the output of helm template or kustomize build)\n" +
		"<stdin>: document 2: not looked into (a list is no Kubernetes object; write its items as documents of their own, or below items: of a List)\n"}, got)
	assert.Equal(t, output{exitOK, in, ""}, isthmus(t, in, "inject", "-q", "-f", "-"))
}

func TestUninjectRefuses(t *testing.T) {
	injected := isthmus(t, edgePod, "inject", "-q", "-f", "-")
	require.Equal(t, exitOK, injected.status, injected.stderr)
	changed := strings.Replace(injected.stdout, "medium: Memory", "medium: ''", 1)
	require.NotEqual(t, injected.stdout, changed)
	got := isthmus(t, changed, "uninject", "-f", "-")
	assert.Equal(t, exitError, got.status)
	assert.Empty(t, got.stdout)
	assert.Contains(t, got.stderr, "error: <stdin>:1: document 1 (Pod default/edge): cannot be reverted: ")
	assert.Contains(t, got.stderr, "istio-certs")
}
