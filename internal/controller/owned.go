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

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// ownedKind is a kind of object that the controller manages: at most one in a
// namespace, always with the same name.
type ownedKind struct {
	schema.GroupVersionResource
	kind, name string
	// optional is true for a kind that may not exist in the cluster.
	optional bool
}

var publisherBinding = ownedKind{
	GroupVersionResource: schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	kind:                 "RoleBinding", name: PublisherRole,
}

func (k ownedKind) String() string { return k.kind + " " + k.name }

// reference returns the object as the object of an Event.
func (k ownedKind) reference(namespace string) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: k.GroupVersion().String(), Kind: k.kind, Namespace: namespace, Name: k.name}
}

// reconcileObject observes an object, decides and acts. Nil fields mean that the
// object should not exist.
func (r *reconciler) reconcileObject(ctx context.Context, s *namespaceState, k ownedKind, fields map[string]any) error {
	o := ownedObservation{rescanned: s.rescanned}
	if fields != nil {
		wanted, err := json.Marshal(fields)
		if err != nil {
			return err
		}
		o.wanted = string(wanted)
	}
	o.applied, o.isKnown = s.applied[k.name]
	for {
		switch action := decideOwned(o); action {
		case ownedKeep:
			return nil
		case ownedObserve:
			current, err := r.Dynamic.Resource(k.GroupVersionResource).Namespace(s.name).Get(ctx, k.name, metav1.GetOptions{})
			if o.current, err = ownershipOf(current, err); err != nil {
				return fmt.Errorf("read %s in namespace %s: %w", k, s.name, err)
			}
		case ownedReport:
			s.events.Record(events.Warning(k.reference(s.name), EventConflict, fmt.Sprintf(
				"%s is not managed by Isthmus (it has no label %s=%s) and is left as it is; delete it, or do not request it", k, policy.ManagedByLabel, policy.ManagedBy)))
			return nil
		case ownedApply:
			if err := r.applyOwned(ctx, s, k, fields, inject.ObjectLabels(nil)); err != nil {
				return err
			}
			s.applied[k.name] = o.wanted
			return nil
		case ownedDelete:
			if err := r.deleteOwned(ctx, s.name, k); err != nil {
				return err
			}
			s.applied[k.name] = ""
			return nil
		case ownedForget:
			s.applied[k.name] = ""
			return nil
		default:
			return fmt.Errorf("%s in namespace %s: unexpected action %q", k, s.name, action)
		}
	}
}

// applyOwned applies an object with these labels. When the cluster has no such kind an Event says so.
func (r *reconciler) applyOwned(ctx context.Context, s *namespaceState, k ownedKind, fields map[string]any, labels map[string]string) error {
	o := &unstructured.Unstructured{Object: fields}
	o.SetGroupVersionKind(k.GroupVersion().WithKind(k.kind))
	o.SetNamespace(s.name)
	o.SetName(k.name)
	o.SetLabels(labels)
	_, err := r.Dynamic.Resource(k.GroupVersionResource).Namespace(s.name).Apply(ctx, k.name, o, metav1.ApplyOptions{FieldManager: publish.FieldManager, Force: true})
	switch {
	case apierrors.IsNotFound(err) && k.optional:
		r.contexts.remove(s.name, k.name) // no watch announces that it was not written
		s.events.Record(events.Warning(k.reference(s.name), EventFailed,
			fmt.Sprintf("%s was requested, but this cluster has no %s", k, k.GroupResource())))
	case err != nil:
		return fmt.Errorf("apply %s in namespace %s: %w", k, s.name, err)
	}
	return nil
}

// deleteOwned deletes an object that Isthmus manages.
func (r *reconciler) deleteOwned(ctx context.Context, namespace string, k ownedKind) error {
	api := r.Dynamic.Resource(k.GroupVersionResource).Namespace(namespace)
	current, err := api.Get(ctx, k.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read %s in namespace %s: %w", k, namespace, err)
	case !policy.IsManaged(current):
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

// deleteSecret deletes a Secret that Isthmus manages.
func (r *reconciler) deleteSecret(ctx context.Context, namespace, name string) error {
	_, err := r.deleteSecretOf(ctx, namespace, name)
	return err
}

// deleteSecretOf deletes a Secret that Isthmus manages, and returns the source of its
// certificate. That is empty when there is no such Secret.
func (r *reconciler) deleteSecretOf(ctx context.Context, namespace, name string) (policy.Source, error) {
	secret, err := r.Secrets.Get(ctx, namespace, name)
	switch {
	case apierrors.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read secret %s/%s: %w", namespace, name, err)
	case !policy.IsManaged(secret):
		return "", nil
	}
	if err := r.Secrets.Delete(ctx, namespace, name, secret.UID, secret.ResourceVersion); err != nil && !apierrors.IsNotFound(err) {
		return "", fmt.Errorf("delete secret %s/%s: %w", namespace, name, err)
	}
	return policy.Source(secret.Annotations[policy.SourceKey]), nil
}
