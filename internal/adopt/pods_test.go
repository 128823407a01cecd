package adopt_test

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// corpus is a folder of real workloads beside the repository. A clone of the
// repository does not have it.
const corpus = "../../../shared/corpus"

// corpusRows reads the index of the corpus. It skips the test where there is no
// corpus, and names the tests that hold the essential cases.
func corpusRows(t *testing.T, elsewhere string) [][]string {
	t.Helper()
	file, err := os.Open(filepath.Join(corpus, "INDEX.tsv"))
	if os.IsNotExist(err) {
		t.Skipf("no corpus at %s; the essential cases are in %s", corpus, elsewhere)
	}
	require.NoError(t, err)
	defer file.Close()
	reader := csv.NewReader(file)
	reader.Comma, reader.LazyQuotes = '\t', true
	rows, err := reader.ReadAll()
	require.NoError(t, err)
	require.Greater(t, len(rows), 100)
	return rows[1:]
}

// podOf returns the pod of a workload's template, in whatever API group the
// workload is.
func podOf(t testing.TB, data []byte) *corev1.Pod {
	t.Helper()
	var w struct {
		Kind string `json:"kind"`
		corev1.Pod
		Spec json.RawMessage `json:"spec"`
	}
	require.NoError(t, yaml.Unmarshal(data, &w))
	if w.Kind == "Pod" {
		pod := &corev1.Pod{}
		require.NoError(t, yaml.Unmarshal(data, pod))
		return pod
	}
	var spec struct {
		Template    corev1.PodTemplateSpec `json:"template"`
		JobTemplate struct {
			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	}
	require.NoError(t, json.Unmarshal(w.Spec, &spec))
	if w.Kind == "CronJob" {
		spec.Template = spec.JobTemplate.Spec.Template
	}
	return &corev1.Pod{ObjectMeta: spec.Template.ObjectMeta, Spec: spec.Template.Spec}
}

func newEngine(t testing.TB, o inject.Options) *inject.Engine {
	t.Helper()
	engine, err := inject.New(o)
	require.NoError(t, err)
	return engine
}

func labelled(name string) policy.Namespace {
	return policy.Namespace{Name: name, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}
}
