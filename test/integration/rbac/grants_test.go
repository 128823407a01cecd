package rbac

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Scopes of a grant, in the words of the document.
const (
	inCluster      = "every namespace"
	inRelease      = "Isthmus' namespace"
	inIstio        = "Istio's namespace"
	inOwnNamespace = "its own namespace"
)

// grant is the permission of a service account on one resource.
type grant struct {
	verbs []string
	// resource is in kubectl's form: secrets, or certificates.cert-manager.io.
	resource string
	// names are the resource names. Empty means all objects.
	names []string
	scope string
}

func (g grant) String() string {
	return fmt.Sprintf("%s %s %s in %s", strings.Join(slices.Sorted(slices.Values(g.verbs)), ","), g.resource,
		strings.Join(slices.Sorted(slices.Values(g.names)), ","), g.scope)
}

// renderedGrants returns the grants of an account in the rendered chart.
func renderedGrants(t *testing.T, list []*unstructured.Unstructured, account string) []grant {
	t.Helper()
	if account == publisherName {
		// The controller binds this role in the namespaces where a pod needs it.
		return rules(t, list, "ClusterRole", publisherName, inOwnNamespace)
	}
	var all []grant
	for _, object := range list {
		if kind := object.GetKind(); kind != "ClusterRoleBinding" && kind != "RoleBinding" {
			continue
		}
		// The two kinds have the same fields.
		binding := convert[rbacv1.RoleBinding](t, object)
		if !slices.ContainsFunc(binding.Subjects, func(s rbacv1.Subject) bool { return s.Name == account && s.Namespace == releaseNamespace }) {
			continue
		}
		scope, known := map[string]string{"": inCluster, releaseNamespace: inRelease, istioNamespace: inIstio}[object.GetNamespace()]
		require.True(t, known, "a binding in namespace %s", object.GetNamespace())
		all = append(all, rules(t, list, binding.RoleRef.Kind, binding.RoleRef.Name, scope)...)
	}
	return all
}

func rules(t *testing.T, list []*unstructured.Unstructured, kind, name, scope string) []grant {
	t.Helper()
	var all []grant
	for _, object := range list {
		if object.GetKind() != kind || object.GetName() != name {
			continue
		}
		for _, rule := range convert[rbacv1.ClusterRole](t, object).Rules {
			require.Empty(t, rule.NonResourceURLs)
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					all = append(all, grant{rule.Verbs, qualifiedResource(resource, group), rule.ResourceNames, scope})
				}
			}
		}
	}
	require.NotEmpty(t, all, "%s %s", kind, name)
	return all
}

func qualifiedResource(resource, group string) string {
	if group == "" {
		return resource
	}
	return resource + "." + group
}

func convert[T any](t *testing.T, object *unstructured.Unstructured) *T {
	t.Helper()
	out := new(T)
	require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, out))
	return out
}

// document is docs/security.md, which has a table for each account.
const document = "../../../docs/security.md"

// row is one line of a table.
type row struct {
	grants []grant
	// needs is the value of the chart that the grants depend on. Empty means none.
	needs string
}

// valueNames are the names in values of the chart that the document refers to.
var valueNames = map[string][]string{
	"`controller.mirrorSecretNames`":          {"istio.default"},
	"`controller.certManager.issuerRef.name`": {"mesh-ca"},
	"`mesh.rootClusterTrustBundle`":           {"istio.io:istiod-ca:root-cert"},
}

// documentedGrants reads the table under the heading that names the account.
func documentedGrants(t *testing.T, account string) []row {
	t.Helper()
	file, err := os.Open(document)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	var rows []row
	inTable := false
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			inTable = strings.Contains(line, "`"+account+"`")
		}
		if !inTable || !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| may ") {
			continue
		}
		rows = append(rows, parseRow(t, line))
	}
	require.NotEmpty(t, rows, "%s has no table for %s", document, account)
	return rows
}

// parseRow reads | may | what | names | where | needs | why |.
func parseRow(t *testing.T, line string) row {
	t.Helper()
	cells := strings.Split(strings.Trim(line, "|"), "|")
	require.Len(t, cells, 6, line)
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	require.NotEmpty(t, cells[5], "why: %s", line)
	r := row{needs: strings.ReplaceAll(cells[4], "`", "")}
	var names []string
	if cells[2] != "all" {
		for name := range strings.SplitSeq(cells[2], ", ") {
			if heldNames, ok := valueNames[name]; ok {
				names = append(names, heldNames...)
			} else {
				names = append(names, strings.Trim(name, "`"))
			}
		}
	}
	for resource := range strings.SplitSeq(cells[1], ", ") {
		r.grants = append(r.grants, grant{strings.Split(cells[0], ", "), strings.Trim(resource, "`"), names, cells[3]})
	}
	return r
}

// variants are values of the chart, and the needs of the document that they meet.
var variants = map[string]struct {
	values string
	needs  []string
}{
	"the defaults": {"", []string{"", "certificate.mode self-managed", "istio.discovery", "istio.discovery, no mesh.rootClusterTrustBundle"}},
	"everything": {everyOption, []string{
		"", "certificate.mode self-managed", "istio.discovery", "controller.mirrorSecretNames", "controller.certManager.issuerRef", "mesh.rootClusterTrustBundle", "controller.restartStale.enabled",
	}},
	"neither discovery nor a self-managed certificate": {
		"{istio: {discovery: false}, certificate: {mode: cert-manager}}", []string{"", "no istio.discovery", "certificate.mode cert-manager or existing"},
	},
}

// everyOption enables every option that needs a permission.
const everyOption = `
controller:
  restartStale: {enabled: true}
  mirrorSecretNames: [istio.default]
  certManager: {issuerRef: {name: mesh-ca, kind: ClusterIssuer}}
mesh: {rootClusterTrustBundle: "istio.io:istiod-ca:root-cert"}
`

func accounts() []string { return []string{webhookName, controllerName, publisherName} }

func TestDocumentListsWhatTheRolesGrant(t *testing.T) {
	for name, variant := range variants {
		t.Run(name, func(t *testing.T) {
			list := render(t, variant.values)
			for _, account := range accounts() {
				var want, got []string
				for _, r := range documentedGrants(t, account) {
					for _, g := range r.grants {
						if slices.Contains(variant.needs, r.needs) {
							want = append(want, g.String())
						}
					}
				}
				for _, g := range renderedGrants(t, list, account) {
					got = append(got, g.String())
				}
				assert.ElementsMatch(t, want, got, "what %s may do, in %s and in the chart", account, document)
			}
		})
	}
}

// Some variant meets every need in the document, so that every row is compared.
func TestEveryRowOfTheDocumentIsCompared(t *testing.T) {
	for _, account := range accounts() {
		for _, r := range documentedGrants(t, account) {
			covered := false
			for _, variant := range variants {
				covered = covered || slices.Contains(variant.needs, r.needs)
			}
			assert.True(t, covered, "%s needs %q", account, r.needs)
		}
	}
}

// Every service account of the chart has a table.
func TestEveryServiceAccountIsDocumented(t *testing.T) {
	var found []string
	for _, object := range render(t, everyOption) {
		if object.GetKind() == "ServiceAccount" {
			found = append(found, object.GetName())
		}
	}
	assert.ElementsMatch(t, []string{webhookName, controllerName}, found)
}
