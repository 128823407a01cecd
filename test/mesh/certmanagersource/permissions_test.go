package certmanagersource

import (
	"slices"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// Every other test runs with policyRules. This test takes away each verb: the rest does not
// suffice, and the error names the verb.
func TestEveryPermissionIsNeeded(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	for name, test := range map[string]struct {
		rule int
		verb string
		want string
	}{
		"if certificates cannot be read, expect no bundle":     {0, "get", "read certificate"},
		"if certificates cannot be created, expect no bundle":  {0, "create", "apply certificate"},
		"if certificates cannot be patched, expect no bundle":  {0, "patch", "apply certificate"},
		"if certificates cannot be deleted, expect no removal": {0, "delete", "delete certificate"},
		"if secrets cannot be read, expect no bundle":          {1, "get", "read staging secret"},
		"if secrets cannot be deleted, expect no removal":      {1, "delete", "delete staging secret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := newEnvironment(t, root)
			env.createIssuer(t, root)
			if test.verb == "delete" {
				_, err := env.awaitBundle(t)
				require.NoError(t, err)
			}
			env.revokeVerb(t, test.rule, test.verb)
			var err error
			if test.verb == "delete" {
				err = env.source.Remove(t.Context(), env.namespace, secretName)
			} else {
				_, err = env.requestBundle(t)
			}
			require.ErrorContains(t, err, test.want)
			assert.ErrorContains(t, err, "cannot "+test.verb+" resource")
		})
	}
}

// Permissions on the issuer are optional: without them nothing fails.
func TestIssuerNeedNotBeReadable(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	env := newEnvironment(t, root)
	env.revokeVerb(t, 2, "get")
	_, err := env.requestBundle(t)
	require.ErrorIs(t, err, certs.ErrPending)
	assert.NotContains(t, err.Error(), "Issuer")
	env.createIssuer(t, root)
	_, err = env.awaitBundle(t)
	assert.NoError(t, err)
	assert.Equal(t, cmapi.IssuerKind, env.certificate(t).Spec.IssuerRef.Kind)
}

// revokeVerb removes a verb from a rule of the account.
func (env *environment) revokeVerb(t *testing.T, rule int, verb string) {
	t.Helper()
	policyRule := policyRules()[rule]
	role := &rbacv1.Role{}
	require.NoError(t, env.client.Get(t.Context(), client.ObjectKey{Namespace: env.namespace, Name: "source"}, role))
	role.Rules[rule].Verbs = slices.DeleteFunc(role.Rules[rule].Verbs, func(v string) bool { return v == verb })
	if len(role.Rules[rule].Verbs) == 0 {
		role.Rules = slices.Delete(role.Rules, rule, rule+1)
	}
	require.NoError(t, env.client.Update(t.Context(), role))
	eventually(t, "the permission is revoked", func() bool { return !env.isAllowed(t, verb, policyRule) })
}

// isAllowed asks the API server whether the account has a permission.
func (env *environment) isAllowed(t *testing.T, verb string, policyRule rbacv1.PolicyRule) bool {
	t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: env.account.Impersonate.UserName,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: env.namespace, Verb: verb, Group: policyRule.APIGroups[0], Resource: policyRule.Resources[0], Name: policyRule.ResourceNames[0],
		},
	}}
	env.create(t, review)
	return review.Status.Allowed
}
