package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gomodules.xyz/jsonpatch/v2"
)

// TestDiffApplies applies diffs by their line numbers alone, as patch(1) does.
func TestDiffApplies(t *testing.T) {
	for name, in := range map[string]string{
		"one document":     edgePod,
		"several":          "# x\n---\na: 1\n---\n" + edgePod + "---\n" + edgePod + "---\nb: 2\n",
		"no final newline": strings.TrimSuffix(edgePod, "\n"),
		"Windows newlines": strings.ReplaceAll(edgePod, "\n", "\r\n"),
		"JSON":             "{\"a\": 1}\n{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"spec\": {\"containers\": [{\"name\": \"edge\"}]}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			result := transform(t, fakeEditor, in)
			assert.Equal(t, string(result.Text()), applyDiff(t, in, string(result.Diff(false))))
		})
	}
}

var hunkHead = regexp.MustCompile(`^@@ -(\d+),(\d+) \+(\d+),(\d+) @@$`)

// applyDiff applies the hunks of a diff from the last to the first.
func applyDiff(t *testing.T, text, diff string) string {
	t.Helper()
	lines := strings.SplitAfter(text, "\n")
	var hunks [][]string
	for _, line := range strings.SplitAfter(diff, "\n") {
		switch {
		case strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "), line == "":
		case strings.HasPrefix(line, "@@ "):
			hunks = append(hunks, []string{line})
		case strings.HasPrefix(line, "\\"):
			h := hunks[len(hunks)-1]
			h[len(h)-1] = strings.TrimSuffix(h[len(h)-1], "\n")
		default:
			hunks[len(hunks)-1] = append(hunks[len(hunks)-1], line)
		}
	}
	for i := len(hunks) - 1; i >= 0; i-- {
		head := hunkHead.FindStringSubmatch(strings.TrimSpace(hunks[i][0]))
		require.NotNil(t, head, hunks[i][0])
		from, _ := strconv.Atoi(head[1])
		count, _ := strconv.Atoi(head[2])
		var old, replaced []string
		for _, line := range hunks[i][1:] {
			if line[0] != '+' {
				old = append(old, line[1:])
			}
			if line[0] != '-' {
				replaced = append(replaced, line[1:])
			}
		}
		require.Equal(t, old, lines[from-1:from-1+count])
		lines = append(lines[:from-1:from-1], append(replaced, lines[from-1+count:]...)...)
	}
	return strings.Join(lines, "")
}

func TestDiffColour(t *testing.T) {
	change := func(Workload) Edit {
		return Edit{Patch: []jsonpatch.Operation{newOperation("replace", "/metadata/name", "new")}}
	}
	result := transform(t, change, edgePod)
	assert.Equal(t, strings.Join([]string{
		"\x1b[1m--- a\tdocument 1 (Pod default/edge)\x1b[m", "\x1b[1m+++ a\tdocument 1 (Pod default/edge)\x1b[m", "\x1b[36m@@ -1,7 +1,7 @@\x1b[m",
		" apiVersion: v1", " kind: Pod", " metadata:", "\x1b[31m-  name: edge\x1b[m", "\x1b[32m+  name: new\x1b[m", " spec:", "   containers:", "   - name: edge", "",
	}, "\n"), string(result.Diff(true)))
}

func TestJSON(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"YAML":                 {"# x\nb: yes\na: [1, 0777]\n", "{\n    \"a\": [\n        1,\n        511\n    ],\n    \"b\": true\n}\n"},
		"nothing":              {"# x\n---\n---\n", ""},
		"JSON keeps its order": {"{\"b\":1.50,\"a\":2}", "{\n    \"b\": 1.50,\n    \"a\": 2\n}\n"},
		"several":              {"a: 1\n---\nb: 2\n", "{\n    \"a\": 1\n}\n{\n    \"b\": 2\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := transform(t, fakeEditor, test.in).JSON()
			require.NoError(t, err)
			assert.Equal(t, test.want, string(got))
		})
	}
	t.Run("YAML without a JSON equivalent", func(t *testing.T) {
		_, err := transform(t, fakeEditor, "a: 1\n---\n{{ x }}: 1\n").JSON()
		require.Error(t, err)
		assert.Contains(t, err.Error(), "a:3: document 2: does not parse: invalid map key")
	})
}

// TestWorkloadString shows how the report names workloads.
func TestWorkloadString(t *testing.T) {
	assert.Equal(t, "deployment/emissary/edge", fmt.Sprint(Workload{Kind: "Deployment", Namespace: "emissary", Name: "edge"}))
}

// TestKinds shows which kinds are workloads and where their pods are.
func TestKinds(t *testing.T) {
	for k, want := range map[typeMeta]string{
		{"v1", "Pod"}: "", {"v1", "ReplicationController"}: "/spec/template",
		{"apps/v1", "Deployment"}: "/spec/template", {"apps/v1beta1", "Deployment"}: "/spec/template", {"apps/v1beta2", "Deployment"}: "/spec/template", {"extensions/v1beta1", "Deployment"}: "/spec/template",
		{"apps/v1", "DaemonSet"}: "/spec/template", {"extensions/v1beta1", "DaemonSet"}: "/spec/template", {"apps/v1", "ReplicaSet"}: "/spec/template", {"extensions/v1beta1", "ReplicaSet"}: "/spec/template",
		{"apps/v1", "StatefulSet"}: "/spec/template", {"apps/v1beta1", "StatefulSet"}: "/spec/template",
		{"batch/v1", "Job"}: "/spec/template", {"extensions/v1beta1", "Job"}: "/spec/template",
		{"batch/v1", "CronJob"}: "/spec/jobTemplate/spec/template", {"batch/v1beta1", "CronJob"}: "/spec/jobTemplate/spec/template", {"batch/v2alpha1", "CronJob"}: "/spec/jobTemplate/spec/template", {"batch/v2alpha1", "ScheduledJob"}: "/spec/jobTemplate/spec/template",
	} {
		keys, ok := k.podTemplatePath()
		assert.True(t, ok, k)
		assert.Equal(t, want, jsonPointer(keys), k)
	}
	for _, k := range []typeMeta{{"v1", "Deployment"}, {"apps/v1", "Pod"}, {"extensions/v1beta1", "StatefulSet"}, {"batch.volcano.sh/v1alpha1", "Job"}, {"apps.openshift.io/v1", "DeploymentConfig"}, {"v1", "PodTemplate"}, {"", ""}, {"apps", "Deployment"}} {
		_, ok := k.podTemplatePath()
		assert.False(t, ok, k)
	}
	for k, want := range map[typeMeta]bool{
		{"v1", "List"}: true, {"v1", "PodList"}: true, {"apps/v1", "DeploymentList"}: true, {"extensions/v1beta1", "DeploymentList"}: true,
		{"v1", "ConfigMapList"}: false, {"example.com/v1", "List"}: false, {"example.com/v1", "DeploymentList"}: false, {"apps/v1", "List"}: false,
	} {
		assert.Equal(t, want, k.isList(), k)
	}
}

// TestDiffOfManyLines shows that a diff from known edits equals a diff from comparing
// all lines.
func TestDiffOfManyLines(t *testing.T) {
	in := "apiVersion: v1\nkind: List\nitems:\n"
	for i := range 20 {
		pod := strings.Replace(edgePod, "name: edge\n", fmt.Sprintf("name: edge%d\n", i), 1)
		in += "- " + strings.ReplaceAll(strings.TrimSuffix(pod, "\n"), "\n", "\n  ") + "\n"
	}
	result := transform(t, fakeEditor, in)
	require.Len(t, result.Documents, 1)
	require.NotEmpty(t, result.Documents[0].edits)
	diff := string(result.Diff(false))
	assert.Equal(t, string(result.Text()), applyDiff(t, in, diff))
	result.Documents[0].edits = nil
	searched := string(result.Diff(false))
	assert.Equal(t, string(result.Text()), applyDiff(t, in, searched))
	assert.Equal(t, strings.Count(searched, "\n-"), strings.Count(diff, "\n-"))
	assert.Equal(t, strings.Count(searched, "\n+"), strings.Count(diff, "\n+"))
}
