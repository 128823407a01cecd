package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// isAuthorized asks the API server whether a service account is authorized.
func (c *cluster) isAuthorized(account string, attributes authorizationv1.ResourceAttributes) bool {
	c.t.Helper()
	namespace, name := releaseNamespace, account
	if account == publisherName {
		namespace, name = edgeNamespace, "edge"
	}
	review, err := c.admin.AuthorizationV1().SubjectAccessReviews().Create(c.t.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               userName(namespace, name),
			Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
			ResourceAttributes: &attributes,
		},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	require.Empty(c.t, review.Status.EvaluationError)
	return review.Status.Allowed
}

const edgeNamespace = "rbac-edge"

// bindPublisher creates the RoleBinding that the controller creates for a pod with a
// publisher.
func (c *cluster) bindPublisher(namespace string) {
	c.t.Helper()
	_, err := c.admin.RbacV1().RoleBindings(namespace).Create(c.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: publisherName},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: publisherName},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "edge", Namespace: namespace}},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	c.t.Cleanup(func() {
		if err := c.admin.RbacV1().RoleBindings(namespace).Delete(context.Background(), publisherName, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			assert.NoError(c.t, err)
		}
	})
}

// attributes returns the attributes of a grant, one for each verb and name.
func (g grant) attributes(namespace string) []authorizationv1.ResourceAttributes {
	gr := schema.ParseGroupResource(g.resource)
	resource, subresource, _ := strings.Cut(gr.Resource, "/")
	names := g.names
	if len(names) == 0 {
		names = []string{""}
	}
	var all []authorizationv1.ResourceAttributes
	for _, verb := range g.verbs {
		for _, name := range names {
			all = append(all, authorizationv1.ResourceAttributes{
				Namespace: namespace, Verb: verb, Group: gr.Group, Resource: resource, Subresource: subresource, Name: name,
			})
		}
	}
	return all
}

// TestAccounts checks every permission: those in the document are granted, and every
// other verb on every resource that the API server knows is denied.
func TestAccounts(t *testing.T) {
	c := install(t, everyOption)
	c.namespace(edgeNamespace, map[string]string{"isthmus.dev/injection": "enabled"})
	c.bindPublisher(edgeNamespace)
	kinds := c.kinds()
	for _, account := range accounts() {
		t.Run(account, func(t *testing.T) {
			allowed := map[authorizationv1.ResourceAttributes]bool{}
			c := &cluster{t: t, admin: c.admin}
			for _, r := range documentedGrants(t, account) {
				if !slices.Contains(variants["everything"].needs, r.needs) {
					continue
				}
				for _, g := range r.grants {
					for _, scope := range namespaces(g.scope) {
						for _, a := range g.attributes(scope) {
							allowed[a] = true
							assert.True(t, c.isAuthorized(account, a), "must be granted: %s", describe(a))
						}
					}
				}
			}
			denied := 0
			for _, a := range allAttributes(kinds) {
				if isDocumented(allowed, a) {
					continue
				}
				denied++
				assert.False(t, c.isAuthorized(account, a), "must be denied: %s", describe(a))
			}
			assert.Greater(t, denied, 1000)
		})
	}
}

// namespaces returns the namespaces in which a scope is tested.
func namespaces(scope string) []string {
	return map[string][]string{
		inCluster: {"", releaseNamespace, istioNamespace, edgeNamespace, "kube-system"},
		inRelease: {releaseNamespace}, inIstio: {istioNamespace}, inOwnNamespace: {edgeNamespace},
	}[scope]
}

// isDocumented reports whether a permission is documented, for this name or for all names.
func isDocumented(allowed map[authorizationv1.ResourceAttributes]bool, a authorizationv1.ResourceAttributes) bool {
	all := a
	all.Name = ""
	return allowed[a] || allowed[all]
}

// kinds returns all resources that the API server knows, and the resources of other API
// groups that the chart's roles name.
func (c *cluster) kinds() []schema.GroupResource {
	c.t.Helper()
	_, resourceLists, err := c.admin.Discovery().ServerGroupsAndResources()
	require.NoError(c.t, err)
	resources := []schema.GroupResource{
		{Group: "cert-manager.io", Resource: "certificates"}, {Group: "cert-manager.io", Resource: "issuers"},
		{Group: "cert-manager.io", Resource: "clusterissuers"}, {Group: "getambassador.io", Resource: "tlscontexts"},
		{Group: "getambassador.io", Resource: "mappings"}, {Group: "getambassador.io", Resource: "hosts"},
		{Group: "", Resource: "users"}, {Group: "", Resource: "groups"}, {Group: "certificates.k8s.io", Resource: "clustertrustbundles"},
	}
	for _, list := range resourceLists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		require.NoError(c.t, err)
		for _, resource := range list.APIResources {
			gr := schema.GroupResource{Group: version.Group, Resource: resource.Name}
			if !isSelfReview(gr) && !slices.Contains(resources, gr) {
				resources = append(resources, gr)
			}
		}
	}
	require.Greater(c.t, len(resources), 60)
	return resources
}

// isSelfReview reports whether a resource is a review of the user itself, which every
// authenticated user may create.
func isSelfReview(gr schema.GroupResource) bool {
	return strings.HasPrefix(gr.Resource, "selfsubject")
}

// allAttributes returns every verb on every kind for the name someone-elses, which a
// permission without names would include. It also returns them for the names in the roles,
// which may be granted in one namespace or for one verb and not for another.
func allAttributes(kinds []schema.GroupResource) []authorizationv1.ResourceAttributes {
	verbs := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "bind", "escalate", "impersonate", "approve", "sign", "use"}
	var all []authorizationv1.ResourceAttributes
	for _, kind := range kinds {
		all = append(all, grant{verbs: verbs, resource: kind.String(), names: []string{"someone-elses"}}.attributes("kube-system")...)
	}
	for kind, names := range namedObjects {
		for _, namespace := range []string{"", releaseNamespace, istioNamespace, edgeNamespace, "kube-system"} {
			all = append(all, grant{verbs: verbs[:9], resource: kind, names: append([]string{"", "someone-elses"}, names...)}.attributes(namespace)...)
		}
	}
	return all
}

var policyNames = []string{secretPolicy, objectPolicy, webhookPolicy, "isthmus-controller-tokens", "isthmus-controller-restarts"}

// namedObjects are objects that a role names, or that an attacker would like it to name.
var namedObjects = map[string][]string{
	"secrets":                      {"istio-certs", "istio-certs-roots", "istio-certs-issued", "istio.default", "isthmus-webhook-ca", "istio-ca-secret"},
	"configmaps":                   {"istio-ca-root-cert", "istio", "isthmus-controller-restarts"},
	"deployments.apps":             {"istiod", "isthmus-controller"},
	"leases.coordination.k8s.io":   {"isthmus-controller"},
	"certificates.cert-manager.io": {"istio-certs"},
	"tlscontexts.getambassador.io": {"istio-upstream", "istio-upstream-tcp", "other-upstream"},
	"mutatingwebhookconfigurations.admissionregistration.k8s.io":     {"isthmus-injector", "istio-sidecar-injector"},
	"validatingwebhookconfigurations.admissionregistration.k8s.io":   {"isthmus-injector", "istio-validator-istio-system"},
	"validatingadmissionpolicies.admissionregistration.k8s.io":       policyNames,
	"validatingadmissionpolicybindings.admissionregistration.k8s.io": policyNames,
	"rolebindings.rbac.authorization.k8s.io":                         {"isthmus-publisher"},
	"clusterrolebindings.rbac.authorization.k8s.io":                  {"isthmus-controller"},
	"clusterroles.rbac.authorization.k8s.io":                         {"isthmus-publisher", "isthmus-controller", "cluster-admin"},
}

func describe(a authorizationv1.ResourceAttributes) string {
	return fmt.Sprintf("%s %s/%s.%s %q in %q", a.Verb, a.Resource, a.Subresource, a.Group, a.Name, a.Namespace)
}
