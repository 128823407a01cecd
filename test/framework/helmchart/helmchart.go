// Package helmchart stands for an installation of the Helm chart: it renders the objects,
// for tests that need some of them and not Helm.
//
// Tiers: test/integration.
package helmchart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// Render renders the chart with values, in YAML, and settings like those of --set, without
// the hooks of helm test. It uses the helm program of the variable HELM, or builds one.
func Render(ctx context.Context, release, namespace, values string, settings ...string) (objects []*unstructured.Unstructured, err error) {
	helm := os.Getenv("HELM")
	if helm == "" {
		if helm, err = controlplane.Tool(ctx, "helm"); err != nil {
			return nil, err
		}
	}
	_, file, _, _ := runtime.Caller(0)
	folder := filepath.Join(filepath.Dir(file), "..", "..", "..", "charts", "isthmus")
	command := exec.CommandContext(ctx, helm, "template", release, folder, "--no-hooks", "--namespace", namespace, "--values", "-", "--kube-version", "1.36.0",
		"--set", strings.Join(settings, ","))
	var out, problems bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(values), &out, &problems
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("render the chart: %w", errors.Join(err, errors.New(problems.String())))
	}
	for document := range strings.SplitSeq(out.String(), "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			return nil, fmt.Errorf("parse the rendered chart: %w", err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
	return objects, nil
}
