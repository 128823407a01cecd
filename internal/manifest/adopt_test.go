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

const samples = "../../samples/by-hand"

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

// TestAdoptGolden adopts every sample of a manual integration and compares the result
// with testdata/adopt: NAME.out is the manifest, NAME.report the report.
func TestAdoptGolden(t *testing.T) {
	inputs, err := filepath.Glob(samples + "/*.yaml")
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
				_, _ = fmt.Fprintf(&report, "%s: %s\n", d.Workload, d.Summary)
				for _, line := range append(d.Details, d.Warnings...) {
					_, _ = fmt.Fprintf(&report, "  %s\n", line)
				}
			}
			for ext, got := range map[string][]byte{".out": result.Text(), ".report": report.Bytes()} {
				name := base + ext
				expected[name] = true
				if *updateGoldens {
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

// TestAdoptCorpus adopts the real workloads that are integrated by hand: alone, in a
// stream, as YAML and as JSON. All other workloads keep every byte.
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
			injected := string(transform(t, InjectEditor(engine), out).Text())
			assert.NotEqual(t, out, injected)
			assert.Equal(t, out, string(transform(t, UninjectEditor(inject.Uninject), injected).Text()), "uninject gives it back, byte for byte")
			stream := "# before\na:   1\n---\n" + in + "\n---\nb:   [2]\n"
			assert.Equal(t, "# before\na:   1\n---\n"+out+"\n---\nb:   [2]\n", adopted(t, stream))
			for _, line := range strings.Split(out, "\n") {
				assert.True(t, strings.Contains(in, line) || strings.Contains(line, "isthmus.dev/") || strings.HasSuffix(line, "{}"), "line %q is not from the input", line)
			}
			asJSON, err := sigsyaml.YAMLToJSON(data)
			require.NoError(t, err)
			want, err := sigsyaml.YAMLToJSON([]byte(out))
			require.NoError(t, err)
			assert.JSONEq(t, string(want), adopted(t, string(asJSON)), "YAML and JSON are edited in the same way")
		})
	}
	assert.GreaterOrEqual(t, count, 9)
}

func sampleText(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(samples, name))
	require.NoError(t, err)
	return string(data)
}

// replaceOnce replaces a string that must be in the text.
func replaceOnce(t testing.TB, text, old, replacement string) string {
	t.Helper()
	require.Contains(t, text, old)
	return strings.Replace(text, old, replacement, 1)
}

// TestAdoptReports shows that errors name every field with its line, and that warnings
// name the command to run.
func TestAdoptReports(t *testing.T) {
	in := replaceOnce(t, sampleText(t, "sidecar.yaml"), "            - --serviceCluster\n", "            - --new\n")
	in = replaceOnce(t, in, "{name: http-envoy-prom, containerPort: 15090}", "{name: http, containerPort: 80}")
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
	assert.Equal(t, []string{"gets no identity until its namespace is labelled: kubectl label namespace emissary isthmus.dev/injection=enabled"}, result.Decisions[0].Warnings)
	labelled := "apiVersion: v1\nkind: Namespace\nmetadata: {name: emissary, labels: {isthmus.dev/injection: enabled}}\n---\n"
	result, err = adoptText(t, labelled+sampleText(t, "sidecar.yaml"), adopt.Options{ByNamespace: true})
	require.NoError(t, err)
	assert.Empty(t, result.Decisions[0].Warnings)
}

// TestAdoptLosesNothing shows that unknown fields stay, and that an unknown field in
// something that adopting removes is an error.
func TestAdoptLosesNothing(t *testing.T) {
	in := replaceOnce(t, sampleText(t, "sidecar.yaml"), "      serviceAccountName: emissary-ingress\n", "      serviceAccountName: emissary-ingress\n      fromTheFuture: {a: [1, ~, 1e3]}\n")
	assert.Contains(t, adopted(t, in), "      fromTheFuture: {a: [1, ~, 1e3]}\n")
	for field, change := range map[string][2]string{
		"spec.containers[1]":                 {"          image: docker.io/istio/proxyv2:1.24.2\n", "          image: docker.io/istio/proxyv2:1.24.2\n          fromTheFuture: 1\n"},
		"spec.volumes[1]":                    {"          emptyDir: {medium: Memory}\n", "          emptyDir: {medium: Memory, fromTheFuture: 1}\n"},
		"spec.containers[0].volumeMounts[1]": {"              mountPath: /etc/istio-certs/\n", "              mountPath: /etc/istio-certs/\n              fromTheFuture: 1\n"},
	} {
		_, err := adoptText(t, replaceOnce(t, sampleText(t, "sidecar.yaml"), change[0], change[1]), adopt.Options{})
		require.Error(t, err, field)
		assert.Contains(t, err.Error(), "cannot be adopted: "+field)
		assert.Contains(t, err.Error(), `fromTheFuture", which adopting would lose; remove it, or leave the pod as it is`)
	}
}

// TestAdoptKeepsSelectedLabels shows that labels in the selector stay. The API server
// would reject a pod without them.
func TestAdoptKeepsSelectedLabels(t *testing.T) {
	const label = `sidecar.istio.io/inject: "true"`
	in := sampleText(t, "annotations.yaml")
	assert.NotContains(t, adopted(t, in), label)
	for _, selector := range []string{
		"matchLabels: {app.kubernetes.io/name: edge-stack, " + label + "}",
		"matchLabels: {app.kubernetes.io/name: edge-stack}\n    matchExpressions: [{key: sidecar.istio.io/inject, operator: Exists}]",
	} {
		out := adopted(t, replaceOnce(t, in, "matchLabels: {app.kubernetes.io/name: edge-stack}", selector))
		assert.Contains(t, out, "\n        "+label+"\n")
		assert.Equal(t, out, adopted(t, out), "twice is once")
	}
}

const annotated = `  proxy.istio.io/config: "{proxyMetadata: {OUTPUT_CERTS: /etc/istio-certs}}"
`

// TestAdoptValues shows that Helm values are recognised by their content at any path.
func TestAdoptValues(t *testing.T) {
	const keys = "  isthmus.dev/inject: \"true\"\n  isthmus.dev/mode: istio\n"
	for name, test := range map[string]struct {
		in, want string
	}{
		"variables as a list": {
			"podAnnotations:\n" + annotated + "env:\n- name: AMBASSADOR_ENVOY_BASE_ID\n  value: \"1\"\n- name: A   # a\n  value: b\n- name: AMBASSADOR_ISTIO_SECRET_DIR\n  value: /etc/istio-certs\n",
			"podAnnotations:\n" + keys + "env:\n- name: A   # a\n  value: b\n",
		},
		"raw variables": {
			"podAnnotations:\n" + annotated + "env:\n  AMBASSADOR_ENVOY_BASE_ID: 1\nenvRaw:\n- name: NODE\n  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}\n",
			"podAnnotations:\n" + keys + "envRaw:\n- name: NODE\n  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}\n",
		},
		"variables in lower case, which the chart converts to upper case": {
			"podAnnotations:\n" + annotated + "env:\n  ambassador_istio_secret_dir: /etc/istio-certs\n  a: b\n",
			"podAnnotations:\n" + keys + "env:\n  a: b\n",
		},
		"text that the chart renders": {
			"podAnnotations:\n" + annotated + "env: {AMBASSADOR_ENVOY_BASE_ID: 1}\nenvRaw: |\n  - name: A\n    value: {{ .Release.Name }}\n",
			"podAnnotations:\n" + keys + "envRaw: |\n  - name: A\n    value: {{ .Release.Name }}\n",
		},
		"an edge by its image":        {"image: {repository: docker.io/datawire/aes, tag: 3.2.0}\npodAnnotations:\n" + annotated, "image: {repository: docker.io/datawire/aes, tag: 3.2.0}\npodAnnotations:\n" + keys},
		"an edge by its chart":        {"a:\n  emissary-ingress:\n    podAnnotations:\n      proxy.istio.io/config: 'proxyMetadata: {OUTPUT_CERTS: /etc/istio-certs}'\n", "a:\n  emissary-ingress:\n    podAnnotations:\n      isthmus.dev/inject: \"true\"\n      isthmus.dev/mode: istio\n"},
		"an edge by its old chart":    {"enableAES: true\npodAnnotations:\n" + annotated, "enableAES: true\npodAnnotations:\n" + keys},
		"no edge":                     {"podAnnotations:\n" + annotated + "volumeMounts: []\n", ""},
		"no manual integration":       {"podAnnotations: {sidecar.istio.io/inject: 'false'}\nenv: {AMBASSADOR_ID: a}\n", ""},
		"text that cannot be parsed":  {"istio: 1\n? [a]\n: {podAnnotations: {}}\n", ""},
		"a duplicate key and no edge": {"istio: 1\nistio: 2\n", ""},
		"env that is a string":        {"podAnnotations:\n" + annotated + "env: AMBASSADOR_ID\n", ""},
		"an object of another kind":   {"apiVersion: v2\nname: emissary-ingress\npodAnnotations:\n" + annotated, ""},
		"a partial integration without annotations": {
			"podAnnotations:\nvolumes:\n- {name: istio-certs, emptyDir: {}}\nvolumeMounts:\n- {name: istio-certs, mountPath: /etc/istio-certs}\nenv:\n  AMBASSADOR_ISTIO_SECRET_DIR: /etc/istio-certs\n",
			"podAnnotations:\n  isthmus.dev/inject: \"true\"\n",
		},
		"a sidecar": {
			"replicaCount: 1\nsidecarContainers:\n- name: istio-proxy\n  image: istio/proxyv2:1.24.2\n  args: [proxy, sidecar]\n  env:\n  - {name: OUTPUT_CERTS, value: /etc/istio-certs}\n  volumeMounts:\n  - {name: istio-certs, mountPath: /etc/istio-certs}\nvolumes:\n- {name: istio-certs, emptyDir: {}}\nvolumeMounts:\n- {name: istio-certs, mountPath: /etc/istio-certs}\nenv:\n  AMBASSADOR_ID: a\n",
			"replicaCount: 1\nenv:\n  AMBASSADOR_ID: a\npodAnnotations:\n  isthmus.dev/inject: \"true\"\n",
		},
		"one of several sidecars": {
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
			assert.Equal(t, test.in, string(same.Text()), "other commands leave values as they are")
		})
	}

	_, err := adoptText(t, "# top\nemissary-ingress:\n  env: {AMBASSADOR_ID: a}\n  podAnnotations:\n    proxy.istio.io/config: OUTPUT_CERTS\n", adopt.Options{})
	require.Error(t, err)
	assert.Equal(t, "in.yaml:3: document 1 (values/emissary-ingress): cannot be adopted: metadata.annotations[proxy.istio.io/config]: it is not a YAML mapping, so Istio does not read it; correct it", err.Error())
}

// TestAdoptValuesInText shows that a manual integration in template text is an error.
func TestAdoptValuesInText(t *testing.T) {
	_, err := adoptText(t, "podAnnotations:\n"+annotated+"env: {AMBASSADOR_ID: a}\nenvRaw: |\n  - name: AMBASSADOR_ISTIO_SECRET_DIR\n    value: /etc/istio-certs\nvolumesRaw: |\n  - name: istio-certs\n    emptyDir: {}\n", adopt.Options{})
	require.Error(t, err)
	assert.Equal(t, "in.yaml:1: document 1 (values): cannot be adopted: envRaw: AMBASSADOR_ISTIO_SECRET_DIR is in text that the chart renders as a template, which adopt cannot edit; move it to env, which all of these charts have\n"+
		"in.yaml:1: document 1 (values): cannot be adopted: volumesRaw: istio-certs is in text that the chart renders as a template, which adopt cannot edit; move it to volumes, which all of these charts have", err.Error())
}

// TestAdoptValuesDuplicateKey shows that a duplicate key stops an edit if its values differ:
// the one that its author reads is perhaps not the one that Helm uses.
func TestAdoptValuesDuplicateKey(t *testing.T) {
	const volumes = "emissary-ingress:\n  env: {AMBASSADOR_ID: a}\n  podAnnotations:\n    proxy.istio.io/config: '{proxyMetadata: {OUTPUT_CERTS: /etc/istio-certs}}'\n"
	_, err := adoptText(t, strings.Replace(volumes, "  env:", "  podAnnotations: {}\n  env:", 1), adopt.Options{})
	require.Error(t, err)
	assert.Contains(t, err.Error(), `in.yaml:4: document 1 (values/emissary-ingress): duplicate key "podAnnotations" with another value, first on line 2: remove one of them`)

	result, err := adoptText(t, volumes+"  podAnnotations: {}\n", adopt.Options{})
	require.NoError(t, err)
	assert.Contains(t, report(result), `warning: values/emissary-ingress: in.yaml:5: duplicate key "podAnnotations", first on line 3 with another value: Kubernetes uses the last one`)
}

// FuzzAdoptText looks for panics, for text that a second run changes again, and for
// text that Adopt breaks.
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
		repeated, err := run(result.Text())
		require.NoError(t, err, "%q became %q", data, result.Text())
		require.Equal(t, string(result.Text()), string(repeated.Text()), "%q", data)
	})
}
