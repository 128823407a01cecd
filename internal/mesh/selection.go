package mesh

import (
	"context"
	"fmt"
	"sync/atomic"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// istiodSelector selects the Deployments of istiod, whatever their revision.
const istiodSelector = "app=istiod"

// revisionedSelector selects the ConfigMaps of the revisions that have a name.
// The default revision's are watched by their names, so nothing is held twice.
const revisionedSelector = revisionLabel + "," + revisionLabel + "!=" + defaultRevision

// selection is one watched set of objects. Istio's namespace also holds root
// certificates, dashboards and leases of other programs, so nothing is watched
// that is not asked for by label or name, and only what is read is kept.
type selection struct {
	// what names the set in messages.
	what string
	// decides is true when the set says whether Istio is there.
	decides bool
	// injects is true when the set tells of Istio's injectors and tags.
	injects  bool
	informer cache.SharedIndexInformer
	lastErr  atomic.Pointer[error]
}

// selections returns what a Watcher watches: the two ConfigMaps of the default
// revision, which somebody may have made by hand, without labels; those of the
// other revisions; istiod's Deployments; and the configurations of Istio's
// injector, which belong to no namespace. Changed is called after every event.
func selections(client kubernetes.Interface, namespace string, changed func()) ([]*selection, error) {
	var all []*selection
	configMaps := func(what string, narrow metav1.ListOptions) {
		api := client.CoreV1().ConfigMaps(namespace)
		all = append(all, &selection{what: what, decides: true, informer: informer(client, &corev1.ConfigMap{}, narrow,
			func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) },
			api.Watch)})
	}
	for _, name := range []string{injectorName, meshConfigName} {
		configMaps("ConfigMap "+name, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
		})
	}
	configMaps("ConfigMaps with label "+revisionLabel, metav1.ListOptions{LabelSelector: revisionedSelector})
	api := client.AppsV1().Deployments(namespace)
	all = append(all, &selection{what: "Deployments with label " + istiodSelector, informer: informer(client, &appsv1.Deployment{},
		metav1.ListOptions{LabelSelector: istiodSelector},
		func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) },
		api.Watch)})
	hooks := client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	all = append(all, &selection{what: "MutatingWebhookConfigurations with labels " + injectorSelector, injects: true,
		informer: informer(client, &admissionv1.MutatingWebhookConfiguration{}, metav1.ListOptions{LabelSelector: injectorSelector},
			func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return hooks.List(ctx, o) },
			hooks.Watch)})
	for _, s := range all {
		if err := s.prepare(changed); err != nil {
			return nil, fmt.Errorf("watch %s: %w", s.what, err)
		}
	}
	return all, nil
}

func informer(client kubernetes.Interface, example runtime.Object, narrow metav1.ListOptions,
	list func(context.Context, metav1.ListOptions) (runtime.Object, error),
	watchFn func(context.Context, metav1.ListOptions) (watch.Interface, error),
) cache.SharedIndexInformer {
	only := func(o metav1.ListOptions) metav1.ListOptions {
		o.LabelSelector, o.FieldSelector = narrow.LabelSelector, narrow.FieldSelector
		return o
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return list(ctx, only(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return watchFn(ctx, only(o))
		},
	}
	return cache.NewSharedIndexInformerWithOptions(
		cache.ToListWatcherWithWatchListSemantics(lw, client), example, cache.SharedIndexInformerOptions{})
}

func (s *selection) prepare(changed func()) error {
	if err := s.informer.SetTransform(strip); err != nil {
		return err
	}
	// The reflector comes back after every error, with backoff.
	if err := s.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		s.lastErr.Store(&err)
		changed()
	}); err != nil {
		return err
	}
	_, err := s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { changed() },
		UpdateFunc: func(any, any) { changed() },
		DeleteFunc: func(any) { changed() },
	})
	return err
}

// answered says whether the API server has said what there is, or that it will
// not say. An API server that cannot be reached has said neither: taking that
// for "no Istio" would give pods the identity of another mesh.
func (s *selection) answered() bool {
	return s.informer.HasSynced() || s.refusal() != nil
}

// refusal is the API server's refusal to show the objects, nil once it shows
// them.
func (s *selection) refusal() error {
	if err := s.failure(); apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// failure is why the objects are not known; nil once they are.
func (s *selection) failure() error {
	if err := s.lastErr.Load(); err != nil && !s.informer.HasSynced() {
		return *err
	}
	return nil
}

// objects are what is watched, of every kind.
type objects struct {
	configMaps     []*corev1.ConfigMap
	deployments    []*appsv1.Deployment
	configurations []*admissionv1.MutatingWebhookConfiguration
}

// held returns what all the selections hold. An object may be in several; it is
// the same one then.
func held(all []*selection) objects {
	var found objects
	for _, s := range all {
		for _, o := range s.informer.GetStore().List() {
			switch o := o.(type) {
			case *corev1.ConfigMap:
				found.configMaps = append(found.configMaps, o)
			case *appsv1.Deployment:
				found.deployments = append(found.deployments, o)
			case *admissionv1.MutatingWebhookConfiguration:
				found.configurations = append(found.configurations, o)
			}
		}
	}
	return found
}

// strip keeps of an object only what is read: the injector ConfigMap alone
// carries 100 KB of templates.
func strip(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.ConfigMap:
		return &corev1.ConfigMap{ObjectMeta: identity(o.ObjectMeta), Data: only(o.Data, keyValues, keyMesh)}, nil
	case *appsv1.Deployment:
		kept := &appsv1.Deployment{ObjectMeta: identity(o.ObjectMeta)}
		for _, c := range o.Spec.Template.Spec.Containers {
			kept.Spec.Template.Spec.Containers = append(kept.Spec.Template.Spec.Containers, corev1.Container{Name: c.Name, Env: c.Env})
		}
		return kept, nil
	case *admissionv1.MutatingWebhookConfiguration:
		kept := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: identity(o.ObjectMeta)}
		for i := range o.Webhooks {
			kept.Webhooks = append(kept.Webhooks, stripWebhook(&o.Webhooks[i]))
		}
		return kept, nil
	default:
		return o, nil
	}
}

// stripWebhook leaves rules, conditions and the CA aside.
func stripWebhook(w *admissionv1.MutatingWebhook) admissionv1.MutatingWebhook {
	kept := admissionv1.MutatingWebhook{
		Name: w.Name, ReinvocationPolicy: w.ReinvocationPolicy,
		NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector,
	}
	if service := w.ClientConfig.Service; service != nil {
		kept.ClientConfig.Service = &admissionv1.ServiceReference{Namespace: service.Namespace, Name: service.Name}
	}
	return kept
}

func identity(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion,
		Labels: only(m.Labels, revisionLabel, tagLabel),
	}
}

func only(m map[string]string, keys ...string) map[string]string {
	kept := make(map[string]string, len(keys))
	for _, k := range keys {
		if v, ok := m[k]; ok {
			kept[k] = v
		}
	}
	return kept
}
