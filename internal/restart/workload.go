package restart

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// workload is a Deployment, StatefulSet or DaemonSet, as far as a restart needs it.
type workload struct {
	metav1.Object
	kind     string
	template *corev1.PodTemplateSpec
	selector labels.Selector
	// obstacle says why a restart would not roll its pods; empty when it would.
	obstacle string
	// rollout is how far the latest rollout is.
	rollout rollout
	// available is the number of available pods.
	available int32
}

// readWorkload reads a workload from the API server.
func readWorkload(ctx context.Context, kube kubernetes.Interface, kind, namespace, name string) (*workload, error) {
	var w *workload
	var selector *metav1.LabelSelector
	switch kind {
	case deployment:
		d, err := kube.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read Deployment %s/%s: %w", namespace, name, err)
		}
		selector = d.Spec.Selector
		w = &workload{Object: d, template: &d.Spec.Template, obstacle: obstacleOfDeployment(d), rollout: deploymentRollout(d), available: d.Status.AvailableReplicas}
	case statefulSet:
		s, err := kube.AppsV1().StatefulSets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read StatefulSet %s/%s: %w", namespace, name, err)
		}
		selector = s.Spec.Selector
		w = &workload{Object: s, template: &s.Spec.Template, obstacle: obstacleOfStatefulSet(s), rollout: statefulSetRollout(s), available: s.Status.AvailableReplicas}
	case daemonSet:
		d, err := kube.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read DaemonSet %s/%s: %w", namespace, name, err)
		}
		selector = d.Spec.Selector
		w = &workload{Object: d, template: &d.Spec.Template, obstacle: obstacleOfDaemonSet(d), rollout: daemonSetRollout(d), available: d.Status.NumberAvailable}
	default:
		return nil, fmt.Errorf("read %s %s/%s: want a Deployment, StatefulSet or DaemonSet", kind, namespace, name)
	}
	w.kind = kind
	var err error
	if w.selector, err = metav1.LabelSelectorAsSelector(selector); err != nil {
		return nil, fmt.Errorf("selector of %s: %w", w, err)
	}
	return w, nil
}

// String is the kind, the namespace and the name.
func (w *workload) String() string { return w.kind + " " + w.GetNamespace() + "/" + w.GetName() }

// reference returns the workload as the object of an Event.
func (w *workload) reference() corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: appsVersion, Kind: w.kind, Namespace: w.GetNamespace(), Name: w.GetName(), UID: w.GetUID()}
}

// restartedFor is the template hash that the workload was last restarted for.
func (w *workload) restartedFor() string { return w.GetAnnotations()[policy.RestartedForKey] }

// patchRestart restarts exactly the workload that was read, as kubectl rollout
// restart does, and records the template on it. The chart's policy
// isthmus-controller-restarts allows the controller these two annotations and
// nothing else.
func patchRestart(ctx context.Context, kube kubernetes.Interface, w *workload, template string, at time.Time) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{
			"uid": w.GetUID(), "resourceVersion": w.GetResourceVersion(),
			"annotations": map[string]any{policy.RestartedForKey: template},
		},
		"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": map[string]any{policy.RestartedAtKey: at.UTC().Format(time.RFC3339)}}}},
	})
	if err != nil {
		return err
	}
	o := metav1.PatchOptions{FieldManager: fieldManager}
	switch w.kind {
	case deployment:
		_, err = kube.AppsV1().Deployments(w.GetNamespace()).Patch(ctx, w.GetName(), types.MergePatchType, patch, o)
	case statefulSet:
		_, err = kube.AppsV1().StatefulSets(w.GetNamespace()).Patch(ctx, w.GetName(), types.MergePatchType, patch, o)
	case daemonSet:
		_, err = kube.AppsV1().DaemonSets(w.GetNamespace()).Patch(ctx, w.GetName(), types.MergePatchType, patch, o)
	}
	if err != nil {
		return fmt.Errorf("restart %s: %w", w, err)
	}
	return nil
}

// workloadOf names the workload behind a pod's controller. The kind is empty when
// the pod belongs to no workload that can be restarted; unsupported then says why.
func workloadOf(ctx context.Context, kube kubernetes.Interface, namespace string, owner *metav1.OwnerReference) (kind, name, unsupported string, err error) {
	kind, name, unsupported = workloadOfOwner(owner)
	if kind != replicaSet {
		return kind, name, unsupported, nil
	}
	rs, err := kube.AppsV1().ReplicaSets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", "", "", fmt.Errorf("read ReplicaSet %s/%s: %w", namespace, name, err)
	}
	kind, name, unsupported = workloadOfReplicaSet(name, metav1.GetControllerOf(rs))
	return kind, name, unsupported, nil
}

// isPodOf reports whether a pod's controller is the workload, or a ReplicaSet of
// the workload. known caches the answer per ReplicaSet.
func isPodOf(ctx context.Context, kube kubernetes.Interface, w *workload, owner *metav1.OwnerReference, known map[types.UID]bool) (bool, error) {
	if owner == nil || w.kind != deployment {
		return owner != nil && owner.UID == w.GetUID(), nil
	}
	if isOf, ok := known[owner.UID]; ok {
		return isOf, nil
	}
	rs, err := kube.AppsV1().ReplicaSets(w.GetNamespace()).Get(ctx, owner.Name, metav1.GetOptions{})
	if err != nil {
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return false, fmt.Errorf("read ReplicaSet %s/%s: %w", w.GetNamespace(), owner.Name, err)
	}
	above := metav1.GetControllerOf(rs)
	known[owner.UID] = above != nil && above.UID == w.GetUID()
	return known[owner.UID], nil
}
