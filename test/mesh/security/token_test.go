package security

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// stolenClient returns a client with nothing but the token of a service account.
func stolenClient(t testing.TB, namespace, account string) *kubernetes.Clientset {
	t.Helper()
	token, err := env.CreateToken(t.Context(), namespace, account)
	require.NoError(t, err)
	return clientForToken(t, token)
}

func clientForToken(t testing.TB, token string) *kubernetes.Clientset {
	t.Helper()
	kube, err := kubernetes.NewForConfig(env.ConfigForToken(token))
	require.NoError(t, err)
	return kube
}

// expectForbidden returns nil when the API server forbade the request.
func expectForbidden(err error) error {
	switch {
	case err == nil:
		return errors.New("it was allowed")
	case apierrors.IsForbidden(err):
		return nil
	}
	return err
}

// attempt is a request of an attacker.
type attempt func(context.Context, *kubernetes.Clientset) error

func expectAllForbidden(t *testing.T, client *kubernetes.Clientset, attempts map[string]attempt) {
	t.Helper()
	for name, try := range attempts {
		t.Run(name, func(t *testing.T) { assert.NoError(t, expectForbidden(try(t.Context(), client))) })
	}
}

// permissions lists what the API server allows the client in a namespace, beyond what every
// account may do, as "verbs resource names".
func permissions(t testing.TB, client *kubernetes.Clientset, namespace string) []string {
	t.Helper()
	review, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(),
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.False(t, review.Status.Incomplete, review.Status.EvaluationError)
	var all []string
	for _, r := range review.Status.ResourceRules {
		if strings.HasPrefix(strings.Join(r.Resources, ","), "selfsubject") {
			continue
		}
		slices.Sort(r.Verbs)
		all = append(all, strings.TrimSpace(strings.Join(r.Verbs, ",")+" "+strings.Join(r.Resources, ",")+" "+strings.Join(r.ResourceNames, ",")))
	}
	for _, r := range review.Status.NonResourceRules {
		for _, url := range r.NonResourceURLs {
			if !slices.Contains(publicURLs, url) {
				all = append(all, strings.Join(r.Verbs, ",")+" "+url)
			}
		}
	}
	return all
}

// publicURLs are the URLs that system:discovery, system:public-info-viewer and
// system:service-account-issuer-discovery allow for everyone.
var publicURLs = []string{"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/", "/readyz", "/version", "/version/"}

// awaitSecret waits until the controller has published istio-certs.
func awaitSecret(t testing.TB, namespace string) *corev1.Secret {
	t.Helper()
	var found *corev1.Secret
	require.Eventually(t, func() bool {
		var err error
		found, err = env.Kube.CoreV1().Secrets(namespace).Get(t.Context(), "istio-certs", metav1.GetOptions{})
		return err == nil
	}, timeout, pollInterval, "secret %s/istio-certs", namespace)
	return found
}

// TestStolenEdgeToken tries the edge's token for the API server, which an attacker in an
// edge has if it is mounted.
func TestStolenEdgeToken(t *testing.T) {
	sharedServers(t)
	ns := env.CreateNamespace(t, nil, "edge")
	env.CreateEdge(t, ns, "front", "edge")
	awaitSecret(t, ns)
	edge := stolenClient(t, ns, "edge")
	assert.Empty(t, permissions(t, edge, ns), "nothing but what every account may")
	expectAllForbidden(t, edge, map[string]attempt{
		"read its own Secret":       readSecret(ns, "istio-certs"),
		"list Secrets":              listSecrets(ns),
		"create a token for itself": createToken(ns, "edge", nil, "istio-ca"),
		"opt its own namespace out": patchNamespace(ns, `{"metadata":{"labels":{"isthmus.dev/injection":null}}}`),
		"read its namespace": func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
			return err
		},
		"create a pod":               createPod(ns),
		"read the webhook's address": readConfiguration,
	})
}

// TestStolenPublisherToken checks that the edge's account has a RoleBinding where its pod
// runs the publisher. The account may then write that one Secret, whose key it holds anyway.
func TestStolenPublisherToken(t *testing.T) {
	sharedServers(t)
	ns := env.CreateNamespace(t, map[string]string{"isthmus.dev/source": "agent"}, "edge")
	other := env.CreateNamespace(t, nil, "edge")
	env.CreateEdge(t, other, "front", "edge")
	awaitSecret(t, other)
	env.CreateEdge(t, ns, "front", "edge")
	edge := stolenClient(t, ns, "edge")
	require.Eventually(t, func() bool { return len(permissions(t, edge, ns)) > 0 }, timeout, pollInterval, "the controller binds it")
	assert.Equal(t, []string{"create,get,patch,watch secrets istio-certs"}, permissions(t, edge, ns))
	assert.Empty(t, permissions(t, edge, other), "and in its own namespace alone")
	assert.NoError(t, applySecret(ns, "kubernetes.io/tls", map[string]string{"isthmus.dev/source": "agent"})(t.Context(), edge), "what a publisher does")
	expectAllForbidden(t, edge, map[string]attempt{
		"list Secrets":                listSecrets(ns),
		"read the roots' Secret":      readSecret(ns, "istio-certs-roots"),
		"read the neighbour's Secret": readSecret(other, "istio-certs"),
		"delete its Secret": func(ctx context.Context, k *kubernetes.Clientset) error {
			return k.CoreV1().Secrets(ns).Delete(ctx, "istio-certs", metav1.DeleteOptions{})
		},
		"create a Secret by POST": func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "istio-certs"}}, metav1.CreateOptions{})
			return err
		},
		"mint a token through its Secret":  mintToken(ns, "default"),
		"write another type":               applySecret(ns, "Opaque", nil),
		"bind its role to another account": createBinding(ns, "mine", "isthmus-publisher"),
		"create a token for itself":        createToken(ns, "edge", nil, "istio-ca"),
	})
}

// applySecret applies istio-certs as publishers do, with this type and these annotations.
func applySecret(namespace, secretType string, annotations map[string]string) attempt {
	return func(ctx context.Context, k *kubernetes.Clientset) error {
		secret := corev1apply.Secret("istio-certs", namespace).WithType(corev1.SecretType(secretType)).
			WithLabels(map[string]string{"app.kubernetes.io/managed-by": "isthmus"}).WithAnnotations(annotations)
		if secretType == string(corev1.SecretTypeTLS) {
			secret.WithData(map[string][]byte{"tls.crt": nil, "tls.key": nil})
		}
		_, err := k.CoreV1().Secrets(namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: "isthmus", Force: true, DryRun: dryRun})
		return err
	}
}

// mintToken creates a Secret that Kubernetes fills in with a token of the account.
func mintToken(namespace, account string) attempt {
	return applySecret(namespace, string(corev1.SecretTypeServiceAccountToken), map[string]string{corev1.ServiceAccountNameKey: account})
}

func readSecret(namespace, name string) attempt {
	return func(ctx context.Context, k *kubernetes.Clientset) error {
		_, err := k.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	}
}

func listSecrets(namespace string) attempt {
	return func(ctx context.Context, k *kubernetes.Clientset) error {
		_, err := k.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{})
		return err
	}
}

func patchNamespace(name, patch string) attempt {
	return func(ctx context.Context, k *kubernetes.Clientset) error {
		_, err := k.CoreV1().Namespaces().Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: []string{"All"}})
		return err
	}
}

func createPod(namespace string) attempt {
	return func(ctx context.Context, k *kubernetes.Clientset) error {
		_, err := k.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}}},
		}, metav1.CreateOptions{DryRun: []string{"All"}})
		return err
	}
}

func readConfiguration(ctx context.Context, k *kubernetes.Clientset) error {
	_, err := k.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, "isthmus-injector", metav1.GetOptions{})
	return err
}

// createToken requests a token that is valid for ten minutes, bound to an object or to none.
func createToken(namespace, account string, bound *authenticationv1.BoundObjectReference, audiences ...string) attempt {
	return func(ctx context.Context, k *kubernetes.Clientset) error {
		_, err := k.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences: audiences, ExpirationSeconds: ptr.To[int64](600), BoundObjectRef: bound,
		}}, metav1.CreateOptions{})
		return err
	}
}
