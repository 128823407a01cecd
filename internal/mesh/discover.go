package mesh

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/patches"
)

// Discover looks once at the Istio in a namespace (empty: istio-system) and
// returns the settings of a revision, chosen as Watcher.Mesh chooses it. Where
// no Istio is, a warning says so and the settings are the explicit ones and the
// documented defaults. Objects that cannot be read are an error: unlike a
// server, someone who asks for the cluster's settings can do something about it.
func Discover(ctx context.Context, client kubernetes.Interface, namespace, revision string, explicit patches.Mesh) (Settings, error) {
	if err := explicit.Validate(); err != nil {
		return Settings{}, fmt.Errorf("mesh settings: %w", err)
	}
	if namespace == "" {
		namespace = DefaultNamespace
	}
	configMaps, err := readConfigMaps(ctx, client, namespace)
	if err != nil {
		return Settings{}, err
	}
	list, err := client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{LabelSelector: istiodSelector})
	unreadable := ""
	switch {
	case apierrors.IsForbidden(err):
		// Only the longest lifetime comes from there, and it is allowed to be
		// unknown.
		list, unreadable = &appsv1.DeploymentList{}, err.Error()
	case err != nil:
		return Settings{}, fmt.Errorf("read istiod's Deployments in namespace %s: %w", namespace, err)
	}
	deployments := make([]*appsv1.Deployment, 0, len(list.Items))
	for i := range list.Items {
		deployments = append(deployments, &list.Items[i])
	}
	seen := (&state{namespace: namespace, explicit: explicit}).next(controlPlanes(namespace, configMaps, deployments))
	s, err := seen.settings(revision)
	if err == nil && unreadable != "" {
		s.Warnings = append(s.Warnings, unreadable)
	}
	return s, err
}

// readConfigMaps returns the ConfigMaps that a Watcher would watch.
func readConfigMaps(ctx context.Context, client kubernetes.Interface, namespace string) ([]*corev1.ConfigMap, error) {
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
