// Package chart tests the chart: the objects that Helm renders, the values that it refuses,
// and the behaviour of the release on a real API server.
package chart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// chart is the folder of the chart, relative to the folder of this test.
const chart = "../../../charts/isthmus"

// testedVersion is the Kubernetes version that templates are rendered for.
const testedVersion = "1.36.0"

// TestMain finds Helm: the program that HELM names, or the one that test/tools/cluster
// builds from its module.
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	helmHome, err := os.MkdirTemp("", "isthmus-helm-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(helmHome) }()
	settings := map[string]string{
		// The user's own configuration of Helm is not used.
		"HELM_CACHE_HOME": helmHome, "HELM_CONFIG_HOME": helmHome, "HELM_DATA_HOME": helmHome,
	}
	if os.Getenv("HELM") == "" {
		path, err := controlplane.Tool(context.Background(), "helm")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		settings["HELM"] = path
	}
	for name, value := range settings {
		if err := os.Setenv(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// helm runs Helm and returns its standard output. Its error contains the standard error.
func helm(arguments ...string) (string, error) {
	command := exec.Command(os.Getenv("HELM"), arguments...)
	var out, stderr bytes.Buffer
	command.Stdout, command.Stderr = &out, &stderr
	if err := command.Run(); err != nil {
		return out.String(), errors.Join(errors.New(strings.TrimSpace(stderr.String())), err)
	}
	return out.String(), nil
}

// renderChart renders the chart for a release, with values as YAML.
func renderChart(t *testing.T, release, namespace, values string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	require.NoError(t, os.WriteFile(file, []byte(values), 0o600))
	return helm("template", release, chart, "--namespace", namespace, "--values", file, "--kube-version", testedVersion)
}

// renderObjects renders the chart and parses the manifests.
func renderObjects(t *testing.T, release, namespace, values string) []*unstructured.Unstructured {
	t.Helper()
	rendered, err := renderChart(t, release, namespace, values)
	require.NoError(t, err)
	return parse(t, rendered)
}

func parse(t *testing.T, rendered string) []*unstructured.Unstructured {
	t.Helper()
	var list []*unstructured.Unstructured
	for document := range strings.SplitSeq(rendered, "\n---\n") {
		object := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal([]byte(document), &object.Object), document)
		if len(object.Object) > 0 {
			list = append(list, object)
		}
	}
	require.NotEmpty(t, list)
	return list
}

// findObject returns the object of this kind and name as its Go type.
func findObject[T any](t *testing.T, list []*unstructured.Unstructured, kind, name string) *T {
	t.Helper()
	for _, object := range list {
		if object.GetKind() != kind || object.GetName() != name {
			continue
		}
		typed := new(T)
		// Strict: a field that the type does not have is a mistake in the chart.
		err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, typed, true)
		require.NoError(t, err, "%s %s", kind, name)
		return typed
	}
	require.Failf(t, "not rendered", "%s %s", kind, name)
	return nil
}
