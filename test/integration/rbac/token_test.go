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

// ask asks for a token of the service account "edge".
func ask(ctx context.Context, as kubernetes.Interface, namespace string, seconds *int64, audiences ...string) (*authenticationv1.TokenRequest, error) {
	return as.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, "edge", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: seconds},
	}, metav1.CreateOptions{})
}

const (
	labelled   = "rbac-labelled"
	unlabelled = "rbac-unlabelled"
	locked     = "rbac-locked"
	excluded   = "rbac-excluded"
)

// A thief has the controller's token, and tries.
func TestAStolenControllerTokenGetsNoOtherToken(t *testing.T) {
	c := install(t, "webhook: {excludedNamespaces: ["+excluded+"]}")
	enabled := map[string]string{"isthmus.dev/injection": "enabled"}
	c.namespace(labelled, enabled)
	c.namespace(excluded, enabled)
	c.namespace(locked, map[string]string{"isthmus.dev/injection": "disabled"})
	c.namespace(unlabelled, map[string]string{"team": "edge"})
	c.namespace("rbac-bare", nil)
	thief := c.as(releaseNamespace, controllerName)
	ten := ptr.To[int64](600)

	// The API server learns of a policy by a watch.
	require.EventuallyWithT(t, func(collect *assert.CollectT) {
		_, err := ask(t.Context(), thief, labelled, ten, "vault")
		assert.Error(collect, err)
	}, 30*time.Second, 50*time.Millisecond)

	const one = "the controller may ask for tokens with the one audience istio-ca, and not for "
	const short = "the controller may ask for tokens of at most 600 seconds, and not of "
	const where = "the controller may ask for tokens in namespaces with the label isthmus.dev/injection=enabled, and "
	tests := map[string]struct {
		namespace string
		seconds   *int64
		audiences []string
		want      string // the refusal; empty for a token
	}{
		"if it is what the controller asks for, expect a token": {labelled, ten, []string{"istio-ca"}, ""},
		"if it is for another audience, expect none":            {labelled, ten, []string{"vault"}, one + "vault; where the CA of the mesh wants another, set the value mesh.tokenAudience of the chart"},
		"if it is for the API server, expect none":              {labelled, ten, nil, one + "https://"},
		"if it is for the API server by name, expect none":      {labelled, ten, []string{"https://kubernetes.default.svc"}, one + "https://kubernetes.default.svc;"},
		"if it is for two audiences, expect none":               {labelled, ten, []string{"istio-ca", "vault"}, one + "istio-ca, vault;"},
		"if it is for the same twice, expect none":              {labelled, ten, []string{"istio-ca", "istio-ca"}, one + "istio-ca, istio-ca;"},
		"if it is longer than ten minutes, expect none":         {labelled, ptr.To[int64](601), []string{"istio-ca"}, short + "601"},
		"if it says nothing about its end, expect none":         {labelled, nil, []string{"istio-ca"}, short + "3600"},
		"if the namespace has other labels, expect none":        {unlabelled, ten, []string{"istio-ca"}, where + unlabelled + " has not got it"},
		"if the namespace has no labels, expect none":           {"rbac-bare", ten, []string{"istio-ca"}, where + "rbac-bare has not got it"},
		"if the namespace is locked, expect none":               {locked, ten, []string{"istio-ca"}, where + locked + " has not got it"},
		"if the namespace is excluded, expect none":             {excluded, ten, []string{"istio-ca"}, "the controller may not ask for tokens in namespace " + excluded + ", which is excluded from injection"},
		"if it is Isthmus' own namespace, expect none":          {releaseNamespace, ten, []string{"istio-ca"}, where + releaseNamespace + " has not got it"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			token, err := ask(t.Context(), thief, test.namespace, test.seconds, test.audiences...)
			if test.want == "" {
				require.NoError(t, err)
				assert.NotEmpty(t, token.Status.Token)
				assert.LessOrEqual(t, time.Until(token.Status.ExpirationTimestamp.Time), 10*time.Minute)
				return
			}
			assert.NoError(t, refused(err))
			assert.ErrorContains(t, err, test.want)
		})
	}

	t.Run("the token that it gets opens nothing at the API server", func(t *testing.T) {
		token, err := ask(t.Context(), thief, labelled, ten, "istio-ca")
		require.NoError(t, err)
		review, err := c.admin.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token, Audiences: []string{"https://kubernetes.default.svc"}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
		assert.False(t, review.Status.Authenticated)
	})
	t.Run("others ask as before", func(t *testing.T) {
		_, err := ask(t.Context(), c.admin, unlabelled, ptr.To[int64](7200), "vault")
		assert.NoError(t, err)
	})
	t.Run("the webhook and a publisher get none", func(t *testing.T) {
		c.bindPublisher(labelled)
		for _, account := range [][2]string{{releaseNamespace, webhookName}, {labelled, "edge"}} {
			_, err := ask(t.Context(), c.as(account[0], account[1]), labelled, ten, "istio-ca")
			assert.NoError(t, refused(err), account[1])
		}
	})
}

// TestWhatTheControllerWrites writes in the very form in which the program does,
// with the controller's own token.
func TestWhatTheControllerWrites(t *testing.T) {
	c := install(t, "")
	c.namespace(labelled, nil)
	ctx, controller := t.Context(), c.as(releaseNamespace, controllerName)
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
		_, err := bindings.Apply(ctx, rbacv1apply.RoleBinding(name, labelled).
			WithRoleRef(rbacv1apply.RoleRef().WithAPIGroup(rbacv1.GroupName).WithKind("ClusterRole").WithName(role)).
			WithSubjects(rbacv1apply.Subject().WithKind("ServiceAccount").WithName("edge").WithNamespace(labelled)), force)
		return err
	}
	apply := func(name string) error {
		_, err := secrets.Apply(ctx, corev1apply.Secret(name, labelled).WithData(map[string][]byte{"a": []byte("b")}), force)
		return err
	}
	for _, name := range []string{"istio-certs", "istio-certs-roots"} {
		assert.NoError(t, apply(name), "an apply that creates")
		assert.NoError(t, apply(name), "an apply that changes")
		_, err := secrets.Get(ctx, name, metav1.GetOptions{})
		assert.NoError(t, err)
	}
	assert.NoError(t, bind(publisherName, publisherName), "an apply that creates")
	assert.NoError(t, bind(publisherName, publisherName), "an apply that changes nothing")

	edge := c.as(labelled, "edge")
	_, err = edge.CoreV1().Secrets(labelled).Apply(ctx, corev1apply.Secret("istio-certs", labelled).WithData(map[string][]byte{"a": []byte("c")}), force)
	assert.NoError(t, err, "a publisher that was bound")

	attempts := map[string]func() error{
		"apply another Secret": func() error { return apply("other") },
		"read another Secret":  func() error { _, err := secrets.Get(ctx, "other", metav1.GetOptions{}); return err },
		"create by POST": func() error {
			_, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{GenerateName: "istio-certs"}}, metav1.CreateOptions{})
			return err
		},
		"list Secrets": func() error { _, err := secrets.List(ctx, metav1.ListOptions{}); return err },
		"list a Secret by its name": func() error {
			_, err := secrets.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=istio-certs"})
			return err
		},
		"read the CA of the webhook from elsewhere": func() error {
			_, err := secrets.Get(ctx, "isthmus-webhook-ca", metav1.GetOptions{})
			return err
		},
		"bind a role of its own choice by the name that it may write": func() error {
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
		t.Run(name, func(t *testing.T) { assert.NoError(t, refused(attempt())) })
	}
}

// TestApplyThatCreatesNeedsBothVerbs shows why the roles grant "create" by name: an
// apply is authorised as patch, and as create where there is nothing yet.
func TestApplyThatCreatesNeedsBothVerbs(t *testing.T) {
	kube, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	c := &cluster{t: t, admin: kube}
	const space = "rbac-verbs"
	c.namespace(space, nil)
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
			_, err := kube.RbacV1().Roles(space).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "apply"}, Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"named"}, Verbs: test.verbs,
			}}}, metav1.CreateOptions{})
			require.NoError(t, err)
			_, err = kube.RbacV1().RoleBindings(space).Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "apply"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "apply"},
				Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "edge", Namespace: space}},
			}, metav1.CreateOptions{})
			require.NoError(t, err)
			t.Cleanup(func() {
				assert.NoError(t, kube.RbacV1().RoleBindings(space).Delete(ctx, "apply", metav1.DeleteOptions{}))
				assert.NoError(t, kube.RbacV1().Roles(space).Delete(ctx, "apply", metav1.DeleteOptions{}))
				_ = kube.CoreV1().Secrets(space).Delete(ctx, "named", metav1.DeleteOptions{})
			})
			edge := c.as(space, "edge")
			apply := func() error {
				_, err := edge.CoreV1().Secrets(space).Apply(ctx, corev1apply.Secret("named", space), metav1.ApplyOptions{FieldManager: "edge"})
				return err
			}
			if test.creates {
				// The roles that it is authorised by are learnt by a watch.
				assert.EventuallyWithT(t, func(collect *assert.CollectT) { assert.NoError(collect, apply()) }, 10*time.Second, 20*time.Millisecond)
				return
			}
			// Nothing tells that the role is known; the other case shows that it
			// would be, within the time that this watches.
			assert.Never(t, func() bool { return refused(apply()) != nil }, time.Second, 50*time.Millisecond)
		})
	}
}
