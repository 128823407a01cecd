package rbac

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	rbacv1apply "k8s.io/client-go/applyconfigurations/rbac/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// requestToken requests a token of the service account "edge".
func requestToken(ctx context.Context, client kubernetes.Interface, namespace string, seconds *int64, audiences ...string) (*authenticationv1.TokenRequest, error) {
	return client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "edge", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: seconds},
	}, metav1.CreateOptions{})
}

const (
	labelled   = "rbac-labelled"
	unlabelled = "rbac-unlabelled"
	locked     = "rbac-locked"
	excluded   = "rbac-excluded"
)

// An attacker with the controller's token gets no token that the controller does not need.
func TestAStolenControllerTokenGetsNoOtherToken(t *testing.T) {
	c := install(t, "webhook: {excludedNamespaces: ["+excluded+"]}")
	enabled := map[string]string{"isthmus.dev/injection": "enabled"}
	c.namespace(labelled, enabled)
	c.namespace(excluded, enabled)
	c.namespace(locked, map[string]string{"isthmus.dev/injection": "disabled"})
	c.namespace(unlabelled, map[string]string{"team": "edge"})
	c.namespace("rbac-bare", nil)
	attacker := c.clientFor(releaseNamespace, controllerName)
	tenMinutes := ptr.To[int64](600)

	// The API server observes the policy by a watch.
	require.EventuallyWithT(t, func(collect *assert.CollectT) {
		_, err := requestToken(t.Context(), attacker, labelled, tenMinutes, "vault")
		assert.Error(collect, err)
	}, 30*time.Second, 50*time.Millisecond)

	const wantAudience = "the controller may ask for tokens with the one audience istio-ca, and not for "
	const wantLifetime = "the controller may ask for tokens of at most 600 seconds, and not of "
	const wantNamespace = "the controller may ask for tokens in namespaces with the label isthmus.dev/injection=enabled, and "
	tests := map[string]struct {
		namespace string
		seconds   *int64
		audiences []string
		want      string // the refusal; empty if there is a token
	}{
		"if the controller itself requests it so, expect a token": {labelled, tenMinutes, []string{"istio-ca"}, ""},
		"if it is for another audience, expect none":              {labelled, tenMinutes, []string{"vault"}, wantAudience + "vault; where the CA of the mesh wants another, set the value mesh.tokenAudience of the chart"},
		"if it is for the API server, expect none":                {labelled, tenMinutes, nil, wantAudience + "https://"},
		"if it is for the API server by name, expect none":        {labelled, tenMinutes, []string{"https://kubernetes.default.svc"}, wantAudience + "https://kubernetes.default.svc;"},
		"if it is for two audiences, expect none":                 {labelled, tenMinutes, []string{"istio-ca", "vault"}, wantAudience + "istio-ca, vault;"},
		"if it is for the same audience twice, expect none":       {labelled, tenMinutes, []string{"istio-ca", "istio-ca"}, wantAudience + "istio-ca, istio-ca;"},
		"if it is longer than ten minutes, expect none":           {labelled, ptr.To[int64](601), []string{"istio-ca"}, wantLifetime + "601"},
		"if it has no expiration, expect none":                    {labelled, nil, []string{"istio-ca"}, wantLifetime + "3600"},
		"if the namespace has other labels, expect none":          {unlabelled, tenMinutes, []string{"istio-ca"}, wantNamespace + unlabelled + " has not got it"},
		"if the namespace has no labels, expect none":             {"rbac-bare", tenMinutes, []string{"istio-ca"}, wantNamespace + "rbac-bare has not got it"},
		"if the namespace is opted out, expect none":              {locked, tenMinutes, []string{"istio-ca"}, wantNamespace + locked + " has not got it"},
		"if the namespace is excluded, expect none":               {excluded, tenMinutes, []string{"istio-ca"}, "the controller may not ask for tokens in namespace " + excluded + ", which is excluded from injection"},
		"if it is Isthmus' own namespace, expect none":            {releaseNamespace, tenMinutes, []string{"istio-ca"}, wantNamespace + releaseNamespace + " has not got it"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			token, err := requestToken(t.Context(), attacker, test.namespace, test.seconds, test.audiences...)
			if test.want == "" {
				require.NoError(t, err)
				assert.NotEmpty(t, token.Status.Token)
				assert.LessOrEqual(t, time.Until(token.Status.ExpirationTimestamp.Time), 10*time.Minute)
				return
			}
			assert.NoError(t, checkForbidden(err))
			assert.ErrorContains(t, err, test.want)
		})
	}

	t.Run("the API server does not accept the token that it gets", func(t *testing.T) {
		token, err := requestToken(t.Context(), attacker, labelled, tenMinutes, "istio-ca")
		require.NoError(t, err)
		review, err := c.admin.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token, Audiences: []string{"https://kubernetes.default.svc"}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
		assert.False(t, review.Status.Authenticated)
	})
	t.Run("other users are not restricted", func(t *testing.T) {
		_, err := requestToken(t.Context(), c.admin, unlabelled, ptr.To[int64](7200), "vault")
		assert.NoError(t, err)
	})
	t.Run("the webhook and a publisher get none", func(t *testing.T) {
		c.bindPublisher(labelled)
		for _, account := range [][2]string{{releaseNamespace, webhookName}, {labelled, "edge"}} {
			_, err := requestToken(t.Context(), c.clientFor(account[0], account[1]), labelled, tenMinutes, "istio-ca")
			assert.NoError(t, checkForbidden(err), account[1])
		}
	})
}

// TestWhatTheControllerWrites sends the same requests as the controller, with its token.
func TestWhatTheControllerWrites(t *testing.T) {
	c := install(t, "")
	c.namespace(labelled, enabledNamespace)
	c.awaitSecretPolicy(labelled)
	ctx, controller := t.Context(), c.clientFor(releaseNamespace, controllerName)
	force := metav1.ApplyOptions{FieldManager: "isthmus", Force: true}
	secrets, bindings := controller.CoreV1().Secrets(labelled), controller.RbacV1().RoleBindings(labelled)
	t.Cleanup(func() {
		for _, name := range []string{"istio-certs", "istio-certs-roots", "other"} {
			_ = c.admin.CoreV1().Secrets(labelled).Delete(context.Background(), name, metav1.DeleteOptions{})
		}
		_ = c.admin.RbacV1().RoleBindings(labelled).Delete(context.Background(), publisherName, metav1.DeleteOptions{})
	})
	_, err := c.admin.CoreV1().Secrets(labelled).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{})
	require.NoError(t, err)

	bind := func(name, role string) error {
		_, err := bindings.Apply(ctx, rbacv1apply.RoleBinding(name, labelled).WithLabels(map[string]string{"app.kubernetes.io/managed-by": "isthmus"}).
			WithRoleRef(rbacv1apply.RoleRef().WithAPIGroup(rbacv1.GroupName).WithKind("ClusterRole").WithName(role)).
			WithSubjects(rbacv1apply.Subject().WithKind("ServiceAccount").WithName("edge").WithNamespace(labelled)), force)
		return err
	}
	apply := func(name string) error { return applySecret(ctx, t, controller, labelled, secretFields(name, nil)) }
	for _, name := range []string{"istio-certs", "istio-certs-roots"} {
		assert.NoError(t, apply(name), "an apply that creates")
		assert.NoError(t, apply(name), "an apply that changes")
		_, err := secrets.Get(ctx, name, metav1.GetOptions{})
		assert.NoError(t, err)
	}
	assert.NoError(t, bind(publisherName, publisherName), "an apply that creates")
	assert.NoError(t, bind(publisherName, publisherName), "an apply that changes nothing")

	edge := c.clientFor(labelled, "edge")
	assert.NoError(t, applySecret(ctx, t, edge, labelled, secretFields("istio-certs", nil)), "a publisher that was bound")

	attempts := map[string]func() error{
		"apply another Secret": func() error { return apply("other") },
		"read another Secret":  func() error { _, err := secrets.Get(ctx, "other", metav1.GetOptions{}); return err },
		"create by POST": func() error {
			_, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{GenerateName: "istio-certs"}}, metav1.CreateOptions{})
			return err
		},
		"list Secrets": func() error { _, err := secrets.List(ctx, metav1.ListOptions{}); return err },
		"read the CA of the webhook from elsewhere": func() error {
			_, err := secrets.Get(ctx, "isthmus-webhook-ca", metav1.GetOptions{})
			return err
		},
		"bind another role under the permitted name": func() error {
			if err := c.admin.RbacV1().RoleBindings(labelled).Delete(ctx, publisherName, metav1.DeleteOptions{}); err != nil {
				return err
			}
			return bind(publisherName, "cluster-admin")
		},
		"bind by another name": func() error { return bind("mine", publisherName) },
		"a publisher lists Secrets": func() error {
			_, err := edge.CoreV1().Secrets(labelled).List(ctx, metav1.ListOptions{})
			return err
		},
		"a publisher writes elsewhere": func() error {
			_, err := edge.CoreV1().Secrets(istioNamespace).Apply(ctx, corev1apply.Secret("istio-certs", istioNamespace), force)
			return err
		},
		"a publisher reads the roots' Secret": func() error {
			_, err := edge.CoreV1().Secrets(labelled).Get(ctx, "istio-certs-roots", metav1.GetOptions{})
			return err
		},
	}
	for name, attempt := range attempts {
		t.Run(name, func(t *testing.T) { assert.NoError(t, checkForbidden(attempt())) })
	}
}

// TestApplyThatCreatesNeedsBothVerbs shows why the roles grant "create" by name: the API
// server authorizes an apply as patch, and also as create if the object does not exist.
func TestApplyThatCreatesNeedsBothVerbs(t *testing.T) {
	kube, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	c := &cluster{t: t, admin: kube}
	const namespace = "rbac-verbs"
	c.namespace(namespace, nil)
	tests := map[string]struct {
		verbs   []string
		creates bool
	}{
		"if it may patch, expect a refusal":            {[]string{"patch"}, false},
		"if it may create, expect a refusal":           {[]string{"create"}, false},
		"if it may do both by name, expect the Secret": {[]string{"patch", "create"}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ctx := context.WithoutCancel(t.Context())
			_, err := kube.RbacV1().Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "apply"}, Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"named"}, Verbs: test.verbs,
			}}}, metav1.CreateOptions{})
			require.NoError(t, err)
			_, err = kube.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "apply"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "apply"},
				Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "edge", Namespace: namespace}},
			}, metav1.CreateOptions{})
			require.NoError(t, err)
			t.Cleanup(func() {
				assert.NoError(t, kube.RbacV1().RoleBindings(namespace).Delete(ctx, "apply", metav1.DeleteOptions{}))
				assert.NoError(t, kube.RbacV1().Roles(namespace).Delete(ctx, "apply", metav1.DeleteOptions{}))
				_ = kube.CoreV1().Secrets(namespace).Delete(ctx, "named", metav1.DeleteOptions{})
			})
			edge := c.clientFor(namespace, "edge")
			apply := func() error {
				_, err := edge.CoreV1().Secrets(namespace).Apply(ctx, corev1apply.Secret("named", namespace), metav1.ApplyOptions{FieldManager: "edge"})
				return err
			}
			if test.creates {
				// The API server observes the roles by a watch.
				assert.EventuallyWithT(t, func(collect *assert.CollectT) { assert.NoError(collect, apply()) }, 10*time.Second, 20*time.Millisecond)
				return
			}
			// Nothing shows that the API server has observed the role. The other case
			// shows that it does so within this time.
			assert.Never(t, func() bool { return checkForbidden(apply()) != nil }, time.Second, 50*time.Millisecond)
		})
	}
}
