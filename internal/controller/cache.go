package controller

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// CacheOptions returns the options of the cache of the manager that Add is called
// with: only opted-in namespaces and injected pods that have not ended are watched, and only a little of
// their metadata is cached.
// If namespaces are given, only their pods are watched.
func CacheOptions(namespaces ...string) (cache.Options, error) {
	injected, err := injectedSelection()
	if err != nil {
		return cache.Options{}, err
	}
	// The controller reads the labels and annotations of a pod from the API server.
	injected.Transform = stripMetadata(nil)
	for _, namespace := range namespaces {
		if injected.Namespaces == nil {
			injected.Namespaces = map[string]cache.Config{}
		}
		injected.Namespaces[namespace] = cache.Config{}
	}
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Namespace{}: {
			Label:     labels.SelectorFromSet(labels.Set{policy.InjectionLabel: policy.InjectionEnabled}),
			Transform: stripMetadata(sets.New(policy.IstioRevisionLabel, policy.IstioDataplaneLabel)),
		},
		&corev1.Pod{}: injected,
	}}, nil
}

// injectedSelection selects the injected pods that have not ended. Evicted and finished
// pods count as gone: a watch delivers their end as a deletion.
func injectedSelection() (cache.ByObject, error) {
	injected, err := labels.NewRequirement(policy.InjectedLabel, selection.Exists, nil)
	if err != nil {
		return cache.ByObject{}, fmt.Errorf("selector of injected pods: %w", err)
	}
	return cache.ByObject{
		Label: labels.NewSelector().Add(*injected),
		Field: fields.AndSelectors(
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		),
	}, nil
}

// stripMetadata returns a transformation that reduces an object to identity and
// revision and, unless others is nil, to the labels and annotations of Isthmus and
// those among others.
func stripMetadata(others sets.Set[string]) func(any) (any, error) {
	return func(in any) (any, error) {
		o, ok := in.(*metav1.PartialObjectMetadata)
		if !ok {
			return in, nil // a tombstone
		}
		o.ManagedFields, o.OwnerReferences, o.Finalizers, o.GenerateName = nil, nil, nil, ""
		o.Annotations, o.Labels = selectKeys(o.Annotations, others), selectKeys(o.Labels, others)
		return o, nil
	}
}

// selectKeys makes a new map of the keys to cache: a map that keys are deleted from
// stays as large as it was.
func selectKeys(all map[string]string, others sets.Set[string]) map[string]string {
	if others == nil {
		return nil
	}
	var selected map[string]string
	for key, value := range all {
		if strings.HasPrefix(key, policy.Domain) || others.Has(key) || key == policy.OpenShiftUIDRangeKey {
			if selected == nil {
				selected = map[string]string{}
			}
			selected[key] = value
		}
	}
	return selected
}
