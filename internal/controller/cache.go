package controller

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// CacheOptions are those of the manager that Add is called with: of all
// namespaces and pods only those that are ours are watched, and of them only a
// little metadata is kept.
func CacheOptions() (cache.Options, error) {
	injected, err := labels.NewRequirement(policy.InjectedLabel, selection.Exists, nil)
	if err != nil {
		return cache.Options{}, fmt.Errorf("selector of injected pods: %w", err)
	}
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Namespace{}: {
			Label:     labels.SelectorFromSet(labels.Set{policy.InjectionLabel: policy.InjectionEnabled}),
			Transform: keepOf(sets.New(policy.IstioRevisionLabel, policy.IstioDataplaneLabel)),
		},
		&corev1.Pod{}: {
			Label: labels.NewSelector().Add(*injected),
			// What a pod asks for is read from the pod itself.
			Transform: keepOf(nil),
		},
	}}, nil
}

// keepOf returns a transformation that keeps identity and revision of an object
// and, unless others is nil, the labels and annotations that are ours or among
// others.
func keepOf(others sets.Set[string]) func(any) (any, error) {
	return func(in any) (any, error) {
		o, ok := in.(*metav1.PartialObjectMetadata)
		if !ok {
			return in, nil // a tombstone
		}
		o.ManagedFields, o.OwnerReferences, o.Finalizers, o.GenerateName = nil, nil, nil, ""
		o.Annotations, o.Labels = only(o.Annotations, others), only(o.Labels, others)
		return o, nil
	}
}

// only makes a map of what is kept: one that things are deleted from stays as
// large as it was.
func only(all map[string]string, others sets.Set[string]) map[string]string {
	if others == nil {
		return nil
	}
	var kept map[string]string
	for key, value := range all {
		if strings.HasPrefix(key, policy.Domain) || others.Has(key) || key == policy.OpenShiftUIDRangeKey {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[key] = value
		}
	}
	return kept
}
