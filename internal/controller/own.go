package controller

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// resource is a kind of object that the controller keeps, one of it in a
// namespace and always under the same name.
type resource struct {
	schema.GroupVersionResource
	kind, name string
	// optional: the kind may not exist in the cluster.
	optional bool
}

func (k resource) String() string { return k.kind + " " + k.name }

// own makes an object stand as it is wanted, where there is none or one of ours.
// What is already known to stand is not asked for again before the next survey.
func (r *reconciler) own(ctx context.Context, p *place, k resource, fields map[string]any) error {
	wanted, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	if p.applied[k.name] == string(wanted) {
		return nil
	}
	api := r.Dynamic.Resource(k.GroupVersionResource).Namespace(p.namespace)
	current, err := api.Get(ctx, k.name, metav1.GetOptions{})
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("read %s/%s: %w", p.namespace, k, err)
	case err == nil && !isOurs(current):
		r.tell(p, referenceTo(k, p.namespace), corev1.EventTypeWarning, EventConflict, fmt.Sprintf(
			"%s is not Isthmus' (it has no label %s=%s) and is left as it is; delete it, or ask for none", k, policy.ManagedByLabel, policy.ManagedBy))
		return nil
	}
	o := &unstructured.Unstructured{Object: fields}
	o.SetGroupVersionKind(k.GroupVersion().WithKind(k.kind))
	o.SetNamespace(p.namespace)
	o.SetName(k.name)
	o.SetLabels(map[string]string{policy.ManagedByLabel: policy.ManagedBy})
	_, err = api.Apply(ctx, k.name, o, metav1.ApplyOptions{FieldManager: publish.Manager, Force: true})
	switch {
	case apierrors.IsNotFound(err) && k.optional:
		r.tell(p, referenceTo(k, p.namespace), corev1.EventTypeWarning, EventFailed,
			fmt.Sprintf("%s was asked for, but this cluster has no %s", k, k.GroupResource()))
	case err != nil:
		return fmt.Errorf("apply %s in namespace %s: %w", k, p.namespace, err)
	}
	p.applied[k.name] = string(wanted)
	return nil
}

// disown deletes an object when it is ours.
func (r *reconciler) disown(ctx context.Context, namespace string, k resource) error {
	api := r.Dynamic.Resource(k.GroupVersionResource).Namespace(namespace)
	current, err := api.Get(ctx, k.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read %s in namespace %s: %w", k, namespace, err)
	case !isOurs(current):
		return nil
	}
	err = api.Delete(ctx, k.name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{
		UID: ptr.To(current.GetUID()), ResourceVersion: ptr.To(current.GetResourceVersion()),
	}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s in namespace %s: %w", k, namespace, err)
	}
	return nil
}

// notWanted disowns once; after that the place is known to be empty. What may
// be left from before this process is looked for at the second survey: most
// namespaces never had any, and a new leader has more urgent work.
func (r *reconciler) notWanted(ctx context.Context, p *place, k resource) error {
	state, known := p.applied[k.name]
	if known && state == "" || !known && !p.settled {
		return nil
	}
	if err := r.disown(ctx, p.namespace, k); err != nil {
		return err
	}
	p.applied[k.name] = ""
	return nil
}

func isOurs(o metav1.Object) bool { return o.GetLabels()[policy.ManagedByLabel] == policy.ManagedBy }

func referenceTo(k resource, namespace string) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: k.GroupVersion().String(), Kind: k.kind, Namespace: namespace, Name: k.name}
}

// removeSecret deletes a Secret that is ours.
func (r *reconciler) removeSecret(ctx context.Context, namespace, name string) error {
	secret, err := r.Secrets.Get(ctx, namespace, name)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read secret %s/%s: %w", namespace, name, err)
	case !isOurs(secret):
		return nil
	}
	if err := r.Secrets.Delete(ctx, namespace, name, secret.UID, secret.ResourceVersion); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete secret %s/%s: %w", namespace, name, err)
	}
	return nil
}
