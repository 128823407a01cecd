// Package environment stands for a mesh in which the certificates of edges rotate: a
// control plane with the real istiod, the chart applied, `isthmus controller` as processes
// with the flags and permissions of the chart, edges, and callers in mutual TLS that use
// only the Secret. No pod runs there.
//
// Tiers: test/mesh and test/soak.
package environment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// Namespace is where the chart is installed.
const Namespace = "isthmus-system"

// World is the scene.
type World struct {
	// Plane is the control plane, Istiod the mesh's.
	Plane  *controlplane.Plane
	Istiod *istio.Istiod
	// Admin is how to reach the API server as its administrator.
	Admin *rest.Config
	// Kube is the administrator's client.
	Kube kubernetes.Interface

	folder string
	// deployments are the containers of the chart's Deployments, by their names.
	deployments map[string]corev1.Container
	// configurations are those of the chart's webhooks, which Webhook applies.
	configurations []*unstructured.Unstructured
	started        int
}

// Start starts a control plane and istiod, and applies the chart with these
// values (YAML). The configuration of the webhook is left out until Webhook runs one.
func Start(ctx context.Context, o istio.Options, values string) (w *World, err error) {
	w = &World{deployments: map[string]corev1.Container{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Stop())
		}
	}()
	if w.Plane, err = controlplane.Start(ctx); err != nil {
		return w, err
	}
	if w.Admin, err = w.Plane.Admin(); err != nil {
		return w, err
	}
	if w.Kube, err = kubernetes.NewForConfig(w.Admin); err != nil {
		return w, err
	}
	if w.folder, err = os.MkdirTemp("", "isthmus-environment-"); err != nil {
		return w, err
	}
	if w.Istiod, err = istio.Start(ctx, w.Plane, o); err != nil {
		return w, err
	}
	if err := w.build(ctx, "isthmus", "isthmus-publish"); err != nil {
		return w, err
	}
	err = w.install(ctx, values)
	return w, err
}

// Main runs the tests of a package in an environment and returns the status to exit with.
func Main(tests interface{ Run() int }, o istio.Options, values string, use func(*World)) int {
	w, err := Start(context.Background(), o, values)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	use(w)
	status := tests.Run()
	if status != 0 {
		w.Dump(os.Stderr)
	}
	if err := w.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// Stop ends everything and removes what was written.
func (w *World) Stop() error {
	var errs []error
	if w.Istiod != nil {
		errs = append(errs, w.Istiod.Stop())
	}
	if w.Plane != nil {
		errs = append(errs, w.Plane.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(w.folder))...)
}

// Dump writes the ends of all logs.
func (w *World) Dump(out io.Writer) {
	w.Plane.Dump(out)
	w.Istiod.Dump(out)
	logs, err := filepath.Glob(filepath.Join(w.folder, "*.log"))
	if err != nil {
		return
	}
	for _, log := range logs {
		_, _ = fmt.Fprintf(out, "--- %s:\n%s\n", filepath.Base(log), controlplane.Tail(log, 30))
	}
}

// root is the repository's.
func root() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "..")
}

// Program is the path of a program of ours.
func (w *World) Program(name string) string { return filepath.Join(w.folder, name) }

// build compiles programs of ours, as the Dockerfile does.
func (w *World) build(ctx context.Context, names ...string) error {
	for _, name := range names {
		command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.Program(name), "./cmd/"+name)
		command.Dir, command.Env = root(), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	return nil
}

// install renders the chart and applies it, but for the configurations of
// webhooks, which would send pods to a server that is not there.
func (w *World) install(ctx context.Context, values string) error {
	helm, err := controlplane.Tool(ctx, "helm")
	if err != nil {
		return err
	}
	render := exec.CommandContext(ctx, helm, "template", "isthmus", filepath.Join(root(), "charts", "isthmus"),
		"--namespace", Namespace, "--kube-version", "1.36.0", "--values", "-")
	render.Stdin = strings.NewReader(values)
	rendered, err := render.Output()
	if err != nil {
		return fmt.Errorf("render the chart: %w", explain(err))
	}
	objects, err := w.sort(rendered)
	if err != nil {
		return err
	}
	_, err = w.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	kubectl, err := controlplane.Tool(ctx, "kubectl")
	if err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, kubectl, "--kubeconfig", w.Plane.Kubeconfig, "apply", "--server-side", "-f", "-")
	apply.Stdin = bytes.NewReader(objects)
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("apply the chart: %w: %s", err, out)
	}
	return nil
}

// sort keeps the objects to apply, as a stream of JSON, the files of the
// settings, the containers of the servers, and the configurations of webhooks.
func (w *World) sort(rendered []byte) ([]byte, error) {
	var kept bytes.Buffer
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(rendered), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := decoder.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the rendered chart: %w", err)
		}
		data, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		switch {
		case len(o.Object) == 0, o.GetAnnotations()["helm.sh/hook"] != "":
			continue
		case strings.HasSuffix(o.GetKind(), "WebhookConfiguration"):
			w.configurations = append(w.configurations, o)
			continue
		case o.GetKind() == "ConfigMap" && o.GetName() == "isthmus-settings":
			if err := w.settings(data); err != nil {
				return nil, err
			}
		case o.GetKind() == "Deployment":
			d := &appsv1.Deployment{}
			if err := json.Unmarshal(data, d); err != nil {
				return nil, err
			}
			w.deployments[d.Name] = d.Spec.Template.Spec.Containers[0]
		}
		kept.Write(append(data, '\n'))
	}
	return kept.Bytes(), nil
}

func (w *World) settings(data []byte) error {
	cm := &corev1.ConfigMap{}
	if err := json.Unmarshal(data, cm); err != nil {
		return err
	}
	for name, text := range cm.Data {
		if err := os.WriteFile(filepath.Join(w.folder, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// explain adds what a program said to the error it ended with.
func explain(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return err
}
