package mesh

import (
	"context"
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// Snapshot holds the mesh settings of a cluster as Discover found them.
type Snapshot struct {
	state *meshState
	// warnings name the optional objects that could not be read.
	warnings []string
}

// Discover reads the settings of the Istio in a namespace once. An empty namespace
// means istio-system.
//
// It returns an error when Istio's ConfigMaps cannot be read: the user who runs the
// command can fix that, unlike a server. Many users have no permission to read
// Deployments in that namespace, or MutatingWebhookConfigurations. Discover then
// goes on, and the settings carry a warning.
func Discover(ctx context.Context, client kubernetes.Interface, namespace string, explicit patches.Mesh) (*Snapshot, error) {
	if err := explicit.Validate(); err != nil {
		return nil, fmt.Errorf("mesh settings: %w", err)
	}
	if namespace == "" {
		namespace = DefaultNamespace
	}
	var objects istioObjects
	var err error
	if objects.configMaps, err = listConfigMaps(ctx, client, namespace); err != nil {
		return nil, err
	}
	s := &Snapshot{}
	deployments, err := client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{LabelSelector: istiodSelector})
	switch {
	case apierrors.IsForbidden(err):
		// Only the maximum certificate lifetime comes from the Deployment, and it
		// may stay unknown.
		s.warnings = append(s.warnings, err.Error())
	case err != nil:
		return nil, fmt.Errorf("read istiod's Deployments in namespace %s: %w", namespace, err)
	default:
		for i := range deployments.Items {
			objects.deployments = append(objects.deployments, &deployments.Items[i])
		}
	}
	injectors, err := listInjectors(ctx, client, namespace)
	if err != nil {
		return nil, err
	}
	if injectors.unreadableReason != "" {
		s.warnings = append(s.warnings, "istio's revision tags and injectors are not known: "+injectors.unreadableReason)
	}
	s.state = (&meshState{namespace: namespace, explicit: explicit}).next(
		controlPlanes(namespace, objects.configMaps, objects.deployments), injectors)
	return s, nil
}

// Settings returns the settings of a revision or tag, which it resolves as
// Watcher.Mesh does. Without an Istio in the namespace, it returns the explicit
// settings over the documented defaults, with a warning.
func (s *Snapshot) Settings(revision string) (Settings, error) {
	settings, err := s.state.settings(revision)
	if err == nil {
		settings.Warnings = append(slices.Clone(settings.Warnings), s.warnings...)
	}
	return settings, err
}

// Injector returns the injector of a revision or tag, as Watcher.Injector does.
func (s *Snapshot) Injector(revision string) (inject.Injector, error) {
	return s.state.injectors.injectorFor(revision)
}

// listInjectors reads the MutatingWebhookConfigurations that a Watcher watches.
func listInjectors(ctx context.Context, client kubernetes.Interface, namespace string) (injectors, error) {
	list, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{LabelSelector: injectorSelector})
	if apierrors.IsForbidden(err) {
		return injectors{unreadableReason: err.Error()}, nil
	}
	if err != nil {
		return injectors{}, fmt.Errorf("read the MutatingWebhookConfigurations of Istio's injector: %w", err)
	}
	all := make([]*admissionv1.MutatingWebhookConfiguration, 0, len(list.Items))
	for i := range list.Items {
		all = append(all, &list.Items[i])
	}
	return readInjectors(namespace, DefaultWebhookConfiguration, all), nil
}

// listConfigMaps returns the ConfigMaps that a Watcher watches.
func listConfigMaps(ctx context.Context, client kubernetes.Interface, namespace string) ([]*corev1.ConfigMap, error) {
	api := client.CoreV1().ConfigMaps(namespace)
	list, err := api.List(ctx, metav1.ListOptions{LabelSelector: revisionedSelector})
	if err != nil {
		return nil, fmt.Errorf("read Istio's ConfigMaps in namespace %s: %w", namespace, err)
	}
	var found []*corev1.ConfigMap
	for i := range list.Items {
		found = append(found, &list.Items[i])
	}
	for _, name := range []string{injectorName, meshConfigName} {
		cm, err := api.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, fmt.Errorf("read ConfigMap %s/%s: %w", namespace, name, err)
		default:
			found = append(found, cm)
		}
	}
	return found, nil
}
