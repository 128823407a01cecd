package inject_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden injects testdata/*/pod.yaml and compares with want.yaml beside it.
// Other assertions cover the status annotation, because fingerprints are not readable.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/*/pod.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, cases)
	for _, file := range cases {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var options inject.Options
			if data, err := os.ReadFile(filepath.Join(dir, "settings.yaml")); err == nil {
				options.Settings, err = inject.ParseSettings("settings.yaml", data)
				require.NoError(t, err)
			}
			ns := labelled("edge")
			if data, err := os.ReadFile(filepath.Join(dir, "namespace.yaml")); err == nil {
				var namespace corev1.Namespace
				require.NoError(t, yaml.UnmarshalStrict(data, &namespace))
				ns = policy.Namespace{Name: namespace.Name, Labels: namespace.Labels, Annotations: namespace.Annotations}
			}
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			pod := &corev1.Pod{}
			require.NoError(t, yaml.UnmarshalStrict(data, pod))
			pod = decode(t, encode(t, pod)) // as the API server sends it: nothing empty

			engine := newEngine(t, options)
			result := engine.Inject(inject.Request{Pod: pod, Namespace: ns})
			require.Equal(t, policy.Injected, result.Reason, result.Message)
			checkInjected(t, engine, pod, ns, result)

			after := decode(t, apply(t, encode(t, pod), result))
			status := after.Annotations[policy.StatusKey]
			require.True(t, json.Valid([]byte(status)), status)
			after.Annotations[policy.StatusKey] = "(checked apart)"
			got, err := yaml.Marshal(after)
			require.NoError(t, err)
			for _, w := range result.Warnings {
				got = append(got, "# warning "+w.Code+": "+w.Text+"\n"...)
			}

			golden := filepath.Join(dir, "want.yaml")
			if *update {
				require.NoError(t, os.WriteFile(golden, got, 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err, "run with -update to write it")
			assert.Equal(t, string(bytes.TrimSpace(want)), string(bytes.TrimSpace(got)))
		})
	}
}
