package traffic

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"
	"text/template"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

//go:embed manifests/*.yaml
var files embed.FS

var manifests = template.Must(template.ParseFS(files, "manifests/*.yaml"))

// rolloutTimeout is how long a rollout or an answer may take on a busy machine.
const rolloutTimeout = 3 * time.Minute

// Profile returns values of the chart, as "name=value", with a profile that recognises the
// image of the edge and sets its certificate directory; see Options.HasProfile.
func Profile() []string {
	const key = "profiles.test-edge."
	return []string{
		key + "description=HAProxy in front of the mesh and its supervisor.", key + "match[0].images[0]=isthmus.test/edge",
		key + "env[0].name=EDGE_CERT_DIR", key + "env[0].value=$" + "{certDir}", key + "env[0].when=files",
	}
}

// Options say what to deploy. The cluster must have Istio and Isthmus, and its nodes the
// images edge and mesh that `cluster images` (test/tools/cluster) builds.
type Options struct {
	// Config is the administrator's client configuration.
	Config *rest.Config
	// Prefix is the prefix of the namespaces' names. Default: traffic.
	Prefix string
	// Modes are values of isthmus.dev/mode. Each has an edge in its own namespace.
	// Default: sidecar, where the edge reads files of Istio's agent, and secret, where it
	// reads the Secret istio-certs from a volume.
	Modes []string
	// Replicas is the number of pods of each edge. Default: 2.
	Replicas int
	// Rate is the number of requests per second through each edge. Default: 20.
	Rate float64
	// Lifetime is the lifetime of the mesh service's certificate, such as 2m. The CA
	// refuses one above its maximum. Default: 24h, which Istio's agent requests.
	Lifetime string
	// TrustDomain is the trust domain of the mesh. Default: cluster.local.
	TrustDomain string
	// HasProfile is true if Isthmus is installed with the values of Profile. Otherwise an
	// annotation of the edges names the profile generic.
	HasProfile bool
	// Annotations are the annotations of the edges' namespaces, which configure the
	// injection of their pods. They are not used with NotOptedIn.
	Annotations map[string]string
	// NotOptedIn creates the namespaces of the edges without label and annotations: the
	// edges get no certificate, and all requests fail until OptIn.
	NotOptedIn bool
}

// Edge is an edge proxy that forwards requests to the mesh.
type Edge struct {
	// Name is the edge's mode.
	Name string
	// Namespace and Account are those of the edge's identity. Its Deployment and Service
	// are called "edge".
	Namespace, Account string
}

// Traffic is a constant load of requests through edges.
type Traffic struct {
	// Edges are the edges that receive requests.
	Edges []Edge
	// Namespace is the namespace of the mesh service and of the callers.
	Namespace string

	options Options
	client  kubernetes.Interface
	since   map[string]time.Time
}

// Deploy deploys edges, the service behind them and a caller for each, and waits until
// requests succeed through all edges. With an error it also returns the Traffic that it
// has created so far, for Remove.
func Deploy(ctx context.Context, o Options) (*Traffic, error) {
	o.setDefaults()
	t := &Traffic{options: o, Namespace: o.Prefix + "-mesh", since: map[string]time.Time{}}
	for _, mode := range o.Modes {
		t.Edges = append(t.Edges, Edge{Name: mode, Namespace: o.Prefix + "-" + mode, Account: "edge"})
	}
	var err error
	if t.client, err = kubernetes.NewForConfig(o.Config); err != nil {
		return t, err
	}
	client, err := dynamic.NewForConfig(o.Config)
	if err != nil {
		return t, err
	}
	if err := t.create(ctx, client); err != nil || o.NotOptedIn {
		return t, err
	}
	for _, e := range t.Edges {
		if err := t.AwaitRollout(ctx, e.Namespace, "edge"); err != nil {
			return t, err
		}
	}
	err = t.awaitAnswers(ctx)
	return t, err
}

func (o *Options) setDefaults() {
	if o.Prefix == "" {
		o.Prefix = "traffic"
	}
	if len(o.Modes) == 0 {
		o.Modes = []string{"sidecar", "secret"}
	}
	if o.Replicas == 0 {
		o.Replicas = 2
	}
	if o.Rate == 0 {
		o.Rate = 20
	}
	if o.TrustDomain == "" {
		o.TrustDomain = "cluster.local"
	}
}

// create applies all manifests. The service is first, since it starts more slowly than an edge.
func (t *Traffic) create(ctx context.Context, client dynamic.Interface) error {
	if err := t.createNamespace(ctx, t.Namespace, nil, nil); err != nil {
		return err
	}
	values := map[string]any{"Lifetime": t.options.Lifetime, "TrustDomain": t.options.TrustDomain, "Edges": t.Edges}
	if err := apply(ctx, client, t.Namespace, "mesh.yaml", values); err != nil {
		return err
	}
	if err := t.AwaitRollout(ctx, t.Namespace, "mesh"); err != nil {
		return err
	}
	labels, annotations := map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, t.options.Annotations
	if t.options.NotOptedIn {
		labels, annotations = nil, nil
	}
	for _, e := range t.Edges {
		if err := t.createNamespace(ctx, e.Namespace, labels, annotations); err != nil {
			return err
		}
		values := map[string]any{
			"Name": e.Name, "Mode": e.Name, "Namespace": e.Namespace, "Account": e.Account, "MeshNamespace": t.Namespace,
			"Replicas": t.options.Replicas, "Rate": t.options.Rate, "Generic": !t.options.HasProfile,
		}
		if err := apply(ctx, client, e.Namespace, "edge.yaml", values); err != nil {
			return err
		}
		if err := apply(ctx, client, t.Namespace, "caller.yaml", values); err != nil {
			return err
		}
	}
	return nil
}

// createNamespace creates a namespace in which Pod Security enforces "restricted".
func (t *Traffic) createNamespace(ctx context.Context, name string, labels, annotations map[string]string) error {
	all := map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	for key, value := range labels {
		all[key] = value
	}
	_, err := t.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: all, Annotations: annotations}}, metav1.CreateOptions{})
	return err
}

// resources are the resources of the kinds in the manifests.
var resources = map[string]schema.GroupVersionResource{
	"ServiceAccount":      {Version: "v1", Resource: "serviceaccounts"},
	"Service":             {Version: "v1", Resource: "services"},
	"Deployment":          {Group: "apps", Version: "v1", Resource: "deployments"},
	"PodDisruptionBudget": {Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"},
}

// apply executes the template of a manifest and applies its objects.
func apply(ctx context.Context, client dynamic.Interface, namespace, manifest string, values any) error {
	var text bytes.Buffer
	if err := manifests.ExecuteTemplate(&text, manifest, values); err != nil {
		return err
	}
	for document := range strings.SplitSeq(text.String(), "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), object); err != nil {
			return fmt.Errorf("%s: %w", manifest, err)
		}
		resource, found := resources[object.GetKind()]
		if !found {
			return fmt.Errorf("%s: kind %q is not among those of package traffic", manifest, object.GetKind())
		}
		_, err := client.Resource(resource).Namespace(namespace).Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "traffic", Force: true})
		if err != nil {
			return fmt.Errorf("%s: %s %s/%s: %w", manifest, object.GetKind(), namespace, object.GetName(), err)
		}
	}
	return nil
}

// AwaitRollout waits until a Deployment is rolled out.
func (t *Traffic) AwaitRollout(ctx context.Context, namespace, name string) error {
	return await(ctx, func(ctx context.Context) error {
		d, err := t.client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return rolledOut(d)
	})
}

func rolledOut(d *appsv1.Deployment) error {
	s, want := d.Status, *d.Spec.Replicas
	if s.ObservedGeneration < d.Generation || s.UpdatedReplicas < want || s.AvailableReplicas < want || s.Replicas > want {
		return fmt.Errorf("deployment %s/%s: %d of %d pods are new, %d available, %d in all", d.Namespace, d.Name, s.UpdatedReplicas, want, s.AvailableReplicas, s.Replicas)
	}
	return nil
}

// RestartEdge restarts an edge and waits until it is rolled out, as "kubectl rollout
// restart" and "kubectl rollout status" do.
func (t *Traffic) RestartEdge(ctx context.Context, e Edge) error {
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	_, err := t.client.AppsV1().Deployments(e.Namespace).Patch(ctx, "edge", "application/strategic-merge-patch+json", []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	return t.AwaitRollout(ctx, e.Namespace, "edge")
}

// Remove deletes the namespaces, and does not wait for the end of the deletion.
func (t *Traffic) Remove(ctx context.Context) error {
	var errs []error
	for _, name := range append([]string{t.Namespace}, t.namespaces()...) {
		err := t.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (t *Traffic) namespaces() []string {
	var names []string
	for _, e := range t.Edges {
		names = append(names, e.Namespace)
	}
	return names
}

// await calls check until it returns nil. After the timeout it returns the last error.
func await(ctx context.Context, check func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, rolloutTimeout, true, func(ctx context.Context) (bool, error) {
		attempt, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		last = check(attempt)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}
