package mesh

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1alpha1 "k8s.io/api/certificates/v1alpha1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// rootObject names the object that holds the roots.
type rootObject struct {
	// bundle is the name of a ClusterTrustBundle; empty for a ConfigMap.
	bundle string
	// namespace and configMap name the ConfigMap; empty for a ClusterTrustBundle.
	namespace, configMap string
}

func (r rootObject) String() string {
	if r.bundle != "" {
		return "ClusterTrustBundle " + r.bundle
	}
	return fmt.Sprintf("ConfigMap %s/%s", r.namespace, r.configMap)
}

// pemField returns the name of the field or key that holds the PEM.
func (r rootObject) pemField() string {
	if r.bundle != "" {
		return "trustBundle"
	}
	return keyRoots
}

// parseFrom parses the roots from the object in the cache of a watch. With an error
// it returns the roots that can be read.
func (r rootObject) parseFrom(w *objectWatch) ([]*x509.Certificate, error) {
	if err := w.accessError(); err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	objects := w.informer.GetStore().List()
	if len(objects) == 0 {
		return nil, fmt.Errorf("%s does not exist", r)
	}
	roots, err := certs.ParseRoots([]byte(rootPEM(objects[0]))) // the watch selects one name
	if err != nil {
		err = fmt.Errorf("%s %s: %w", r, r.pemField(), err)
	}
	return certs.MergeRoots(roots), err
}

// newWatch returns a watch of one object by name. It needs permission to get and
// watch that object only.
func (r rootObject) newWatch(ctx context.Context, client kubernetes.Interface, onChange func()) (*objectWatch, error) {
	objectType, listObject, watchObject := r.configMapListWatch(client)
	if r.bundle != "" {
		var err error
		if objectType, listObject, watchObject, err = r.bundleListWatch(ctx, client); err != nil {
			return nil, err
		}
	}
	name := r.configMap + r.bundle
	w := &objectWatch{description: r.String(), informer: newInformer(client, objectType, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
	}, listObject, watchObject)}
	if err := w.configure(trimRootObject, onChange); err != nil {
		return nil, err
	}
	return w, nil
}

// configMapListWatch returns the functions that list and watch the ConfigMap.
func (r rootObject) configMapListWatch(client kubernetes.Interface) (runtime.Object, listFunc, watchFunc) {
	api := client.CoreV1().ConfigMaps(r.namespace)
	return &corev1.ConfigMap{}, listByGet(func(ctx context.Context) (*corev1.ConfigMap, error) {
		return api.Get(ctx, r.configMap, metav1.GetOptions{})
	}, func(o *corev1.ConfigMap) runtime.Object {
		return &corev1.ConfigMapList{ListMeta: anyResourceVersion, Items: zeroOrOne(o)}
	}), api.Watch
}

// bundleListWatch returns the functions that list and watch the ClusterTrustBundle, in
// the newest version that the API server serves. The API is disabled by default.
func (r rootObject) bundleListWatch(ctx context.Context, client kubernetes.Interface) (runtime.Object, listFunc, watchFunc, error) {
	version, err := servedBundleVersion(ctx, client)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", r, err)
	}
	switch version {
	case certificatesv1.SchemeGroupVersion.Version:
		api := client.CertificatesV1().ClusterTrustBundles()
		return &certificatesv1.ClusterTrustBundle{}, listByGet(func(ctx context.Context) (*certificatesv1.ClusterTrustBundle, error) {
			return api.Get(ctx, r.bundle, metav1.GetOptions{})
		}, func(o *certificatesv1.ClusterTrustBundle) runtime.Object {
			return &certificatesv1.ClusterTrustBundleList{ListMeta: anyResourceVersion, Items: zeroOrOne(o)}
		}), api.Watch, nil
	case certificatesv1beta1.SchemeGroupVersion.Version:
		api := client.CertificatesV1beta1().ClusterTrustBundles()
		return &certificatesv1beta1.ClusterTrustBundle{}, listByGet(func(ctx context.Context) (*certificatesv1beta1.ClusterTrustBundle, error) {
			return api.Get(ctx, r.bundle, metav1.GetOptions{})
		}, func(o *certificatesv1beta1.ClusterTrustBundle) runtime.Object {
			return &certificatesv1beta1.ClusterTrustBundleList{ListMeta: anyResourceVersion, Items: zeroOrOne(o)}
		}), api.Watch, nil
	default:
		api := client.CertificatesV1alpha1().ClusterTrustBundles()
		return &certificatesv1alpha1.ClusterTrustBundle{}, listByGet(func(ctx context.Context) (*certificatesv1alpha1.ClusterTrustBundle, error) {
			return api.Get(ctx, r.bundle, metav1.GetOptions{})
		}, func(o *certificatesv1alpha1.ClusterTrustBundle) runtime.Object {
			return &certificatesv1alpha1.ClusterTrustBundleList{ListMeta: anyResourceVersion, Items: zeroOrOne(o)}
		}), api.Watch, nil
	}
}

func servedBundleVersion(ctx context.Context, client kubernetes.Interface) (string, error) {
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
			return "", fmt.Errorf("discover %s: %w", gv, err)
		}
		for _, resource := range found.APIResources {
			if resource.Name == "clustertrustbundles" {
				return gv[len(certificatesv1.GroupName)+1:], nil
			}
		}
	}
	return "", errors.New("the API server has no ClusterTrustBundles")
}

// anyResourceVersion makes the watch after a list start with the current objects.
// The resourceVersion of an object that has not changed for long is too old to
// start a watch from.
var anyResourceVersion = metav1.ListMeta{ResourceVersion: "0"}

// listByGet returns a list function that gets the one object, which needs no
// permission to list.
func listByGet[T any](get func(context.Context) (*T, error), list func(*T) runtime.Object) listFunc {
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

func zeroOrOne[T any](o *T) []T {
	if o == nil {
		return nil
	}
	return []T{*o}
}

// trimRootObject returns a copy of an object with only the fields that are read.
func trimRootObject(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.ConfigMap:
		return &corev1.ConfigMap{ObjectMeta: trimMetadata(o.ObjectMeta), Data: pickKeys(o.Data, keyRoots)}, nil
	default:
		return o, nil
	}
}

// rootPEM returns the PEM text that an object holds.
func rootPEM(o any) string {
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
