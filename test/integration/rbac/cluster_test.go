// Package rbac tests on a real API server which permissions each service account of the
// chart has and which it does not have: by SubjectAccessReviews, and by requests with a
// stolen token of the controller. It also compares the permissions with the tables of
// docs/security.md.
package rbac

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/helmchart"
)

const (
	releaseNamespace = "rbac-isthmus"
	istioNamespace   = "rbac-istio"
	controllerName   = "isthmus-controller"
	webhookName      = "isthmus-webhook"
	publisherName    = "isthmus-publisher"
)

// admin is the administrator's client configuration. TestMain sets it.
var admin *rest.Config

// The kube-controller-manager runs the controller that fills in Secrets with tokens.
func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // the tests' certificates are none
	os.Exit(controlplane.Main(m, func(config *rest.Config) { admin = config }, "--controller-manager"))
}

// render renders the chart with values as YAML.
func render(t *testing.T, values string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := helmchart.Render(t.Context(), "rbac", releaseNamespace, values, "istio.namespace="+istioNamespace)
	require.NoError(t, err)
	return objects
}

// cluster is an API server with the chart installed.
type cluster struct {
	t     *testing.T
	admin kubernetes.Interface
}

// install creates the chart's objects until the test ends. No node runs their pods.
func install(t *testing.T, values string) *cluster {
	t.Helper()
	objectClient, err := client.New(admin, client.Options{})
	require.NoError(t, err)
	kube, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	c := &cluster{t: t, admin: kube}
	c.namespace(releaseNamespace, nil)
	c.namespace(istioNamespace, nil)
	for _, object := range render(t, values) {
		require.NoError(t, objectClient.Create(t.Context(), object), "%s %s", object.GetKind(), object.GetName())
		t.Cleanup(func() {
			if err := client.IgnoreNotFound(objectClient.Delete(context.Background(), object)); err != nil {
				t.Errorf("remove %s %s: %v", object.GetKind(), object.GetName(), err)
			}
		})
	}
	return c
}

// namespace creates a namespace with a service account "edge". It is not deleted, so the
// next test uses it again.
func (c *cluster) namespace(name string, labels map[string]string) {
	c.t.Helper()
	ctx := c.t.Context()
	_, err := c.admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		require.NoError(c.t, err)
	}
	_, err = c.admin.CoreV1().ServiceAccounts(name).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		require.NoError(c.t, err)
	}
}

// clientFor returns a client with only the token of a service account, as an attacker
// would have it.
func (c *cluster) clientFor(namespace, name string) *kubernetes.Clientset {
	c.t.Helper()
	kube, err := kubernetes.NewForConfig(c.configFor(namespace, name))
	require.NoError(c.t, err)
	return kube
}

// dynamicFor is clientFor for kinds that the program does not know.
func (c *cluster) dynamicFor(namespace, name string) dynamic.Interface {
	c.t.Helper()
	client, err := dynamic.NewForConfig(c.configFor(namespace, name))
	require.NoError(c.t, err)
	return client
}

func (c *cluster) configFor(namespace, name string) *rest.Config {
	c.t.Helper()
	seconds := int64(3600)
	token, err := c.admin.CoreV1().ServiceAccounts(namespace).CreateToken(c.t.Context(), name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken = token.Status.Token
	config.QPS = -1
	return config
}

// userName is the user name of a service account in RBAC.
func userName(namespace, name string) string {
	return fmt.Sprintf("system:serviceaccount:%s:%s", namespace, name)
}

// checkForbidden returns nil if err is the API server's refusal.
func checkForbidden(err error) error {
	switch {
	case err == nil:
		return errors.New("it was allowed")
	case apierrors.IsForbidden(err):
		return nil
	}
	return err
}

// userOf returns the user whom the API server takes the bearer of a token for.
func userOf(ctx context.Context, token string) (string, error) {
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken = token
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", err
	}
	review, err := kube.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return review.Status.UserInfo.Username, nil
}
