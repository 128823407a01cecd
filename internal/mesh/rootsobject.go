package mesh

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1alpha1 "k8s.io/api/certificates/v1alpha1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// rootPlace says which object holds the roots.
type rootPlace struct {
	// bundle is a ClusterTrustBundle's name; empty means the ConfigMap.
	bundle string
	// namespace and configMap name a ConfigMap.
	namespace, configMap string
}

func (p rootPlace) String() string {
	if p.bundle != "" {
		return "ClusterTrustBundle " + p.bundle
	}
	return fmt.Sprintf("ConfigMap %s/%s", p.namespace, p.configMap)
}

// field is where the object has the PEM.
func (p rootPlace) field() string {
	if p.bundle != "" {
		return "trustBundle"
	}
	return keyRoots
}

// follower watches the object that holds the roots, and another one when the
// settings name another.
type follower struct {
	*Roots
	place     rootPlace
	selection *selection
	end       func()
	notBefore time.Time
}

// follow makes sure that the right object is watched.
func (f *follower) follow(ctx context.Context) {
	mesh, err := f.options.Mesh()
	if err != nil {
		// Settings that are not read yet are no answer.
		if f.selection == nil && !errors.Is(err, errNotRead) {
			f.fail(fmt.Errorf("where the mesh's roots are is not known: %w", err))
		}
		return
	}
	mesh = mesh.Defaults()
	place := rootPlace{namespace: f.options.Namespace, configMap: mesh.RootConfigMap}
	if mesh.RootClusterTrustBundle != "" {
		place = rootPlace{bundle: mesh.RootClusterTrustBundle}
	}
	if place == f.place && (f.selection != nil || time.Now().Before(f.notBefore)) {
		return
	}
	f.stop()
	f.place = place
	s, err := place.open(ctx, f.options.Client, f.wake)
	if err != nil {
		f.notBefore = time.Now().Add(reopenInterval)
		f.fail(err)
		return
	}
	f.selection = s
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { s.informer.RunWithContext(ctx) })
	running.Go(func() {
		select {
		case <-s.informer.HasSyncedChecker().Done():
			f.wake() // no object makes no event
		case <-ctx.Done():
		}
	})
	f.end = func() { cancel(); running.Wait() }
}

// stop ends the watch where there is one.
func (f *follower) stop() {
	if f.end != nil {
		f.end()
	}
	f.selection, f.end = nil, nil
}

// read takes what the object says now.
func (f *follower) read() {
	if f.selection == nil || !f.selection.answered() {
		return
	}
	roots, err := f.place.roots(f.selection)
	if err != nil {
		f.fail(err)
		return
	}
	f.keep(roots)
}

// roots reads the object that a selection holds.
func (p rootPlace) roots(s *selection) ([]*x509.Certificate, error) {
	if err := s.refusal(); err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	found := s.informer.GetStore().List()
	if len(found) == 0 {
		return nil, fmt.Errorf("%s does not exist", p)
	}
	roots, err := parseRoots(rootText(found[0])) // there is one of a name
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", p, p.field(), err)
	}
	return roots, nil
}

// open prepares the watch of one object by its name, so that the right to get
// and watch this one is enough.
func (p rootPlace) open(ctx context.Context, client kubernetes.Interface, changed func()) (*selection, error) {
	example, list, watchFn := p.configMapAccess(client)
	if p.bundle != "" {
		var err error
		if example, list, watchFn, err = p.bundleAccess(ctx, client); err != nil {
			return nil, err
		}
	}
	name := p.configMap + p.bundle
	s := &selection{what: p.String(), informer: informer(client, example, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
	}, list, watchFn)}
	if err := s.informer.SetTransform(stripRoots); err != nil {
		return nil, err
	}
	// The reflector comes back after every error, with backoff.
	if err := s.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		s.lastErr.Store(&err)
		changed()
	}); err != nil {
		return nil, err
	}
	_, err := s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { changed() },
		UpdateFunc: func(any, any) { changed() },
		DeleteFunc: func(any) { changed() },
	})
	return s, err
}

type (
	listFunc  = func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watchFunc = func(context.Context, metav1.ListOptions) (watch.Interface, error)
)

func (p rootPlace) configMapAccess(client kubernetes.Interface) (runtime.Object, listFunc, watchFunc) {
	api := client.CoreV1().ConfigMaps(p.namespace)
	return &corev1.ConfigMap{}, listOfOne(func(ctx context.Context) (*corev1.ConfigMap, error) {
		return api.Get(ctx, p.configMap, metav1.GetOptions{})
	}, func(o *corev1.ConfigMap) runtime.Object {
		return &corev1.ConfigMapList{ListMeta: anyVersion, Items: optional(o)}
	}), api.Watch
}

// bundleAccess finds the newest version of ClusterTrustBundles that the API
// server has. It has none unless someone switched them on.
func (p rootPlace) bundleAccess(ctx context.Context, client kubernetes.Interface) (runtime.Object, listFunc, watchFunc, error) {
	version, err := bundleVersion(ctx, client)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", p, err)
	}
	switch version {
	case certificatesv1.SchemeGroupVersion.Version:
		api := client.CertificatesV1().ClusterTrustBundles()
		return &certificatesv1.ClusterTrustBundle{}, listOfOne(func(ctx context.Context) (*certificatesv1.ClusterTrustBundle, error) {
			return api.Get(ctx, p.bundle, metav1.GetOptions{})
		}, func(o *certificatesv1.ClusterTrustBundle) runtime.Object {
			return &certificatesv1.ClusterTrustBundleList{ListMeta: anyVersion, Items: optional(o)}
		}), api.Watch, nil
	case certificatesv1beta1.SchemeGroupVersion.Version:
		api := client.CertificatesV1beta1().ClusterTrustBundles()
		return &certificatesv1beta1.ClusterTrustBundle{}, listOfOne(func(ctx context.Context) (*certificatesv1beta1.ClusterTrustBundle, error) {
			return api.Get(ctx, p.bundle, metav1.GetOptions{})
		}, func(o *certificatesv1beta1.ClusterTrustBundle) runtime.Object {
			return &certificatesv1beta1.ClusterTrustBundleList{ListMeta: anyVersion, Items: optional(o)}
		}), api.Watch, nil
	default:
		api := client.CertificatesV1alpha1().ClusterTrustBundles()
		return &certificatesv1alpha1.ClusterTrustBundle{}, listOfOne(func(ctx context.Context) (*certificatesv1alpha1.ClusterTrustBundle, error) {
			return api.Get(ctx, p.bundle, metav1.GetOptions{})
		}, func(o *certificatesv1alpha1.ClusterTrustBundle) runtime.Object {
			return &certificatesv1alpha1.ClusterTrustBundleList{ListMeta: anyVersion, Items: optional(o)}
		}), api.Watch, nil
	}
}

func bundleVersion(ctx context.Context, client kubernetes.Interface) (string, error) {
	api := discovery.ToDiscoveryInterfaceWithContext(client.Discovery())
	for _, gv := range []string{
		certificatesv1.SchemeGroupVersion.String(),
		certificatesv1beta1.SchemeGroupVersion.String(),
		certificatesv1alpha1.SchemeGroupVersion.String(),
	} {
		found, err := api.ServerResourcesForGroupVersionWithContext(ctx, gv)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("ask the API server for %s: %w", gv, err)
		}
		for _, resource := range found.APIResources {
			if resource.Name == "clustertrustbundles" {
				return gv[len(certificatesv1.GroupName)+1:], nil
			}
		}
	}
	return "", errors.New("the API server has no ClusterTrustBundles")
}

// anyVersion makes the watch that follows a list begin with what is there. The
// version of an object that nobody touched for long is too old to begin with.
var anyVersion = metav1.ListMeta{ResourceVersion: "0"}

// listOfOne lists by getting the one object: that needs no right to list.
func listOfOne[T any](get func(context.Context) (*T, error), list func(*T) runtime.Object) listFunc {
	return func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
		o, err := get(ctx)
		switch {
		case apierrors.IsNotFound(err):
			return list(nil), nil
		case err != nil:
			return nil, err
		}
		return list(o), nil
	}
}

func optional[T any](o *T) []T {
	if o == nil {
		return nil
	}
	return []T{*o}
}

// stripRoots keeps of an object only what is read.
func stripRoots(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.ConfigMap:
		return &corev1.ConfigMap{ObjectMeta: identity(o.ObjectMeta), Data: only(o.Data, keyRoots)}, nil
	default:
		return o, nil
	}
}

// rootText returns the PEM in an object.
func rootText(o any) string {
	switch o := o.(type) {
	case *corev1.ConfigMap:
		return o.Data[keyRoots]
	case *certificatesv1.ClusterTrustBundle:
		return o.Spec.TrustBundle
	case *certificatesv1beta1.ClusterTrustBundle:
		return o.Spec.TrustBundle
	case *certificatesv1alpha1.ClusterTrustBundle:
		return o.Spec.TrustBundle
	default:
		return ""
	}
}
