package rbac

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// may asks the API server whether an account may do something.
func (c *cluster) may(account string, what authorizationv1.ResourceAttributes) bool {
	c.t.Helper()
	namespace, name := releaseNamespace, account
	if account == publisherName {
		namespace, name = edgeNamespace, "edge"
	}
	review, err := c.admin.AuthorizationV1().SubjectAccessReviews().Create(c.t.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               user(namespace, name),
			Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
			ResourceAttributes: &what,
		},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	require.Empty(c.t, review.Status.EvaluationError)
	return review.Status.Allowed
}

const edgeNamespace = "rbac-edge"

// bindPublisher does what the controller does for a pod with a publisher.
func (c *cluster) bindPublisher(namespace string) {
	c.t.Helper()
	_, err := c.admin.RbacV1().RoleBindings(namespace).Create(c.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: publisherName},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: publisherName},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "edge", Namespace: namespace}},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	c.t.Cleanup(func() {
		_ = c.admin.RbacV1().RoleBindings(namespace).Delete(c.t.Context(), publisherName, metav1.DeleteOptions{})
	})
}

// attributes spell a grant out: one for each verb and name.
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

// TestAccounts asks for everything: what the document lists is allowed, and every
// other verb on every kind of object that the API server knows is not.
func TestAccounts(t *testing.T) {
	c := install(t, everything)
	c.namespace(edgeNamespace, map[string]string{"isthmus.dev/injection": "enabled"})
	c.bindPublisher(edgeNamespace)
	kinds := c.kinds()
	for _, account := range accounts() {
		t.Run(account, func(t *testing.T) {
			allowed := map[authorizationv1.ResourceAttributes]bool{}
			c := &cluster{t: t, admin: c.admin}
			for _, r := range documented(t, account) {
				if r.needs == "no istio.discovery" {
					continue
				}
				for _, g := range r.grants {
					for _, where := range namespaces(g.where) {
						for _, a := range g.attributes(where) {
							allowed[a] = true
							assert.True(t, c.may(account, a), "must be allowed: %s", say(a))
						}
					}
				}
			}
			asked := 0
			for _, a := range everyAttribute(kinds) {
				if isAllowed(allowed, a) {
					continue
				}
				asked++
				assert.False(t, c.may(account, a), "must not be allowed: %s", say(a))
			}
			assert.Greater(t, asked, 1000)
		})
	}
}

// namespaces stand for where a grant holds.
func namespaces(where string) []string {
	return map[string][]string{
		inCluster: {"", releaseNamespace, istioNamespace, edgeNamespace, "kube-system"},
		inRelease: {releaseNamespace}, inIstio: {istioNamespace}, inOwn: {edgeNamespace},
	}[where]
}

// isAllowed also knows that permission for all objects is one for each.
func isAllowed(allowed map[authorizationv1.ResourceAttributes]bool, a authorizationv1.ResourceAttributes) bool {
	all := a
	all.Name = ""
	return allowed[a] || allowed[all]
}

// kinds are all resources that the API server knows, and those of others that
// the chart's roles speak of.
func (c *cluster) kinds() []schema.GroupResource {
	c.t.Helper()
	_, lists, err := c.admin.Discovery().ServerGroupsAndResources()
	require.NoError(c.t, err)
	found := []schema.GroupResource{
		{Group: "cert-manager.io", Resource: "certificates"}, {Group: "cert-manager.io", Resource: "issuers"},
		{Group: "cert-manager.io", Resource: "clusterissuers"}, {Group: "getambassador.io", Resource: "tlscontexts"},
		{Group: "getambassador.io", Resource: "mappings"}, {Group: "getambassador.io", Resource: "hosts"},
		{Group: "", Resource: "users"}, {Group: "", Resource: "groups"}, {Group: "certificates.k8s.io", Resource: "clustertrustbundles"},
	}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		require.NoError(c.t, err)
		for _, resource := range list.APIResources {
			gr := schema.GroupResource{Group: version.Group, Resource: resource.Name}
			if !isOfEverybody(gr) && !slices.Contains(found, gr) {
				found = append(found, gr)
			}
		}
	}
	require.Greater(c.t, len(found), 60)
	return found
}

// isOfEverybody are questions about oneself, which whoever is authenticated may ask.
func isOfEverybody(gr schema.GroupResource) bool {
	return strings.HasPrefix(gr.Resource, "selfsubject")
}

// everyAttribute is every verb on every kind, of an object that is someone else's;
// and on the names that the roles speak of, which may be allowed in one place, or by
// one verb, and not in another. Permission for all objects would be permission for
// someone else's.
func everyAttribute(kinds []schema.GroupResource) []authorizationv1.ResourceAttributes {
	verbs := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "bind", "escalate", "impersonate", "approve", "sign", "use"}
	var all []authorizationv1.ResourceAttributes
	for _, kind := range kinds {
		all = append(all, grant{verbs: verbs, resource: kind.String(), names: []string{"someone-elses"}}.attributes("kube-system")...)
	}
	for kind, names := range named {
		for _, namespace := range []string{"", releaseNamespace, istioNamespace, edgeNamespace, "kube-system"} {
			all = append(all, grant{verbs: verbs[:9], resource: kind, names: append([]string{"", "someone-elses"}, names...)}.attributes(namespace)...)
		}
	}
	return all
}

// named are objects that a role names, or that a thief would like it to.
var named = map[string][]string{
	"secrets":                      {"istio-certs", "istio-certs-roots", "istio-certs-issued", "istio.default", "isthmus-webhook-ca", "istio-ca-secret"},
	"configmaps":                   {"istio-ca-root-cert", "istio", "isthmus-controller-restarts"},
	"deployments.apps":             {"istiod", "isthmus-controller"},
	"leases.coordination.k8s.io":   {"isthmus-controller"},
	"certificates.cert-manager.io": {"istio-certs"},
	"tlscontexts.getambassador.io": {"istio-upstream"},
	"mutatingwebhookconfigurations.admissionregistration.k8s.io":     {"isthmus-injector", "istio-sidecar-injector"},
	"validatingwebhookconfigurations.admissionregistration.k8s.io":   {"isthmus-injector", "istio-validator-istio-system"},
	"validatingadmissionpolicies.admissionregistration.k8s.io":       {"isthmus-controller-tokens", "isthmus-controller-restarts"},
	"validatingadmissionpolicybindings.admissionregistration.k8s.io": {"isthmus-controller-tokens", "isthmus-controller-restarts"},
	"rolebindings.rbac.authorization.k8s.io":                         {"isthmus-publisher"},
	"clusterrolebindings.rbac.authorization.k8s.io":                  {"isthmus-controller"},
	"clusterroles.rbac.authorization.k8s.io":                         {"isthmus-publisher", "isthmus-controller", "cluster-admin"},
}

func say(a authorizationv1.ResourceAttributes) string {
	return fmt.Sprintf("%s %s/%s.%s %q in %q", a.Verb, a.Resource, a.Subresource, a.Group, a.Name, a.Namespace)
}
