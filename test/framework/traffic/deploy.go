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

// patience is how long a cluster may take for what it is asked for, on a busy machine.
const patience = 3 * time.Minute

// Profile are the chart's values, "name=value", by which Isthmus recognises the image
// of the edge and tells it where its certificates are; see Options.Recognised.
func Profile() []string {
	const key = "profiles.test-edge."
	return []string{
		key + "description=HAProxy in front of the mesh and its supervisor.", key + "match[0].images[0]=isthmus.test/edge",
		key + "env[0].name=EDGE_CERT_DIR", key + "env[0].value=$" + "{certDir}", key + "env[0].when=files",
	}
}

// Options say what to deploy. Istio and Isthmus are there, and the cluster's nodes
// hold the images edge and mesh of "cluster images".
type Options struct {
	// Config reaches the API server as its administrator.
	Config *rest.Config
	// Prefix begins the names of the namespaces. Default: traffic.
	Prefix string
	// Modes are those of isthmus.dev/mode in which there is an edge each, in a
	// namespace of its own. Default: sidecar, where the edge reads files of Istio's
	// agent, and secret, where it reads the Secret istio-certs from a volume.
	Modes []string
	// Replicas of each edge. Default 2.
	Replicas int
	// Rate is how often each edge is called in a second. Default 20.
	Rate float64
	// Lifetime of the mesh service's certificate, such as 2m: the CA refuses more
	// than its maximum. Default: what Istio's agent asks for, 24h.
	Lifetime string
	// TrustDomain is the mesh's. Default: cluster.local.
	TrustDomain string
	// Recognised says that Isthmus has the values of Profile. Otherwise the edges ask
	// for the profile generic by annotation.
	Recognised bool
	// Annotations are those of the edges' namespaces, which say for all pods of one
	// what to inject. Bare edges have none until OptIn.
	Annotations map[string]string
	// Bare leaves the namespaces of the edges without label and annotations: they get
	// no certificate, and no request passes until OptIn.
	Bare bool
}

// Edge is one that carries requests.
type Edge struct {
	// Name is the mode.
	Name string
	// Namespace and Account are its identity's; Deployment and Service are called
	// "edge".
	Namespace, Account string
}

// Traffic is requests that go through edges all the time.
type Traffic struct {
	// Edges are those that are called.
	Edges []Edge
	// Namespace is that of the mesh service and of the callers.
	Namespace string

	options Options
	client  kubernetes.Interface
	since   map[string]time.Time
}

// Deploy deploys edges, the service behind them and a caller of each, and returns
// when requests go through all. What it created so far is also returned with an
// error, for Remove.
func Deploy(ctx context.Context, o Options) (*Traffic, error) {
	o.complete()
	t := &Traffic{options: o, Namespace: o.Prefix + "-mesh", since: map[string]time.Time{}}
	for _, mode := range o.Modes {
		t.Edges = append(t.Edges, Edge{Name: mode, Namespace: o.Prefix + "-" + mode, Account: "edge"})
	}
	var err error
	if t.client, err = kubernetes.NewForConfig(o.Config); err != nil {
		return t, err
	}
	cluster, err := dynamic.NewForConfig(o.Config)
	if err != nil {
		return t, err
	}
	if err := t.create(ctx, cluster); err != nil || o.Bare {
		return t, err
	}
	for _, e := range t.Edges {
		if err := t.Await(ctx, e.Namespace, "edge"); err != nil {
			return t, err
		}
	}
	err = t.flowing(ctx)
	return t, err
}

func (o *Options) complete() {
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

// create applies all manifests, the service's first: an edge starts faster than it.
func (t *Traffic) create(ctx context.Context, cluster dynamic.Interface) error {
	if err := t.namespace(ctx, t.Namespace, nil, nil); err != nil {
		return err
	}
	values := map[string]any{"Lifetime": t.options.Lifetime, "TrustDomain": t.options.TrustDomain, "Edges": t.Edges}
	if err := apply(ctx, cluster, t.Namespace, "mesh.yaml", values); err != nil {
		return err
	}
	if err := t.Await(ctx, t.Namespace, "mesh"); err != nil {
		return err
	}
	labels, annotations := map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, t.options.Annotations
	if t.options.Bare {
		labels, annotations = nil, nil
	}
	for _, e := range t.Edges {
		if err := t.namespace(ctx, e.Namespace, labels, annotations); err != nil {
			return err
		}
		values := map[string]any{
			"Name": e.Name, "Mode": e.Name, "Namespace": e.Namespace, "Account": e.Account, "MeshNamespace": t.Namespace,
			"Replicas": t.options.Replicas, "Rate": t.options.Rate, "Generic": !t.options.Recognised,
		}
		if err := apply(ctx, cluster, e.Namespace, "edge.yaml", values); err != nil {
			return err
		}
		if err := apply(ctx, cluster, t.Namespace, "caller.yaml", values); err != nil {
			return err
		}
	}
	return nil
}

// namespace creates one in which Pod Security enforces "restricted".
func (t *Traffic) namespace(ctx context.Context, name string, labels, annotations map[string]string) error {
	all := map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	for key, value := range labels {
		all[key] = value
	}
	_, err := t.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: all, Annotations: annotations}}, metav1.CreateOptions{})
	return err
}

// kinds are those of the manifests.
var kinds = map[string]schema.GroupVersionResource{
	"ServiceAccount":      {Version: "v1", Resource: "serviceaccounts"},
	"Service":             {Version: "v1", Resource: "services"},
	"Deployment":          {Group: "apps", Version: "v1", Resource: "deployments"},
	"PodDisruptionBudget": {Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"},
}

// apply fills a manifest in and applies its objects.
func apply(ctx context.Context, cluster dynamic.Interface, namespace, manifest string, values any) error {
	var text bytes.Buffer
	if err := manifests.ExecuteTemplate(&text, manifest, values); err != nil {
		return err
	}
	for document := range strings.SplitSeq(text.String(), "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), object); err != nil {
			return fmt.Errorf("%s: %w", manifest, err)
		}
		resource, found := kinds[object.GetKind()]
		if !found {
			return fmt.Errorf("%s: kind %q is not among those of package traffic", manifest, object.GetKind())
		}
		_, err := cluster.Resource(resource).Namespace(namespace).Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "traffic", Force: true})
		if err != nil {
			return fmt.Errorf("%s: %s %s/%s: %w", manifest, object.GetKind(), namespace, object.GetName(), err)
		}
	}
	return nil
}

// Await waits until a Deployment is rolled out.
func (t *Traffic) Await(ctx context.Context, namespace, name string) error {
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

// Roll replaces all pods of an edge, one after the other, and waits for it, as
// "kubectl rollout restart" and "rollout status" do.
func (t *Traffic) Roll(ctx context.Context, e Edge) error {
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	_, err := t.client.AppsV1().Deployments(e.Namespace).Patch(ctx, "edge", "application/strategic-merge-patch+json", []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	return t.Await(ctx, e.Namespace, "edge")
}

// Remove deletes the namespaces, and does not wait until they are gone.
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

// await asks until is returns nil; the error is what it said last.
func await(ctx context.Context, is func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		attempt, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		last = is(attempt)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}
