package admission

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// Names of the chart's objects, and namespaces that the tests choose.
const (
	releaseNamespace  = "isthmus-system"
	istioNamespace    = "istio-system"
	excludedNamespace = "isthmus-test-excluded"
	configurationName = "isthmus-injector"
	caSecretName      = "isthmus-webhook-ca"
	webhookName       = "isthmus-webhook"
	controllerName    = "isthmus-controller"
	settingsName      = "isthmus-settings"
)

// renderChart renders the chart as `helm install` would with these flags, without the
// hooks of `helm test`.
func renderChart(ctx context.Context, folder string, flags ...string) ([]*unstructured.Unstructured, error) {
	helm := os.Getenv("HELM")
	if helm == "" {
		var err error
		if helm, err = controlplane.Tool(ctx, "helm"); err != nil {
			return nil, err
		}
	}
	values := filepath.Join(folder, "values.yaml")
	if err := os.WriteFile(values, []byte("webhook: {excludedNamespaces: ["+excludedNamespace+"]}\n"), 0o600); err != nil {
		return nil, err
	}
	arguments := []string{"template", "isthmus", "../../../charts/isthmus", "--no-hooks",
		"--namespace", releaseNamespace, "--values", values, "--kube-version", "1.36.0"}
	rendered, err := output(ctx, helm, append(arguments, flags...)...)
	if err != nil {
		return nil, err
	}
	var list []*unstructured.Unstructured
	for document := range strings.SplitSeq(rendered, "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			return nil, fmt.Errorf("parse what Helm rendered: %w\n%s", err, document)
		}
		if len(object.Object) > 0 {
			list = append(list, object)
		}
	}
	return list, nil
}

// install creates the chart's objects. The Deployments are created too, so that the API
// server validates them, but without replicas: there is no image, the tests run the
// program as a process.
func (e *environment) install(ctx context.Context) error {
	var list []*unstructured.Unstructured
	for _, name := range []string{releaseNamespace, istioNamespace, excludedNamespace} {
		namespace := &unstructured.Unstructured{}
		namespace.SetAPIVersion("v1")
		namespace.SetKind("Namespace")
		namespace.SetName(name)
		list = append(list, namespace)
	}
	for _, rendered := range e.chart {
		object := rendered.DeepCopy()
		if err := e.redirect(object); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		list = append(list, object)
	}
	for _, object := range list {
		err := e.objectClient.Create(ctx, object)
		if apierrors.IsAlreadyExists(err) && object.GetKind() == "Namespace" {
			continue // it existed before the test, so uninstall must not delete it
		}
		if err != nil {
			return fmt.Errorf("create %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		e.installed = append(e.installed, object)
	}
	return nil
}

// redirect changes the webhook configurations so that the API server calls this machine.
func (e *environment) redirect(object *unstructured.Unstructured) error {
	switch object.GetKind() {
	case "Deployment":
		return unstructured.SetNestedField(object.Object, int64(0), "spec", "replicas")
	case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
		webhooks, _, err := unstructured.NestedSlice(object.Object, "webhooks")
		if err != nil {
			return err
		}
		for i := range webhooks {
			webhook, ok := webhooks[i].(map[string]any)
			if !ok {
				return fmt.Errorf("webhooks[%d] is a %T", i, webhooks[i])
			}
			path, _, err := unstructured.NestedString(webhook, "clientConfig", "service", "path")
			if err != nil {
				return err
			}
			webhook["clientConfig"] = map[string]any{"url": e.service.url(path)}
		}
		return unstructured.SetNestedSlice(object.Object, webhooks, "webhooks")
	}
	return nil
}

// uninstall deletes the objects that install created, in reverse order. It does not wait
// for the deletion of namespaces.
func (e *environment) uninstall(ctx context.Context) error {
	var errs []error
	for _, object := range slices.Backward(e.installed) {
		err := e.objectClient.Delete(ctx, object)
		errs = append(errs, client.IgnoreNotFound(err))
	}
	e.installed = nil
	return errors.Join(errs...)
}

// rendered returns the chart's object of this kind and name as its Go type.
func rendered[T any](e *environment, kind, name string) (*T, error) {
	for _, object := range e.chart {
		if object.GetKind() == kind && object.GetName() == name {
			typed := new(T)
			return typed, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, typed)
		}
	}
	return nil, fmt.Errorf("the chart renders no %s %s", kind, name)
}

// arguments returns the arguments of one of the chart's Deployments. It writes the files of
// the Deployment's volume.
func (e *environment) arguments(name string) ([]string, error) {
	deployment, err := rendered[appsv1.Deployment](e, "Deployment", name)
	if err != nil {
		return nil, err
	}
	settings, err := rendered[corev1.ConfigMap](e, "ConfigMap", settingsName)
	if err != nil {
		return nil, err
	}
	const mounted = "/etc/isthmus/"
	replace := []string{"$(POD_NAMESPACE)", releaseNamespace}
	for name, text := range settings.Data {
		path := filepath.Join(e.folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
		replace = append(replace, mounted+name, path)
	}
	var arguments []string
	for _, argument := range deployment.Spec.Template.Spec.Containers[0].Args {
		arguments = append(arguments, strings.NewReplacer(replace...).Replace(argument))
	}
	return arguments, nil
}

// awaitValidation waits until a namespace with an invalid label is refused. Until the API
// server observes the caBundle, it admits everything.
func (e *environment) awaitValidation(ctx context.Context) error {
	return await(ctx, func(ctx context.Context) error {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "isthmus-test-", Labels: map[string]string{"isthmus.dev/injection": "wrong"}}}
		_, err := e.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if apierrors.IsForbidden(err) {
			return nil
		}
		return fmt.Errorf("a namespace with a wrong label was not refused: %w", err)
	})
}

// awaitInjection waits until a pod that is opted in is injected.
func (e *environment) awaitInjection(ctx context.Context) (err error) {
	name, remove, err := e.createNamespace(ctx, enabled)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(context.WithoutCancel(ctx))) }()
	return await(ctx, func(ctx context.Context) error {
		pod, err := e.client.CoreV1().Pods(name).Create(ctx, edgePod("edge"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && !isInjected(pod) {
			err = errors.New("the pod has no sidecar")
		}
		return err
	})
}
