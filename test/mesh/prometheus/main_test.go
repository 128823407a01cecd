// Package prometheus tests what the chart gives to Prometheus, Grafana and the edge's
// tracing: promtool checks and tests the alerts and the dashboards' expressions, a real API
// server accepts the objects by the real CRDs, and a real Prometheus, configured like
// Istio's addon, finds and scrapes the running servers.
package prometheus

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// Folders, relative to the folder of this test.
const (
	root  = "../../.."
	chart = root + "/charts/isthmus"
	// releaseNamespace is the namespace that the chart is installed in.
	releaseNamespace = "isthmus-system"
)

// Paths of programs. TestMain sets them.
var helm, kubectl, promtool, prometheusProgram string

func TestMain(m *testing.M) {
	for name, path := range map[string]*string{"helm": &helm, "kubectl": &kubectl, "promtool": &promtool, "prometheus": &prometheusProgram} {
		var err error
		if *path, err = controlplane.Tool(context.Background(), name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// run runs a program with this input and returns its output, also when it fails.
func run(ctx context.Context, input, program string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, program, arguments...)
	command.Stdin = strings.NewReader(input)
	var out, stderr bytes.Buffer
	command.Stdout, command.Stderr = &out, &stderr
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s%s", filepath.Base(program), strings.Join(arguments, " "), err, stderr.String(), out.String())
	}
	return out.String(), nil
}

// render renders the chart with these values (YAML).
func render(t *testing.T, values string) []*unstructured.Unstructured {
	t.Helper()
	rendered, err := run(t.Context(), values, helm, "template", "isthmus", chart, "--no-hooks",
		"--namespace", releaseNamespace, "--kube-version", "1.36.0", "--values", "-")
	require.NoError(t, err)
	return parse(t, rendered)
}

// parse reads a stream of YAML documents.
func parse(t *testing.T, stream string) []*unstructured.Unstructured {
	t.Helper()
	var list []*unstructured.Unstructured
	for document := range strings.SplitSeq(stream, "\n---\n") {
		object := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal([]byte(document), &object.Object), document)
		if len(object.Object) > 0 {
			list = append(list, object)
		}
	}
	return list
}

// find returns the object of this kind and name.
func find(t *testing.T, list []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, object := range list {
		if object.GetKind() == kind && object.GetName() == name {
			return object
		}
	}
	require.Failf(t, "not rendered", "%s %s", kind, name)
	return nil
}

// text returns a value of a ConfigMap.
func text(t *testing.T, config *unstructured.Unstructured, key string) string {
	t.Helper()
	value, found, err := unstructured.NestedString(config.Object, "data", key)
	require.NoError(t, err)
	require.True(t, found, "ConfigMap %s has no key %s", config.GetName(), key)
	return value
}
