package serving

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// The kinds of configuration, as messages name them.
const (
	mutating   = "mutatingwebhookconfiguration"
	validating = "validatingwebhookconfiguration"
)

// configuration is the client of one webhook configuration of either kind. The
// mutating one sends pods to the admission server and must exist. The validating one
// sends workloads and namespaces, and may have been deleted.
type configuration struct {
	kind, name string
	get        func(ctx context.Context, name string, o metav1.GetOptions) (configurationView, error)
	watch      watchFunc
	patch      func(ctx context.Context, name string, patch []byte) (metav1.Object, error)
}

func mutatingConfiguration(client kubernetes.Interface, name string) configuration {
	configurations := client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	return configuration{
		kind: mutating, name: name, watch: configurations.Watch,
		get: func(ctx context.Context, name string, o metav1.GetOptions) (configurationView, error) {
			found, err := configurations.Get(ctx, name, o)
			if err != nil {
				return configurationView{}, err
			}
			return mutatingView(found), nil
		},
		patch: func(ctx context.Context, name string, patch []byte) (metav1.Object, error) {
			return configurations.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
		},
	}
}

func validatingConfiguration(client kubernetes.Interface, name string) configuration {
	configurations := client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	return configuration{
		kind: validating, name: name, watch: configurations.Watch,
		get: func(ctx context.Context, name string, o metav1.GetOptions) (configurationView, error) {
			found, err := configurations.Get(ctx, name, o)
			if err != nil {
				return configurationView{}, err
			}
			return validatingView(found), nil
		},
		patch: func(ctx context.Context, name string, patch []byte) (metav1.Object, error) {
			return configurations.Patch(ctx, name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
		},
	}
}

// read returns the view of the configuration, also of one that does not exist.
func (c configuration) read(ctx context.Context) (configurationView, error) {
	v, err := c.get(ctx, c.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return configurationView{kind: c.kind, name: c.name}, nil
	case err != nil:
		return configurationView{}, fmt.Errorf("read %s %q: %w", c.kind, c.name, err)
	}
	return v, nil
}

func mutatingView(found *admissionregistrationv1.MutatingWebhookConfiguration) configurationView {
	v := configurationView{found: true, kind: mutating, name: found.Name, resourceVersion: found.ResourceVersion}
	for _, webhook := range found.Webhooks {
		v.addWebhook(webhook.Name, webhook.ClientConfig)
	}
	return v
}

func validatingView(found *admissionregistrationv1.ValidatingWebhookConfiguration) configurationView {
	v := configurationView{found: true, kind: validating, name: found.Name, resourceVersion: found.ResourceVersion}
	for _, webhook := range found.Webhooks {
		v.addWebhook(webhook.Name, webhook.ClientConfig)
	}
	return v
}
