// Package corpus stands for real workloads of other projects. They are in a folder
// beside the repository where Isthmus is developed, and are not part of it.
//
// Tiers: unit tests.
package corpus

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Row is one line of the corpus' index.
type Row struct {
	// File is the workload's file, relative to the corpus.
	File string
	// Edge is the profile that recognises it.
	Edge string
	// Expected is inject, skip or conflict.
	Expected string

	folder string
}

// Rows returns the index of the corpus in folder. It skips the test if there is no
// corpus, and names the tests that hold the essential cases.
func Rows(t testing.TB, folder, elsewhere string) []Row {
	t.Helper()
	file, err := os.Open(filepath.Join(folder, "INDEX.tsv"))
	if os.IsNotExist(err) {
		t.Skipf("no corpus at %s; the essential cases are in %s", folder, elsewhere)
	}
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	reader := csv.NewReader(file)
	reader.Comma, reader.LazyQuotes = '\t', true
	lines, err := reader.ReadAll()
	require.NoError(t, err)
	require.Greater(t, len(lines), 100)
	require.Equal(t, "file edge expected", lines[0][0]+" "+lines[0][1]+" "+lines[0][6])
	rows := make([]Row, 0, len(lines)-1)
	for _, line := range lines[1:] {
		rows = append(rows, Row{File: line[0], Edge: line[1], Expected: line[6], folder: folder})
	}
	return rows
}

// Pod returns the pod of the workload.
func (r Row) Pod(t testing.TB) *corev1.Pod {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.folder, r.File))
	require.NoError(t, err)
	return PodOf(t, data)
}

// PodOf returns the pod of a workload's template, whatever the API group of the
// workload is.
func PodOf(t testing.TB, workload []byte) *corev1.Pod {
	t.Helper()
	var w struct {
		Kind string          `json:"kind"`
		Spec json.RawMessage `json:"spec"`
	}
	require.NoError(t, yaml.Unmarshal(workload, &w))
	if w.Kind == "Pod" {
		pod := &corev1.Pod{}
		require.NoError(t, yaml.Unmarshal(workload, pod))
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
