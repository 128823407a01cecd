package serving

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// The kinds of configuration, as errors name them.
const (
	mutating   = "mutatingwebhookconfiguration"
	validating = "validatingwebhookconfiguration"
)

// configuration is one webhook configuration of the API server's, of either kind.
// Mutating ones send pods to the admission server, and must be there; validating
// ones send what makes pods, and whoever does without may delete theirs.
type configuration struct {
	kind, name string
	get        func(ctx context.Context, name string, o metav1.GetOptions) (view, error)
	open       func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
	patch      func(ctx context.Context, name string, patch []byte) (metav1.Object, error)
}

func mutatingConfiguration(client kubernetes.Interface, name string) configuration {
	all := client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	return configuration{
		kind: mutating, name: name, open: all.Watch,
		get: func(ctx context.Context, name string, o metav1.GetOptions) (view, error) {
			found, err := all.Get(ctx, name, o)
			if err != nil {
				return view{}, err
			}
			return viewOf(found), nil
		},
		patch: func(ctx context.Context, name string, patch []byte) (metav1.Object, error) {
			return all.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
		},
	}
}

func validatingConfiguration(client kubernetes.Interface, name string) configuration {
	all := client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	return configuration{
		kind: validating, name: name, open: all.Watch,
		get: func(ctx context.Context, name string, o metav1.GetOptions) (view, error) {
			found, err := all.Get(ctx, name, o)
			if err != nil {
				return view{}, err
			}
			return validatingViewOf(found), nil
		},
		patch: func(ctx context.Context, name string, patch []byte) (metav1.Object, error) {
			return all.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
		},
	}
}

// read is what the configuration tells now, also that it is not there.
func (c configuration) read(ctx context.Context) (view, error) {
	v, err := c.get(ctx, c.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return view{kind: c.kind, name: c.name}, nil
	case err != nil:
		return view{}, fmt.Errorf("read %s %q: %w", c.kind, c.name, err)
	}
	return v, nil
}

func viewOf(found *admissionregistrationv1.MutatingWebhookConfiguration) view {
	v := view{found: true, kind: mutating, name: found.Name, resourceVersion: found.ResourceVersion}
	for _, webhook := range found.Webhooks {
		v.add(webhook.Name, webhook.ClientConfig.CABundle)
	}
	return v
}

func validatingViewOf(found *admissionregistrationv1.ValidatingWebhookConfiguration) view {
	v := view{found: true, kind: validating, name: found.Name, resourceVersion: found.ResourceVersion}
	for _, webhook := range found.Webhooks {
		v.add(webhook.Name, webhook.ClientConfig.CABundle)
	}
	return v
}
