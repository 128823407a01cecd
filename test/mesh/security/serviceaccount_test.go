package security

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
)

// pollInterval is the time between two checks of an awaited condition.
const pollInterval = 50 * time.Millisecond

var dryRun = []string{"All"}

// TestStolenControllerToken tries what test/integration/rbac does not: with the real token,
// on a control plane where everything runs.
func TestStolenControllerToken(t *testing.T) {
	sharedServers(t)
	ns := env.CreateNamespace(t, nil, "edge", "other")
	pod := env.CreateEdge(t, ns, "front", "edge")
	awaitSecret(t, ns)
	withoutSecret := env.CreateNamespace(t, nil, "other")
	controller := stolenClient(t, environment.Namespace, "isthmus-controller")
	_, err := env.Kube.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "target"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	toPod := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}

	t.Run("it gets tokens for the CA, for every account of an opted-in namespace", func(t *testing.T) {
		for _, account := range []string{"edge", "other"} {
			assert.NoError(t, createToken(ns, account, nil, "istio-ca")(t.Context(), controller))
		}
	})
	t.Run("it reads the Secrets of edges", func(t *testing.T) {
		assert.NoError(t, readSecret(ns, "istio-certs")(t.Context(), controller))
	})
	patchConfiguration := func(patch string) attempt {
		return func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(ctx, "isthmus-injector", types.JSONPatchType, []byte(patch), metav1.PatchOptions{DryRun: dryRun})
			return err
		}
	}
	t.Run("it replaces the caBundle, where the certificate is self-managed", func(t *testing.T) {
		assert.NoError(t, patchConfiguration(`[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"LS0tLS0="}]`)(t.Context(), controller))
	})
	expectAllForbidden(t, controller, map[string]attempt{
		"a token for the API server, bound to a pod": createToken(ns, "edge", toPod, "https://kubernetes.default.svc"),
		"a token for the default, bound to a pod":    createToken(ns, "edge", toPod),
		"a token of the controller itself":           createToken(environment.Namespace, "isthmus-controller", nil),
		"a token of the controller for the CA":       createToken(environment.Namespace, "isthmus-controller", nil, "istio-ca"),
		"a token in another namespace":               createToken("default", "target", nil, "istio-ca"),
		"list Secrets":                               listSecrets(ns),
		"list Secrets of all":                        listSecrets(""),
		"read the mesh's CA":                         readSecret("istio-system", "istio-ca-secret"),
		"read the roots of the cluster":              readSecret("kube-system", "bootstrap-token"),
		"create a pod":                               createPod(ns),
		"create a pod beside itself":                 createPod(environment.Namespace),
		"exec into a pod": func(ctx context.Context, k *kubernetes.Clientset) error {
			return k.CoreV1().RESTClient().Post().Namespace(ns).Resource("pods").Name("front").SubResource("exec").
				Param("command", "cat").Param("container", "ambassador").Do(ctx).Error()
		},
		"read a pod's log": func(ctx context.Context, k *kubernetes.Clientset) error {
			return k.CoreV1().RESTClient().Get().Namespace(ns).Resource("pods").Name("front").SubResource("log").Do(ctx).Error()
		},
		"label a namespace":    patchNamespace("default", `{"metadata":{"labels":{"isthmus.dev/injection":"enabled"}}}`),
		"bind a role":          createBinding(ns, "mine", "isthmus-publisher"),
		"bind the role of all": createBinding(ns, "isthmus-publisher", "cluster-admin"),
		"bind for the cluster": func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "mine"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
			}, metav1.CreateOptions{DryRun: dryRun})
			return err
		},
		"extend its own role": func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.RbacV1().ClusterRoles().Patch(ctx, "isthmus-controller", types.JSONPatchType,
				[]byte(`[{"op":"add","path":"/rules/-","value":{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}}]`), metav1.PatchOptions{DryRun: dryRun})
			return err
		},
		"impersonate another user": func(ctx context.Context, _ *kubernetes.Clientset) error {
			token, err := env.CreateToken(ctx, environment.Namespace, "isthmus-controller")
			if err != nil {
				return err
			}
			config := env.ConfigForToken(token)
			config.Impersonate.UserName = "kubernetes-admin"
			k, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			return listSecrets("")(ctx, k)
		},
		"extend the webhook configuration":   patchConfiguration(`[{"op":"replace","path":"/webhooks/0/rules/0/resources","value":["*"]}]`),
		"redirect the webhook configuration": patchConfiguration(`[{"op":"replace","path":"/webhooks/0/clientConfig","value":{"url":"https://thief.example"}}]`),
		"mint a token through a Secret":      mintToken(withoutSecret, "other"),
		"mint a token of the cluster":        mintToken("kube-system", "default"),
		"write a Secret elsewhere":           applySecret("default", "kubernetes.io/tls", nil),
		"patch another webhook configuration": func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(ctx, "istio-sidecar-injector", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{DryRun: dryRun})
			return err
		},
		"create a webhook configuration": func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx,
				&admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "mine"}}, metav1.CreateOptions{DryRun: dryRun})
			return err
		},
		"delete the webhook configuration": func(ctx context.Context, k *kubernetes.Clientset) error {
			return k.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, "isthmus-injector", metav1.DeleteOptions{DryRun: dryRun})
		},
		"delete the policy for Secrets": func(ctx context.Context, k *kubernetes.Clientset) error {
			return k.AdmissionregistrationV1().ValidatingAdmissionPolicies().Delete(ctx, "isthmus-secrets", metav1.DeleteOptions{DryRun: dryRun})
		},
		"delete the policy": func(ctx context.Context, k *kubernetes.Clientset) error {
			return k.AdmissionregistrationV1().ValidatingAdmissionPolicies().Delete(ctx, "isthmus-controller-tokens", metav1.DeleteOptions{DryRun: dryRun})
		},
		"weaken the policy": func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.AdmissionregistrationV1().ValidatingAdmissionPolicies().Patch(ctx, "isthmus-controller-tokens", types.MergePatchType, []byte(`{"spec":{"failurePolicy":"Ignore"}}`), metav1.PatchOptions{DryRun: dryRun})
			return err
		},
		"unbind the policy": func(ctx context.Context, k *kubernetes.Clientset) error {
			return k.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(ctx, "isthmus-controller-tokens", metav1.DeleteOptions{DryRun: dryRun})
		},
		"make the policy warn only": func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Patch(ctx, "isthmus-controller-tokens", types.MergePatchType, []byte(`{"spec":{"validationActions":["Warn"]}}`), metav1.PatchOptions{DryRun: dryRun})
			return err
		},
	})
}

// TestStolenWebhookToken checks that the webhook's account reads, and writes nothing.
func TestStolenWebhookToken(t *testing.T) {
	sharedServers(t)
	ns := env.CreateNamespace(t, nil, "edge")
	env.CreateEdge(t, ns, "front", "edge")
	awaitSecret(t, ns)
	webhook := stolenClient(t, environment.Namespace, "isthmus-webhook")
	t.Run("it reads the CA of its own certificate, with which it can impersonate the webhook only", func(t *testing.T) {
		assert.NoError(t, readSecret(environment.Namespace, "isthmus-webhook-ca")(t.Context(), webhook))
	})
	for _, namespace := range []string{ns, environment.Namespace, "istio-system", "kube-system"} {
		for _, rule := range permissions(t, webhook, namespace) {
			for verb := range strings.SplitSeq(strings.Fields(rule)[0], ",") {
				assert.Contains(t, []string{"get", "list", "watch"}, verb, "%s in %s", rule, namespace)
			}
		}
	}
	expectAllForbidden(t, webhook, map[string]attempt{
		"read an edge's Secret":     readSecret(ns, "istio-certs"),
		"list Secrets":              listSecrets(environment.Namespace),
		"read the mesh's CA":        readSecret("istio-system", "istio-ca-secret"),
		"a token of an edge":        createToken(ns, "edge", nil, "istio-ca"),
		"create a pod":              createPod(ns),
		"label a namespace":         patchNamespace("default", `{"metadata":{"labels":{"isthmus.dev/injection":"enabled"}}}`),
		"bind the publisher's role": createBinding(ns, "isthmus-publisher", "isthmus-publisher"),
		"change its CA": func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.CoreV1().Secrets(environment.Namespace).Patch(ctx, "isthmus-webhook-ca", types.MergePatchType, []byte(`{"data":{}}`), metav1.PatchOptions{DryRun: dryRun})
			return err
		},
		"patch the webhook configuration": func(ctx context.Context, k *kubernetes.Clientset) error {
			_, err := k.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(ctx, "isthmus-injector", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{DryRun: dryRun})
			return err
		},
	})
}

func createBinding(namespace, name, role string) attempt {
	return func(ctx context.Context, k *kubernetes.Clientset) error {
		_, err := k.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "edge", Namespace: namespace}},
		}, metav1.CreateOptions{DryRun: dryRun})
		return err
	}
}

// TestWhoReadsTheKey checks every account, and the default roles of Kubernetes: an account
// that may read Secrets of the namespace may read this one. The controller manager, which
// does not run here, aggregates view and edit from these two roles.
func TestWhoReadsTheKey(t *testing.T) {
	sharedServers(t)
	ns := env.CreateNamespace(t, nil, "edge", "viewer", "editor", "neighbour")
	env.CreateEdge(t, ns, "front", "edge")
	awaitSecret(t, ns)
	for account, role := range map[string]string{"viewer": "system:aggregate-to-view", "editor": "system:aggregate-to-edit"} {
		_, err := env.Kube.RbacV1().RoleBindings(ns).Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: account}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: ns}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	for account, reads := range map[[2]string]bool{
		{ns, "edge"}: false, {ns, "neighbour"}: false, {ns, "default"}: false, {ns, "viewer"}: false,
		{ns, "editor"}: true,
		{environment.Namespace, "isthmus-controller"}: true, {environment.Namespace, "isthmus-webhook"}: false, {environment.Namespace, "default"}: false,
		{"istio-system", "default"}: false,
	} {
		for _, verb := range []string{"get", "list", "watch"} {
			assert.EventuallyWithT(t, func(c *assert.CollectT) {
				review, err := env.Kube.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
					User: "system:serviceaccount:" + account[0] + ":" + account[1], Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + account[0], "system:authenticated"},
					ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: ns, Verb: verb, Resource: "secrets", Name: "istio-certs"},
				}}, metav1.CreateOptions{})
				if assert.NoError(c, err) {
					assert.Equal(c, reads, review.Status.Allowed, "%v %s by name", account, verb)
				}
			}, timeout, pollInterval)
		}
	}
	t.Run("no role of the chart adds to the roles of Kubernetes", func(t *testing.T) {
		list, err := env.Kube.RbacV1().ClusterRoles().List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=isthmus"})
		require.NoError(t, err)
		require.NotEmpty(t, list.Items)
		text, err := json.Marshal(list)
		require.NoError(t, err)
		assert.NotContains(t, string(text), "rbac.authorization.k8s.io/aggregate-to")
	})
}
