package admission

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// corpus is the folder of the corpus, which is outside of the repository. A clone has none.
const corpus = "../../../../shared/corpus"

// row is one workload of the corpus.
type row struct {
	file, want string
	// pod is its pod as JSON, with all fields of the file.
	pod []byte
	// typed is the same pod with the fields that its Go type has.
	typed corev1.Pod
}

// TestCorpus sends the pods of real workloads through the API server, each to
// four namespaces: enabled or not, restricted by Pod Security or not.
func TestCorpus(t *testing.T) {
	rows := readCorpus(t)
	namespaces := map[string]*testNamespace{
		"plain": newNamespace(t), "enabled": newNamespace(t, enabled),
		"restricted": newNamespace(t, restricted), "enabled and restricted": newNamespace(t, restricted, enabled),
	}
	for _, s := range namespaces {
		createDependencies(t, s, rows)
	}
	counts := map[string]int{}
	for _, row := range rows {
		t.Run(row.file, func(t *testing.T) {
			want, err := namespaces["plain"].dryRunRaw(row.pod)
			if err != nil {
				counts["refused by the API server without injection"]++
				t.Logf("the API server refuses the workload itself: %v", err)
				return
			}
			got, err := namespaces["enabled"].dryRunRaw(row.pod)
			require.NoError(t, err)
			row.check(t, want, got)
			counts[row.want]++

			want, err = namespaces["restricted"].dryRunRaw(row.pod)
			if err != nil {
				return // Pod Security refuses it without injection
			}
			got, err = namespaces["enabled and restricted"].dryRunRaw(row.pod)
			require.NoError(t, err)
			row.check(t, want, got)
			counts[row.want+", restricted"]++
		})
	}
	for _, outcome := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%3d %s", counts[outcome], outcome)
	}
	assert.NotZero(t, counts["inject"])
	assert.NotZero(t, counts["inject, restricted"])
}

// check compares the pod in an enabled namespace with the pod in a namespace that is not
// opted in.
func (r row) check(t *testing.T, want, got *corev1.Pod) {
	t.Helper()
	if r.want != "inject" {
		assert.Equal(t, canonical(t, want), canonical(t, got))
		return
	}
	assert.Equal(t, 1, sidecars(got))
	require.NotNil(t, sidecar(got))
	assertPreserved(t, "", parseJSON(t, []byte(canonical(t, want))), parseJSON(t, []byte(canonical(t, got))))
	reverted, err := uninject(t, got)
	require.NoError(t, err)
	assert.JSONEq(t, canonical(t, want), canonical(t, reverted))
}

func readCorpus(t *testing.T) []row {
	t.Helper()
	file, err := os.Open(filepath.Join(corpus, "INDEX.tsv"))
	if os.IsNotExist(err) {
		t.Skipf("there is no corpus at %s: its workloads are NOT tested", corpus)
	}
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	reader := csv.NewReader(file)
	reader.Comma, reader.LazyQuotes = '\t', true
	records, err := reader.ReadAll()
	require.NoError(t, err)
	require.Greater(t, len(records), 100)
	var rows []row
	for _, record := range records[1:] {
		data, err := os.ReadFile(filepath.Join(corpus, record[0]))
		require.NoError(t, err)
		r := row{file: record[0], want: record[6], pod: podOf(t, data)}
		require.NoError(t, json.Unmarshal(r.pod, &r.typed))
		rows = append(rows, r)
	}
	return rows
}

// podOf returns the pod of a workload as JSON, including fields that its Go type does not
// have.
func podOf(t *testing.T, data []byte) []byte {
	t.Helper()
	var workload map[string]any
	require.NoError(t, yaml.Unmarshal(data, &workload))
	pod := workload
	path := map[string][]string{"Pod": {}, "CronJob": {"spec", "jobTemplate", "spec", "template"}}
	kind, ok := workload["kind"].(string)
	require.True(t, ok)
	steps, ok := path[kind]
	if !ok {
		steps = []string{"spec", "template"}
	}
	for _, step := range steps {
		pod, ok = pod[step].(map[string]any)
		require.True(t, ok, step)
	}
	metadata, ok := pod["metadata"].(map[string]any)
	if !ok {
		metadata = map[string]any{}
	}
	metadata["name"] = "pod"
	delete(metadata, "namespace")
	pod["apiVersion"], pod["kind"], pod["metadata"] = "v1", "Pod", metadata
	delete(pod, "status")
	out, err := json.Marshal(pod)
	require.NoError(t, err)
	return out
}

// createDependencies creates the objects that pods refer to and the API server looks up.
func createDependencies(t *testing.T, s *testNamespace, rows []row) {
	t.Helper()
	for _, row := range rows {
		spec := &row.typed.Spec
		account := spec.ServiceAccountName
		if account == "" {
			account = spec.DeprecatedServiceAccount
		}
		if account != "" {
			require.NoError(t, env.createServiceAccount(t.Context(), s.name, account))
		}
		if class := spec.PriorityClassName; class != "" && !strings.HasPrefix(class, "system-") { // those exist
			classes := env.client.SchedulingV1().PriorityClasses()
			_, err := classes.Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Value: 1000}, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				continue
			}
			require.NoError(t, err)
			t.Cleanup(func() {
				require.NoError(t, classes.Delete(context.WithoutCancel(t.Context()), class, metav1.DeleteOptions{}))
			})
		}
	}
}
