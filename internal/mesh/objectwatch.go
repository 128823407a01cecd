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

// istiodSelector selects the Deployments of istiod of every revision.
const istiodSelector = "app=istiod"

// revisionedSelector selects the ConfigMaps of all revisions but the default one.
// Those of the default revision are watched by name, so no object is cached twice.
const revisionedSelector = revisionLabel + "," + revisionLabel + "!=" + defaultRevision

// objectWatch watches one set of objects, selected by label or by name, and caches
// only the fields that are read. Istio's namespace also holds root certificates,
// dashboards and leases of other programs.
type objectWatch struct {
	// description names the objects in messages.
	description string
	// showsIstio is true when the objects show whether Istio is installed.
	showsIstio bool
	// holdsInjectors is true when the objects define Istio's injectors and tags.
	holdsInjectors bool
	informer       cache.SharedIndexInformer
	lastError      atomic.Pointer[error]
}

// newObjectWatches returns the watches of a Watcher: the two ConfigMaps of the
// default revision, which users may create by hand and without labels; the
// ConfigMaps of the other revisions; istiod's Deployments; and the cluster-scoped
// MutatingWebhookConfigurations of Istio's injector. The watches call onChange after
// every event.
func newObjectWatches(client kubernetes.Interface, namespace string, onChange func()) ([]*objectWatch, error) {
	var watches []*objectWatch
	addConfigMaps := func(description string, selector metav1.ListOptions) {
		api := client.CoreV1().ConfigMaps(namespace)
		watches = append(watches, &objectWatch{description: description, showsIstio: true, informer: newInformer(client, &corev1.ConfigMap{}, selector,
			func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) },
			api.Watch)})
	}
	for _, name := range []string{injectorName, meshConfigName} {
		addConfigMaps("ConfigMap "+name, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
		})
	}
	addConfigMaps("ConfigMaps with label "+revisionLabel, metav1.ListOptions{LabelSelector: revisionedSelector})
	api := client.AppsV1().Deployments(namespace)
	watches = append(watches, &objectWatch{description: "Deployments with label " + istiodSelector, informer: newInformer(client, &appsv1.Deployment{},
		metav1.ListOptions{LabelSelector: istiodSelector},
		func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return api.List(ctx, o) },
		api.Watch)})
	configurations := client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	watches = append(watches, &objectWatch{description: "MutatingWebhookConfigurations with labels " + injectorSelector, holdsInjectors: true,
		informer: newInformer(client, &admissionv1.MutatingWebhookConfiguration{}, metav1.ListOptions{LabelSelector: injectorSelector},
			func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return configurations.List(ctx, o)
			},
			configurations.Watch)})
	for _, w := range watches {
		if err := w.configure(trimObject, onChange); err != nil {
			return nil, fmt.Errorf("watch %s: %w", w.description, err)
		}
	}
	return watches, nil
}

type (
	listFunc  = func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watchFunc = func(context.Context, metav1.ListOptions) (watch.Interface, error)
)

// newInformer returns an informer of the objects that a selector selects.
func newInformer(client kubernetes.Interface, objectType runtime.Object, selector metav1.ListOptions,
	listObjects listFunc, watchObjects watchFunc,
) cache.SharedIndexInformer {
	selected := func(o metav1.ListOptions) metav1.ListOptions {
		o.LabelSelector, o.FieldSelector = selector.LabelSelector, selector.FieldSelector
		return o
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return listObjects(ctx, selected(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return watchObjects(ctx, selected(o))
		},
	}
	return cache.NewSharedIndexInformerWithOptions(
		cache.ToListWatcherWithWatchListSemantics(lw, client), objectType, cache.SharedIndexInformerOptions{})
}

// configure sets the transform of the cached objects and calls onChange after every
// event and every error.
func (w *objectWatch) configure(transform cache.TransformFunc, onChange func()) error {
	if err := w.informer.SetTransform(transform); err != nil {
		return err
	}
	// The reflector retries after every error, with backoff.
	if err := w.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		w.lastError.Store(&err)
		onChange()
	}); err != nil {
		return err
	}
	_, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { onChange() },
		UpdateFunc: func(any, any) { onChange() },
		DeleteFunc: func(any) { onChange() },
	})
	return err
}

// isAnswered reports whether the API server has listed the objects or has refused to.
// An API server that cannot be reached has done neither. To treat that as "no
// Istio" would give pods the identity of another mesh.
func (w *objectWatch) isAnswered() bool {
	return w.informer.HasSynced() || w.accessError() != nil
}

// accessError returns the API server's answer that the objects may not be read or
// that their type does not exist; nil once they are listed.
func (w *objectWatch) accessError() error {
	if err := w.listError(); apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// listError returns why the objects are not listed yet; nil once they are.
func (w *objectWatch) listError() error {
	if err := w.lastError.Load(); err != nil && !w.informer.HasSynced() {
		return *err
	}
	return nil
}

// istioObjects holds the watched objects by kind.
type istioObjects struct {
	configMaps     []*corev1.ConfigMap
	deployments    []*appsv1.Deployment
	configurations []*admissionv1.MutatingWebhookConfiguration
}

// cachedObjects returns the objects in the caches of all watches. An object that is
// in several caches is returned several times.
func cachedObjects(watches []*objectWatch) istioObjects {
	var found istioObjects
	for _, w := range watches {
		for _, o := range w.informer.GetStore().List() {
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

// trimObject returns a copy of an object with only the fields that are read. The
// injector ConfigMap alone holds 100 KB of templates.
func trimObject(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.ConfigMap:
		return &corev1.ConfigMap{ObjectMeta: trimMetadata(o.ObjectMeta), Data: pickKeys(o.Data, keyValues, keyMesh)}, nil
	case *appsv1.Deployment:
		trimmed := &appsv1.Deployment{ObjectMeta: trimMetadata(o.ObjectMeta)}
		for _, c := range o.Spec.Template.Spec.Containers {
			trimmed.Spec.Template.Spec.Containers = append(trimmed.Spec.Template.Spec.Containers, corev1.Container{Name: c.Name, Env: c.Env})
		}
		return trimmed, nil
	case *admissionv1.MutatingWebhookConfiguration:
		trimmed := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: trimMetadata(o.ObjectMeta)}
		for i := range o.Webhooks {
			trimmed.Webhooks = append(trimmed.Webhooks, trimWebhook(&o.Webhooks[i]))
		}
		return trimmed, nil
	default:
		return o, nil
	}
}

// trimWebhook returns a copy of a webhook without rules, match conditions and CA
// bundle.
func trimWebhook(w *admissionv1.MutatingWebhook) admissionv1.MutatingWebhook {
	trimmed := admissionv1.MutatingWebhook{
		Name: w.Name, ReinvocationPolicy: w.ReinvocationPolicy,
		NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector,
	}
	if service := w.ClientConfig.Service; service != nil {
		trimmed.ClientConfig.Service = &admissionv1.ServiceReference{Namespace: service.Namespace, Name: service.Name}
	}
	return trimmed
}

func trimMetadata(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion,
		Labels: pickKeys(m.Labels, revisionLabel, tagLabel),
	}
}

func pickKeys(m map[string]string, keys ...string) map[string]string {
	picked := make(map[string]string, len(keys))
	for _, k := range keys {
		if v, ok := m[k]; ok {
			picked[k] = v
		}
	}
	return picked
}
