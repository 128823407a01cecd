package manifest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/adopt"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

const byHand = "../../samples/by-hand"

func adoptText(t testing.TB, in string, o adopt.Options) (Result, error) {
	t.Helper()
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	return Adopt([]Source{{"in.yaml", []byte(in)}}, "default", engine, o)
}

func adopted(t testing.TB, in string) string {
	t.Helper()
	result, err := adoptText(t, in, adopt.Options{})
	require.NoError(t, err)
	return string(result.Text())
}

// TestAdoptGolden adopts every sample that is integrated by hand and compares
// with testdata/adopt: NAME.out is the manifest, NAME.report what is said.
func TestAdoptGolden(t *testing.T) {
	inputs, err := filepath.Glob(byHand + "/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	expected := map[string]bool{}
	for _, input := range inputs {
		base := filepath.Join("testdata", "adopt", filepath.Base(input))
		t.Run(filepath.Base(input), func(t *testing.T) {
			data, err := os.ReadFile(input)
			require.NoError(t, err)
			result, err := adoptText(t, string(data), adopt.Options{})
			require.NoError(t, err)
			var report bytes.Buffer
			for _, d := range result.Decisions {
				_, _ = fmt.Fprintf(&report, "%s: %s\n", d.Workload, d.Verdict)
				for _, line := range append(d.Details, d.Warnings...) {
					_, _ = fmt.Fprintf(&report, "  %s\n", line)
				}
			}
			for ext, got := range map[string][]byte{".out": result.Text(), ".report": report.Bytes()} {
				name := base + ext
				expected[name] = true
				if *update {
					require.NoError(t, os.WriteFile(name, got, 0o644))
				}
				want, err := os.ReadFile(name)
				require.NoError(t, err, "run the test with -update to make the golden file")
				assert.Equal(t, string(want), string(got), name)
			}
			assert.Equal(t, string(result.Text()), adopted(t, string(result.Text())), "twice is once")
		})
	}
	files, err := filepath.Glob("testdata/adopt/*")
	require.NoError(t, err)
	for _, file := range files {
		assert.True(t, expected[file], "%s is stale: no sample makes it; delete it", file)
	}
}

// TestAdoptCorpus adopts the real workloads that are integrated by hand: alone, in
// a stream, as YAML and JSON. All others come out byte for byte.
func TestAdoptCorpus(t *testing.T) {
	files, err := filepath.Glob(corpus + "/*/*.yaml")
	require.NoError(t, err)
	if len(files) == 0 {
		t.Skipf("NOT RUN: no corpus of real workloads in %s; the samples still cover the edits", corpus)
	}
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	expected, count := expectations(t), 0
	for _, file := range files {
		name := strings.TrimPrefix(filepath.ToSlash(file), corpus+"/")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			in := string(data)
			out := adopted(t, in)
			if expected[name] != "conflict" || in == out {
				assert.Equal(t, in, out, "comes out byte for byte as it went in")
				return
			}
			count++
			assert.Equal(t, out, adopted(t, out), "twice is once")
			injected := string(transform(t, Injecting(engine), out).Text())
			assert.NotEqual(t, out, injected)
			assert.Equal(t, out, string(transform(t, Uninjecting(inject.Uninject), injected).Text()), "uninject gives it back, byte for byte")
			around := "# before\na:   1\n---\n" + in + "\n---\nb:   [2]\n"
			assert.Equal(t, "# before\na:   1\n---\n"+out+"\n---\nb:   [2]\n", adopted(t, around))
			for _, line := range strings.Split(out, "\n") {
				assert.True(t, strings.Contains(in, line) || strings.Contains(line, "isthmus.dev/") || strings.HasSuffix(line, "{}"), "line %q is not from the input", line)
			}
			asJSON, err := sigsyaml.YAMLToJSON(data)
			require.NoError(t, err)
			want, err := sigsyaml.YAMLToJSON([]byte(out))
			require.NoError(t, err)
			assert.JSONEq(t, string(want), adopted(t, string(asJSON)), "YAML and JSON are edited alike")
		})
	}
	assert.GreaterOrEqual(t, count, 9)
}

func sampleText(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(byHand, name))
	require.NoError(t, err)
	return string(data)
}

// replaced replaces what must be there.
func replaced(t testing.TB, text, old, with string) string {
	t.Helper()
	require.Contains(t, text, old)
	return strings.Replace(text, old, with, 1)
}

// TestAdoptSays: errors name every field with its line, and nothing comes out.
func TestAdoptSays(t *testing.T) {
	in := replaced(t, sampleText(t, "sidecar.yaml"), "            - --serviceCluster\n", "            - --new\n")
	in = replaced(t, in, "{name: http-envoy-prom, containerPort: 15090}", "{name: http, containerPort: 80}")
	_, err := adoptText(t, in, adopt.Options{})
	require.Error(t, err)
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 2)
	for i, want := range []string{"spec.containers[1].args[--new]: unknown flag", "spec.containers[1].ports[0]: port 80 is"} {
		assert.Contains(t, lines[i], "in.yaml:15: document 2 (Deployment emissary/emissary-ingress): cannot be adopted: "+want)
	}

	result, err := adoptText(t, sampleText(t, "sidecar.yaml"), adopt.Options{ByNamespace: true})
	require.NoError(t, err)
	assert.NotContains(t, string(result.Text()), "isthmus.dev/inject:")
	assert.Equal(t, []string{"gets no identity before its namespace is labelled: kubectl label namespace emissary isthmus.dev/injection=enabled"}, result.Decisions[0].Warnings)
	labelled := "apiVersion: v1\nkind: Namespace\nmetadata: {name: emissary, labels: {isthmus.dev/injection: enabled}}\n---\n"
	result, err = adoptText(t, labelled+sampleText(t, "sidecar.yaml"), adopt.Options{ByNamespace: true})
	require.NoError(t, err)
	assert.Empty(t, result.Decisions[0].Warnings)
}

// TestAdoptLosesNothing: what no type knows stays, and where it would go with
// what is taken out, that is an error.
func TestAdoptLosesNothing(t *testing.T) {
	in := replaced(t, sampleText(t, "sidecar.yaml"), "      serviceAccountName: emissary-ingress\n", "      serviceAccountName: emissary-ingress\n      fromTheFuture: {a: [1, ~, 1e3]}\n")
	assert.Contains(t, adopted(t, in), "      fromTheFuture: {a: [1, ~, 1e3]}\n")
	for field, change := range map[string][2]string{
		"spec.containers[1]":                 {"          image: docker.io/istio/proxyv2:1.24.2\n", "          image: docker.io/istio/proxyv2:1.24.2\n          fromTheFuture: 1\n"},
		"spec.volumes[1]":                    {"          emptyDir: {medium: Memory}\n", "          emptyDir: {medium: Memory, fromTheFuture: 1}\n"},
		"spec.containers[0].volumeMounts[1]": {"              mountPath: /etc/istio-certs/\n", "              mountPath: /etc/istio-certs/\n              fromTheFuture: 1\n"},
	} {
		_, err := adoptText(t, replaced(t, sampleText(t, "sidecar.yaml"), change[0], change[1]), adopt.Options{})
		require.Error(t, err, field)
		assert.Contains(t, err.Error(), "cannot be adopted: "+field)
		assert.Contains(t, err.Error(), `fromTheFuture", and it would be lost; remove it, or leave the pod as it is`)
	}
}

// TestAdoptKeepsSelectedLabels: a pod that lost a label of its selector would be
// refused.
func TestAdoptKeepsSelectedLabels(t *testing.T) {
	const label = `sidecar.istio.io/inject: "true"`
	in := sampleText(t, "annotations.yaml")
	assert.NotContains(t, adopted(t, in), label)
	for _, selector := range []string{
		"matchLabels: {app.kubernetes.io/name: edge-stack, " + label + "}",
		"matchLabels: {app.kubernetes.io/name: edge-stack}\n    matchExpressions: [{key: sidecar.istio.io/inject, operator: Exists}]",
	} {
		out := adopted(t, replaced(t, in, "matchLabels: {app.kubernetes.io/name: edge-stack}", selector))
		assert.Contains(t, out, "\n        "+label+"\n")
		assert.Equal(t, out, adopted(t, out), "twice is once")
	}
}

const annotated = `  proxy.istio.io/config: "{proxyMetadata: {OUTPUT_CERTS: /etc/istio-certs}}"
`

// TestAdoptValues: Helm values are told by their content, wherever a chart has
// them.
func TestAdoptValues(t *testing.T) {
	const asked = "  isthmus.dev/inject: \"true\"\n  isthmus.dev/mode: istio\n"
	for name, test := range map[string]struct {
		in, want string
	}{
		"variables as a list": {
			"podAnnotations:\n" + annotated + "env:\n- name: AMBASSADOR_ENVOY_BASE_ID\n  value: \"1\"\n- name: A   # a\n  value: b\n- name: AMBASSADOR_ISTIO_SECRET_DIR\n  value: /etc/istio-certs\n",
			"podAnnotations:\n" + asked + "env:\n- name: A   # a\n  value: b\n",
		},
		"raw variables": {
			"podAnnotations:\n" + annotated + "env:\n  AMBASSADOR_ENVOY_BASE_ID: 1\nenvRaw:\n- name: NODE\n  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}\n",
			"podAnnotations:\n" + asked + "envRaw:\n- name: NODE\n  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}\n",
		},
		"variables in small letters, which the chart raises": {
			"podAnnotations:\n" + annotated + "env:\n  ambassador_istio_secret_dir: /etc/istio-certs\n  a: b\n",
			"podAnnotations:\n" + asked + "env:\n  a: b\n",
		},
		"text that the chart renders": {
			"podAnnotations:\n" + annotated + "env: {AMBASSADOR_ENVOY_BASE_ID: 1}\nenvRaw: |\n  - name: A\n    value: {{ .Release.Name }}\n",
			"podAnnotations:\n" + asked + "envRaw: |\n  - name: A\n    value: {{ .Release.Name }}\n",
		},
		"an edge by its image":      {"image: {repository: docker.io/datawire/aes, tag: 3.2.0}\npodAnnotations:\n" + annotated, "image: {repository: docker.io/datawire/aes, tag: 3.2.0}\npodAnnotations:\n" + asked},
		"an edge by its chart":      {"a:\n  emissary-ingress:\n    podAnnotations:\n      proxy.istio.io/config: 'proxyMetadata: {OUTPUT_CERTS: /etc/istio-certs}'\n", "a:\n  emissary-ingress:\n    podAnnotations:\n      isthmus.dev/inject: \"true\"\n      isthmus.dev/mode: istio\n"},
		"an edge by its old chart":  {"enableAES: true\npodAnnotations:\n" + annotated, "enableAES: true\npodAnnotations:\n" + asked},
		"no edge":                   {"podAnnotations:\n" + annotated + "volumeMounts: []\n", ""},
		"nothing by hand":           {"podAnnotations: {sidecar.istio.io/inject: 'false'}\nenv: {AMBASSADOR_ID: a}\n", ""},
		"nothing that can be read":  {"istio: 1\n? [a]\n: {podAnnotations: {}}\n", ""},
		"a key twice, and no edge":  {"istio: 1\nistio: 2\n", ""},
		"another shape":             {"podAnnotations:\n" + annotated + "env: AMBASSADOR_ID\n", ""},
		"an object of another kind": {"apiVersion: v2\nname: emissary-ingress\npodAnnotations:\n" + annotated, ""},
		"half of it, and no annotations": {
			"podAnnotations:\nvolumes:\n- {name: istio-certs, emptyDir: {}}\nvolumeMounts:\n- {name: istio-certs, mountPath: /etc/istio-certs}\nenv:\n  AMBASSADOR_ISTIO_SECRET_DIR: /etc/istio-certs\n",
			"podAnnotations:\n  isthmus.dev/inject: \"true\"\n",
		},
		"a sidecar": {
			"replicaCount: 1\nsidecarContainers:\n- name: istio-proxy\n  image: istio/proxyv2:1.24.2\n  args: [proxy, sidecar]\n  env:\n  - {name: OUTPUT_CERTS, value: /etc/istio-certs}\n  volumeMounts:\n  - {name: istio-certs, mountPath: /etc/istio-certs}\nvolumes:\n- {name: istio-certs, emptyDir: {}}\nvolumeMounts:\n- {name: istio-certs, mountPath: /etc/istio-certs}\nenv:\n  AMBASSADOR_ID: a\n",
			"replicaCount: 1\nenv:\n  AMBASSADOR_ID: a\npodAnnotations:\n  isthmus.dev/inject: \"true\"\n",
		},
		"a sidecar of several": {
			"sidecarContainers:\n- name: log\n  image: log\n- name: istio-proxy\n  image: istio/proxyv2:1.24.2\n  args: [proxy, sidecar]\n  env:\n  - {name: OUTPUT_CERTS, value: /etc/istio-certs}\nenv:\n  AMBASSADOR_ID: a\n",
			"sidecarContainers:\n- name: log\n  image: log\nenv:\n  AMBASSADOR_ID: a\npodAnnotations:\n  isthmus.dev/inject: \"true\"\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.want == "" {
				test.want = test.in
			}
			got := adopted(t, test.in)
			assert.Equal(t, test.want, got)
			assert.Equal(t, got, adopted(t, got), "twice is once")
			same, err := Transform([]Source{{"in.yaml", []byte(test.in)}}, "default", func(Workload) Edit { return Edit{} })
			require.NoError(t, err)
			assert.Equal(t, test.in, string(same.Text()), "no other command looks at values")
		})
	}

	_, err := adoptText(t, "# top\nemissary-ingress:\n  env: {AMBASSADOR_ID: a}\n  podAnnotations:\n    proxy.istio.io/config: OUTPUT_CERTS\n", adopt.Options{})
	require.Error(t, err)
	assert.Equal(t, "in.yaml:3: document 1 (values/emissary-ingress): cannot be adopted: metadata.annotations[proxy.istio.io/config]: it is no YAML mapping, so Istio does not read it; correct it", err.Error())
}

// TestAdoptValuesInText: what is in text that a chart renders cannot be taken out.
func TestAdoptValuesInText(t *testing.T) {
	_, err := adoptText(t, "podAnnotations:\n"+annotated+"env: {AMBASSADOR_ID: a}\nenvRaw: |\n  - name: AMBASSADOR_ISTIO_SECRET_DIR\n    value: /etc/istio-certs\nvolumesRaw: |\n  - name: istio-certs\n    emptyDir: {}\n", adopt.Options{})
	require.Error(t, err)
	assert.Equal(t, "in.yaml:1: document 1 (values): cannot be adopted: envRaw: AMBASSADOR_ISTIO_SECRET_DIR is in text that the chart renders, where nothing can be taken out; move it to env, which every one of the charts has\n"+
		"in.yaml:1: document 1 (values): cannot be adopted: volumesRaw: istio-certs is in text that the chart renders, where nothing can be taken out; move it to volumes, which every one of the charts has", err.Error())
}

// TestAdoptValuesTwice: a key that is there twice would lose one of its values.
func TestAdoptValuesTwice(t *testing.T) {
	_, err := adoptText(t, "emissary-ingress:\n  podAnnotations:\n    sidecar.istio.io/inject: 'true'\n  podAnnotations: {}\n", adopt.Options{})
	require.Error(t, err)
	assert.Contains(t, err.Error(), `the key "podAnnotations" is there twice, first on line 2: remove one`)
}

// FuzzAdoptText looks for a panic, and for text that is adopted twice or that
// adopting breaks.
func FuzzAdoptText(f *testing.F) {
	for _, name := range []string{"sidecar.yaml", "annotations.yaml", "values.yaml", "edge-stack-values.yaml"} {
		text := sampleText(f, name)
		f.Add([]byte(text))
		f.Add([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
		if asJSON, err := sigsyaml.YAMLToJSON([]byte(text)); err == nil {
			f.Add(asJSON)
		}
	}
	engine, err := inject.New(inject.Options{})
	if err != nil {
		f.Fatal(err)
	}
	run := func(data []byte) (Result, error) {
		return Adopt([]Source{{"in", data}}, "default", engine, adopt.Options{})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		result, err := run(data)
		if err != nil {
			return
		}
		again, err := run(result.Text())
		require.NoError(t, err, "%q became %q", data, result.Text())
		require.Equal(t, string(result.Text()), string(again.Text()), "%q", data)
	})
}
