// Package environment stands for a mesh in which the certificates of edges rotate: a
// control plane with the real istiod, the chart applied, `isthmus controller` as processes
// with the flags and permissions of the chart, edges, and callers in mutual TLS that use
// only the Secret. No pod runs there.
//
// Tiers: test/mesh and test/soak; test/e2e uses SecretHistory alone.
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

// Environment is a control plane with istiod and the chart, in which tests start the
// programs of Isthmus.
type Environment struct {
	// Plane is the control plane of Kubernetes, Istiod that of the mesh.
	Plane  *controlplane.Plane
	Istiod *istio.Istiod
	// Admin is the administrator's client configuration.
	Admin *rest.Config
	// Kube is the administrator's client.
	Kube kubernetes.Interface

	folder string
	// deployments are the containers of the chart's Deployments, by the Deployment's name.
	deployments map[string]corev1.Container
	// configurations are the chart's webhook configurations, which StartWebhook applies.
	configurations []*unstructured.Unstructured
	serverCount    int
}

// Start starts a control plane and istiod, and applies the chart with these values
// (YAML). The webhook configurations are left out until StartWebhook applies them.
func Start(ctx context.Context, o istio.Options, values string) (env *Environment, err error) {
	env = &Environment{deployments: map[string]corev1.Container{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, env.Stop())
		}
	}()
	if env.Plane, err = controlplane.Start(ctx); err != nil {
		return env, err
	}
	if env.Admin, err = env.Plane.Admin(); err != nil {
		return env, err
	}
	if env.Kube, err = kubernetes.NewForConfig(env.Admin); err != nil {
		return env, err
	}
	if env.folder, err = os.MkdirTemp("", "isthmus-environment-"); err != nil {
		return env, err
	}
	if env.Istiod, err = istio.Start(ctx, env.Plane, o); err != nil {
		return env, err
	}
	if err := env.build(ctx, "isthmus", "isthmus-publish"); err != nil {
		return env, err
	}
	err = env.install(ctx, values)
	return env, err
}

// Main runs the tests of a package in an Environment, which it passes to setUp first, and
// returns the exit status.
func Main(tests interface{ Run() int }, o istio.Options, values string, setUp func(*Environment)) int {
	env, err := Start(context.Background(), o, values)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	setUp(env)
	status := tests.Run()
	if status != 0 {
		env.Dump(os.Stderr)
	}
	if err := env.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// Stop stops istiod and the control plane, and removes all files.
func (env *Environment) Stop() error {
	var errs []error
	if env.Istiod != nil {
		errs = append(errs, env.Istiod.Stop())
	}
	if env.Plane != nil {
		errs = append(errs, env.Plane.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(env.folder))...)
}

// Dump writes the ends of all logs.
func (env *Environment) Dump(out io.Writer) {
	env.Plane.Dump(out)
	env.Istiod.Dump(out)
	logs, err := filepath.Glob(filepath.Join(env.folder, "*.log"))
	if err != nil {
		return
	}
	for _, log := range logs {
		_, _ = fmt.Fprintf(out, "--- %s:\n%s\n", filepath.Base(log), controlplane.Tail(log, 30))
	}
}

// repositoryRoot is the path of the repository.
func repositoryRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// ProgramPath is the path of a program of Isthmus: isthmus or isthmus-publish.
func (env *Environment) ProgramPath(name string) string { return filepath.Join(env.folder, name) }

// build compiles programs of Isthmus with the flags of the Dockerfile.
func (env *Environment) build(ctx context.Context, names ...string) error {
	for _, name := range names {
		command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", env.ProgramPath(name), "./cmd/"+name)
		command.Dir, command.Env = repositoryRoot(), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	return nil
}

// install renders the chart and applies it, without the webhook configurations, which
// would make the API server call a webhook that does not run yet.
func (env *Environment) install(ctx context.Context, values string) error {
	helm, err := controlplane.Tool(ctx, "helm")
	if err != nil {
		return err
	}
	render := exec.CommandContext(ctx, helm, "template", "isthmus", filepath.Join(repositoryRoot(), "charts", "isthmus"),
		"--namespace", Namespace, "--kube-version", "1.36.0", "--values", "-")
	render.Stdin = strings.NewReader(values)
	rendered, err := render.Output()
	if err != nil {
		return fmt.Errorf("render the chart: %w", withStderr(err))
	}
	objects, err := env.splitRendered(rendered)
	if err != nil {
		return err
	}
	_, err = env.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	kubectl, err := controlplane.Tool(ctx, "kubectl")
	if err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, kubectl, "--kubeconfig", env.Plane.Kubeconfig, "apply", "--server-side", "-f", "-")
	apply.Stdin = bytes.NewReader(objects)
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("apply the chart: %w: %s", err, out)
	}
	return nil
}

// splitRendered returns the objects to apply as a stream of JSON. It writes the settings
// into files, and remembers the Deployments' containers and the webhook configurations.
func (env *Environment) splitRendered(rendered []byte) ([]byte, error) {
	var applied bytes.Buffer
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
			env.configurations = append(env.configurations, o)
			continue
		case o.GetKind() == "ConfigMap" && o.GetName() == "isthmus-settings":
			if err := env.writeSettings(data); err != nil {
				return nil, err
			}
		case o.GetKind() == "Deployment":
			d := &appsv1.Deployment{}
			if err := json.Unmarshal(data, d); err != nil {
				return nil, err
			}
			env.deployments[d.Name] = d.Spec.Template.Spec.Containers[0]
		}
		applied.Write(append(data, '\n'))
	}
	return applied.Bytes(), nil
}

func (env *Environment) writeSettings(data []byte) error {
	cm := &corev1.ConfigMap{}
	if err := json.Unmarshal(data, cm); err != nil {
		return err
	}
	for name, text := range cm.Data {
		if err := os.WriteFile(filepath.Join(env.folder, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// withStderr adds a program's standard error to the error that it ended with.
func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return err
}
