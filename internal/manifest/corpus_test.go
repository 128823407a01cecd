package manifest

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	sigsyaml "sigs.k8s.io/yaml"
	"sigs.k8s.io/yaml/kyaml"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// corpus is a directory of real workloads beside the repository. It is not part of the
// project.
const corpus = "../../../shared/corpus"

// TestCorpus injects and uninjects real workloads: alone and in a stream, as YAML and
// as JSON.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob(corpus + "/*/*.yaml")
	require.NoError(t, err)
	if len(files) == 0 {
		t.Skipf("NOT RUN: no corpus of real workloads in %s; goldens and fuzz seeds still cover the edits", corpus)
	}
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	edit, back := InjectEditor(engine), UninjectEditor(inject.Uninject)
	expected := expectations(t)
	for _, file := range files {
		name := strings.TrimPrefix(filepath.ToSlash(file), corpus+"/")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			in := string(data)
			injected := string(transform(t, edit, in).Text())
			if expected[name] != "inject" {
				assert.Equal(t, in, injected, "comes out byte for byte as it went in")
				return
			}
			assert.NotEqual(t, in, injected)
			assert.Equal(t, injected, string(transform(t, edit, injected).Text()), "twice is once")
			assert.Equal(t, in, string(transform(t, back, injected).Text()), "uninject restores every byte")
			assertOnlyAdded(t, in, injected)

			stream := "# before\na:   1\n---\n" + in + "\n---\nb:   [2]\n"
			assert.Equal(t, "# before\na:   1\n---\n"+injected+"\n---\nb:   [2]\n", string(transform(t, edit, stream).Text()))

			asJSON, err := sigsyaml.YAMLToJSON(data)
			require.NoError(t, err)
			var kyamlText bytes.Buffer
			require.NoError(t, new(kyaml.Encoder).FromYAML(bytes.NewReader(data), &kyamlText))
			edited := string(transform(t, edit, kyamlText.String()).Text())
			assert.Equal(t, kyamlText.String(), string(transform(t, back, edited).Text()), "KYAML")
			assertOnlyAdded(t, kyamlText.String(), edited)
			var again bytes.Buffer
			require.NoError(t, new(kyaml.Encoder).FromYAML(strings.NewReader(edited), &again))
			assert.Equal(t, again.String(), edited, "what is added is KYAML too")

			var pretty bytes.Buffer
			require.NoError(t, json.Indent(&pretty, asJSON, "", "    "))
			for form, text := range map[string]string{"compact": string(asJSON), "indented": pretty.String() + "\n", "list": `{"apiVersion":"v1","kind":"List","items":[` + string(asJSON) + `]}`} {
				edited := string(transform(t, edit, text).Text())
				assert.Equal(t, text, string(transform(t, back, edited).Text()), form)
				if form == "compact" {
					want, err := sigsyaml.YAMLToJSON([]byte(injected))
					require.NoError(t, err)
					assert.JSONEq(t, string(want), edited, "YAML and JSON are edited in the same way")
				}
			}
		})
	}
}

// assertOnlyAdded asserts that every line of a workload stays, except for the vendors'
// annotations and for empty mappings and sequences that get entries.
func assertOnlyAdded(t *testing.T, before, after string) {
	t.Helper()
	left := strings.Split(after, "\n")
	for _, line := range strings.Split(before, "\n") {
		at := 0
		for at < len(left) && left[at] != line {
			at++
		}
		if at == len(left) {
			text := strings.TrimSpace(line)
			grown := strings.HasSuffix(text, "[]") || strings.HasSuffix(text, "{}") || strings.HasSuffix(text, ": null") || strings.HasSuffix(text, ":") || strings.Contains(text, "[{")
			assert.True(t, grown, "line %q is gone", line)
			continue
		}
		left = left[at+1:]
	}
}

// expectations reads the expected outcome of each file of the corpus.
func expectations(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile(corpus + "/INDEX.tsv")
	require.NoError(t, err)
	rows := strings.Split(strings.TrimSpace(string(data)), "\n")
	column := -1
	for i, head := range strings.Split(rows[0], "\t") {
		if head == "expected" {
			column = i
		}
	}
	require.Positive(t, column)
	out := map[string]string{}
	for _, row := range rows[1:] {
		cells := strings.Split(row, "\t")
		out[cells[0]] = cells[column]
	}
	return out
}

// TestUninjectRefuses shows that the error names a field that was changed after the
// injection.
func TestUninjectRefuses(t *testing.T) {
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	in := strings.Replace(edgePod, "image: edge", "image: docker.io/emissaryingress/emissary:3.9.1", 1)
	injected := string(transform(t, InjectEditor(engine), in).Text())
	require.NotEqual(t, in, injected)
	require.Equal(t, in, string(transform(t, UninjectEditor(inject.Uninject), injected).Text()))
	changed := strings.Replace(injected, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", 1)
	require.NotEqual(t, injected, changed)
	_, err = Transform([]Source{{"in.yaml", []byte(changed)}}, "default", UninjectEditor(inject.Uninject))
	require.Error(t, err)
	assert.Contains(t, err.Error(), "in.yaml:1: document 1 (Pod default/edge): cannot be reverted: ")
	assert.Contains(t, err.Error(), "securityContext")
}

// TestUnknownFieldsSurvive shows that fields without a Go type stay.
func TestUnknownFieldsSurvive(t *testing.T) {
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	in := strings.Replace(edgePod, "image: edge", "image: docker.io/emissaryingress/emissary:3.9.1\n    fromTheFuture: {a: [1, ~, 1e3]}", 1) + "  alsoNew:\n  - x: on\n"
	var pod corev1.Pod
	require.NoError(t, sigsyaml.Unmarshal([]byte(in), &pod))
	injected := string(transform(t, InjectEditor(engine), in).Text())
	assert.Contains(t, injected, "    fromTheFuture: {a: [1, ~, 1e3]}\n")
	assert.Contains(t, injected, "  alsoNew:\n  - x: on\n")
}
