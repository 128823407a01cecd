package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// edgePod is an Emissary pod that the built-in profiles recognise.
const edgePod = `apiVersion: v1
kind: Pod
metadata:
  name: edge   # the edge
spec:
  containers:
  - name: ambassador
    image: docker.io/emissaryingress/emissary:4.1.0
`

const service = "apiVersion: v1\nkind: Service\nmetadata:   {name: edge}\n"

// output is the result of a command line.
type output struct {
	status         int
	stdout, stderr string
}

// isthmus runs a command line in this process.
func isthmus(t *testing.T, stdin string, args ...string) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(context.Background(), append([]string{"/usr/bin/isthmus"}, args...), strings.NewReader(stdin), &stdout, &stderr)
	return output{status, stdout.String(), stderr.String()}
}

// write creates a file in a temporary directory.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestUsageErrors(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"mistyped command":        {[]string{"injct", "-f", "x"}, "error: unknown command \"injct\" for \"isthmus\"\n\nDid you mean this?\n\tinject\n"},
		"unknown flag":            {[]string{"inject", "--bogus"}, "error: unknown flag: --bogus\nSee \"isthmus inject --help\" for the flags\n"},
		"file without -f":         {[]string{"inject", "edge.yaml"}, "error: unexpected argument \"edge.yaml\": name files with -f, as in \"isthmus inject -f edge.yaml\"\n"},
		"no -f":                   {[]string{"uninject"}, "error: -f is missing: name a file, a directory or - for standard input, as in \"isthmus uninject -f emissary.yaml\"\n"},
		"unknown output":          {[]string{"inject", "-f", "-", "-o", "xml"}, "error: --output \"xml\": want yaml, json or diff\n"},
		"empty namespace":         {[]string{"inject", "-f", "-", "-n", ""}, "error: --namespace is empty: want the namespace of workloads that do not name one\n"},
		"standard input twice":    {[]string{"inject", "-f", "-", "-f", "-"}, "error: -f - is given 2 times: standard input can be read only once\n"},
		"revision alone":          {[]string{"inject", "-f", "-", "--revision", "canary"}, "error: --revision has no effect without --from-cluster: add --from-cluster, or leave --revision out\n"},
		"kubeconfig alone":        {[]string{"inject", "-f", "-", "--kubeconfig", "x"}, "error: --kubeconfig has no effect without --from-cluster: add --from-cluster, or leave --kubeconfig out\n"},
		"version of something":    {[]string{"version", "x"}, "error: unexpected argument \"x\": version takes no arguments\n"},
		"version in another form": {[]string{"version", "-o", "yaml"}, "error: --output \"yaml\": want text or json\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := isthmus(t, "", test.args...)
			assert.Equal(t, output{exitUsage, "", test.want}, got)
		})
	}
}

// The help of every command has an example, with the name that the binary was called
// by.
func TestHelpHasExamples(t *testing.T) {
	for _, command := range []string{"", "inject", "uninject", "adopt", "version"} {
		args := append(strings.Fields(command), "--help")
		got := isthmus(t, "", args...)
		assert.Equal(t, exitOK, got.status, command)
		assert.Contains(t, got.stdout, "Examples:\n", command)
		assert.Contains(t, got.stdout, "  isthmus ", command)
		assert.Empty(t, got.stderr, command)

		var stdout, stderr bytes.Buffer
		status := run(context.Background(), append([]string{"/usr/local/bin/kubectl-isthmus"}, args...), strings.NewReader(""), &stdout, &stderr)
		assert.Equal(t, exitOK, status, command)
		assert.Contains(t, stdout.String(), "Usage:\n  "+strings.TrimSpace("kubectl isthmus "+command), command)
		assert.NotRegexp(t, `(?m)^  isthmus `, stdout.String(), command)
	}
	var stdout, stderr bytes.Buffer
	assert.Equal(t, exitUsage, run(context.Background(), []string{`kubectl-isthmus.exe`, "inject"}, strings.NewReader(""), &stdout, &stderr))
	assert.Contains(t, stderr.String(), `as in "kubectl isthmus inject -f emissary.yaml"`)
}

func TestCompletionStillWorks(t *testing.T) {
	got := isthmus(t, "", "__complete", "inj")
	assert.Equal(t, exitOK, got.status)
	assert.Contains(t, got.stdout, "inject\t")
}
