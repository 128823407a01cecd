package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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
	// unfit says why a restart would not roll its pods; empty where it would.
	unfit string
	// rollout is how far its latest one is.
	rollout rollout
	// available is how many of its pods are.
	available int32
}

// The kinds of workloads that can be restarted.
const (
	deployment  = "Deployment"
	statefulSet = "StatefulSet"
	daemonSet   = "DaemonSet"
)

// apps is their API version, and that of ReplicaSets.
var apps = appsv1.SchemeGroupVersion.String()

// readWorkload reads one from the API server.
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
		w = &workload{Object: d, template: &d.Spec.Template, unfit: unfitDeployment(d), rollout: deploymentRollout(d), available: d.Status.AvailableReplicas}
	case statefulSet:
		s, err := kube.AppsV1().StatefulSets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read StatefulSet %s/%s: %w", namespace, name, err)
		}
		selector = s.Spec.Selector
		w = &workload{Object: s, template: &s.Spec.Template, unfit: unfitStatefulSet(s), rollout: statefulSetRollout(s), available: s.Status.AvailableReplicas}
	case daemonSet:
		d, err := kube.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read DaemonSet %s/%s: %w", namespace, name, err)
		}
		selector = d.Spec.Selector
		w = &workload{Object: d, template: &d.Spec.Template, unfit: unfitDaemonSet(d), rollout: daemonSetRollout(d), available: d.Status.NumberAvailable}
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

// String is the workload in a sentence.
func (w *workload) String() string { return w.kind + " " + w.GetNamespace() + "/" + w.GetName() }

// reference is the workload as an Event knows it.
func (w *workload) reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: apps, Kind: w.kind, Namespace: w.GetNamespace(), Name: w.GetName(), UID: w.GetUID()}
}

// restartedFor is the template hash that it was last restarted for.
func (w *workload) restartedFor() string { return w.GetAnnotations()[policy.RestartedForKey] }

// RestartedAt is the annotation that kubectl rollout restart sets in a pod template
// (defaultObjectRestarter of kubectl).
const RestartedAt = "kubectl.kubernetes.io/restartedAt"

// restart restarts exactly the workload that was read, as kubectl rollout restart
// does, and remembers for which template. The chart's policy
// isthmus-controller-restarts lets the controller change these two annotations and
// nothing else.
func restart(ctx context.Context, kube kubernetes.Interface, w *workload, template string, at time.Time) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{
			"uid": w.GetUID(), "resourceVersion": w.GetResourceVersion(),
			"annotations": map[string]any{policy.RestartedForKey: template},
		},
		"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": map[string]any{RestartedAt: at.UTC().Format(time.RFC3339)}}}},
	})
	if err != nil {
		return err
	}
	o := metav1.PatchOptions{FieldManager: Name}
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

// ownerOf finds the workload behind a pod's controller: its kind and name; the
// empty kind where there is none that could be restarted, and why.
func ownerOf(ctx context.Context, kube kubernetes.Interface, namespace string, owner *metav1.OwnerReference) (kind, name, why string, err error) {
	switch {
	case owner == nil:
		return "", "", "nobody makes the pod anew when it is gone; make it anew yourself", nil
	case owner.APIVersion == apps && (owner.Kind == statefulSet || owner.Kind == daemonSet):
		return owner.Kind, owner.Name, "", nil
	case owner.APIVersion != apps || owner.Kind != "ReplicaSet":
		return "", "", fmt.Sprintf("its owner is the %s %s, and only the pods of a Deployment, StatefulSet or DaemonSet can be rolled", owner.Kind, owner.Name), nil
	}
	rs, err := kube.AppsV1().ReplicaSets(namespace).Get(ctx, owner.Name, metav1.GetOptions{})
	if err != nil {
		return "", "", "", fmt.Errorf("read ReplicaSet %s/%s: %w", namespace, owner.Name, err)
	}
	above := metav1.GetControllerOf(rs)
	switch {
	case above == nil:
		return "", "", fmt.Sprintf("its ReplicaSet %s belongs to no Deployment; delete the pods one by one", owner.Name), nil
	case above.APIVersion == apps && above.Kind == deployment:
		return deployment, above.Name, "", nil
	}
	return "", "", fmt.Sprintf("its ReplicaSet belongs to the %s %s (%s), which has its own way to restart", above.Kind, above.Name, above.APIVersion), nil
}
