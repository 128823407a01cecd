package publish

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// Client reads, applies and deletes the Secrets of a cluster. It knows no other
// kind: client-go's clientset needs more memory than the in-pod publisher has.
type Client struct{ rest *rest.RESTClient }

// NewClient returns a client. It uses the rate limit and the timeout of the
// configuration.
func NewClient(config *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Secret{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)

	config = rest.CopyConfig(config)
	config.APIPath = "/api"
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentConfig.ContentType = runtime.ContentTypeJSON
	config.ContentConfig.AcceptContentTypes = runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("create client: %w", err)
	}
	return &Client{rest: client}, nil
}

// Get implements Secrets.
func (c *Client) Get(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	if err := c.rest.Get().Namespace(namespace).Resource("secrets").Name(name).Do(ctx).Into(secret); err != nil {
		return nil, err
	}
	return secret, nil
}

// Watch delivers the changes of a Secret from now on, the Secret itself first if there is
// one. A client with a timeout ends the watch after that time.
func (c *Client) Watch(ctx context.Context, namespace, name string) (watch.Interface, error) {
	return c.rest.Get().Namespace(namespace).Resource("secrets").
		VersionedParams(&metav1.ListOptions{Watch: true, FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}, metav1.ParameterCodec).
		Watch(ctx)
}

// Apply implements Secrets.
func (c *Client) Apply(ctx context.Context, secret *corev1.Secret, force bool) (*corev1.Secret, error) {
	typed := *secret
	typed.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"} // which Get leaves empty
	body, err := json.Marshal(&typed)
	if err != nil {
		return nil, err
	}
	applied := &corev1.Secret{}
	err = c.rest.Patch(types.ApplyPatchType).Namespace(secret.Namespace).Resource("secrets").Name(secret.Name).
		VersionedParams(&metav1.PatchOptions{FieldManager: FieldManager, Force: &force}, metav1.ParameterCodec).
		Body(body).Do(ctx).Into(applied)
	if err != nil {
		return nil, err
	}
	return applied, nil
}

// Annotate writes one annotation of a Secret that was read, and nothing else. It fails
// with a conflict when the Secret has changed since. It is no apply: an apply of the
// annotation alone would remove what the same field manager has applied before.
func (c *Client) Annotate(ctx context.Context, secret *corev1.Secret, key, value string) (*corev1.Secret, error) {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": secret.ResourceVersion, "annotations": map[string]any{key: value},
	}})
	if err != nil {
		return nil, err
	}
	annotated := &corev1.Secret{}
	err = c.rest.Patch(types.MergePatchType).Namespace(secret.Namespace).Resource("secrets").Name(secret.Name).
		VersionedParams(&metav1.PatchOptions{FieldManager: FieldManager}, metav1.ParameterCodec).
		Body(body).Do(ctx).Into(annotated)
	if err != nil {
		return nil, err
	}
	return annotated, nil
}

// Delete deletes the Secret that has this UID and resourceVersion. It fails with
// a conflict when the Secret has another UID or has changed since.
func (c *Client) Delete(ctx context.Context, namespace, name string, uid types.UID, resourceVersion string) error {
	return c.rest.Delete().Namespace(namespace).Resource("secrets").Name(name).
		Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &resourceVersion}}).
		Do(ctx).Error()
}
