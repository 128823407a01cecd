package rbac

import (
	"context"
	"crypto/x509"
	"testing"
	"time"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/certs/certmanager"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

var (
	bindingsResource     = schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}
	tlsContextsResource  = schema.GroupVersionResource{Group: "getambassador.io", Version: "v3alpha1", Resource: "tlscontexts"}
	certificatesResource = schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}
)

// serveKind makes the API server serve a kind with any fields, as long as the cluster runs.
func serveKind(t *testing.T, resource schema.GroupVersionResource, kind, singular string) {
	t.Helper()
	client, err := dynamic.NewForConfig(admin)
	require.NoError(t, err)
	name := resource.Resource + "." + resource.Group
	definition := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"group": resource.Group, "scope": "Namespaced",
			"names": map[string]any{"kind": kind, "plural": resource.Resource, "singular": singular, "listKind": kind + "List"},
			"versions": []any{map[string]any{
				"name": resource.Version, "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
			}},
		},
	}}
	definitions := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	_, err = definitions.Create(t.Context(), definition, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		require.NoError(t, err)
	}
	require.EventuallyWithT(t, func(collect *assert.CollectT) {
		_, err := client.Resource(resource).List(t.Context(), metav1.ListOptions{})
		assert.NoError(collect, err)
	}, 30*time.Second, 50*time.Millisecond, "the API server serves %s", name)
}

// Only the RoleBindings, TLSContexts and Certificates that the controller needs pass.
func TestObjectsAreFenced(t *testing.T) {
	serveKind(t, tlsContextsResource, "TLSContext", "tlscontext")
	serveKind(t, certificatesResource, "Certificate", "certificate")
	c := install(t, everyOption+"\n"+excludedValues)
	ctx := t.Context()
	c.namespace(fenced, enabledNamespace)
	c.namespace(unlabelled, map[string]string{"team": "edge"})
	c.namespace(excluded, enabledNamespace)
	administrator, err := dynamic.NewForConfig(admin)
	require.NoError(t, err)
	attacker := c.dynamicFor(releaseNamespace, controllerName)

	apply := func(client dynamic.Interface, resource schema.GroupVersionResource, namespace string, f fields, dryRun ...string) error {
		_, err := client.Resource(resource).Namespace(namespace).Patch(ctx, f.at("metadata")["name"].(string), types.ApplyPatchType, f.json(t),
			metav1.PatchOptions{FieldManager: "isthmus", Force: ptr.To(true), DryRun: dryRun})
		return err
	}
	subjects := func(all ...any) func(fields) { return func(f fields) { f["subjects"] = all } }
	set := func(key string, value any) func(fields) { return func(f fields) { f.at("spec")[key] = value } }
	metadata := func(key string, value any) func(fields) {
		return func(f fields) { f.at("metadata")[key] = value }
	}
	binding := func(change func(fields)) fields {
		f := fields{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": fields{"name": publisherName, "labels": managedLabels()},
			"roleRef":  fields{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": publisherName},
			"subjects": []any{fields{"kind": "ServiceAccount", "name": "edge", "namespace": fenced}},
		}
		if change != nil {
			change(f)
		}
		return f
	}
	tlsContext := func(change func(fields)) fields {
		f := fields{
			"apiVersion": "getambassador.io/v3alpha1", "kind": "TLSContext", "metadata": fields{"name": "istio-upstream", "labels": managedLabels()},
			"spec": fields{"secret": "istio-certs", "ca_secret": "istio-certs-roots", "secret_namespacing": false, "alpn_protocols": "istio", "ambassador_id": []string{"edge"}},
		}
		if change != nil {
			change(f)
		}
		return f
	}
	certificate := func(change func(fields)) fields {
		f := fields{
			"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": fields{"name": "istio-certs", "labels": managedLabels()},
			"spec": fields{
				"secretName": "istio-certs-issued", "secretTemplate": fields{"labels": managedLabels()}, "issuerRef": fields{"name": "mesh-ca", "kind": "ClusterIssuer"},
				"uris": []string{"spiffe://cluster.local/ns/" + fenced + "/sa/edge"}, "usages": []string{"digital signature", "client auth", "server auth"},
				"privateKey": fields{"algorithm": "ECDSA"}, "duration": "24h0m0s", "renewBeforePercentage": 67, "revisionHistoryLimit": 1,
			},
		}
		if change != nil {
			change(f)
		}
		return f
	}
	awaitDenial(t, objectPolicy, func() error {
		return apply(attacker, bindingsResource, fenced, binding(subjects(fields{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"})), dryRun...)
	})

	const (
		wantMetadata = "and no other label, annotation, owner or finalizer"
		wantSubjects = "the controller may bind ServiceAccounts of namespace " + fenced + " to ClusterRole isthmus-publisher, and no other subject"
		wantContext  = "the controller may write secret, ca_secret (Secrets of secretNames, and their roots), secret_namespacing false, alpn_protocols and ambassador_id, and nothing else"
		wantIssued   = "the controller may ask ClusterIssuer mesh-ca for one SPIFFE ID of namespace " + fenced + ", into Secret istio-certs-issued, and for nothing else"
	)
	edge := fields{"kind": "ServiceAccount", "name": "edge", "namespace": fenced}
	tests := map[string]struct {
		resource schema.GroupVersionResource
		object   fields
		want     string // the refusal; empty if it is allowed
	}{
		"if it binds accounts of the namespace, expect no refusal":    {bindingsResource, binding(nil), ""},
		"if it binds an account of another one, expect a refusal":     {bindingsResource, binding(subjects(edge, fields{"kind": "ServiceAccount", "name": "edge", "namespace": unlabelled})), wantSubjects},
		"if it binds a user, expect a refusal":                        {bindingsResource, binding(subjects(fields{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "thief"})), wantSubjects},
		"if it binds all accounts of the namespace, expect a refusal": {bindingsResource, binding(subjects(fields{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:serviceaccounts:" + fenced})), wantSubjects},
		"if it labels the binding, expect a refusal":                  {bindingsResource, binding(metadata("labels", managedLabels("x", "y"))), wantMetadata},
		"if it claims another manager, expect a refusal":              {bindingsResource, binding(metadata("labels", fields{"app.kubernetes.io/managed-by": "Helm"})), wantMetadata},
		"if it annotates the binding, expect a refusal":               {bindingsResource, binding(metadata("annotations", fields{"x": "y"})), wantMetadata},
		"if it adds a finalizer, expect a refusal":                    {bindingsResource, binding(metadata("finalizers", []string{"example.com/x"})), wantMetadata},
		"if it writes the TLSContext, expect no refusal":              {tlsContextsResource, tlsContext(nil), ""},
		"if the context names another Secret, expect a refusal":       {tlsContextsResource, tlsContext(set("secret", "other")), wantContext},
		"if it names one of another namespace, expect a refusal":      {tlsContextsResource, tlsContext(set("secret", "istio-certs.kube-system")), wantContext},
		"if dots separate namespaces, expect a refusal":               {tlsContextsResource, tlsContext(set("secret_namespacing", true)), wantContext},
		"if it trusts other roots, expect a refusal":                  {tlsContextsResource, tlsContext(set("ca_secret", "other")), wantContext},
		"if it terminates TLS of clients, expect a refusal":           {tlsContextsResource, tlsContext(set("hosts", []string{"*"})), wantContext},
		"if it names a file, expect a refusal":                        {tlsContextsResource, tlsContext(set("private_key_file", "/etc/x")), wantContext},
		"if it asks for a certificate, expect no refusal":             {certificatesResource, certificate(nil), ""},
		"if it overwrites another Secret, expect a refusal":           {certificatesResource, certificate(set("secretName", "other")), wantIssued},
		"if it asks another issuer, expect a refusal":                 {certificatesResource, certificate(set("issuerRef", fields{"name": "public", "kind": "ClusterIssuer"})), wantIssued},
		"if it asks an issuer of the namespace, expect a refusal":     {certificatesResource, certificate(set("issuerRef", fields{"name": "mesh-ca"})), wantIssued},
		"if it asks for another namespace, expect a refusal":          {certificatesResource, certificate(set("uris", []string{"spiffe://cluster.local/ns/kube-system/sa/edge"})), wantIssued},
		"if it asks for two identities, expect a refusal":             {certificatesResource, certificate(set("uris", []string{"spiffe://a/ns/" + fenced + "/sa/a", "spiffe://a/ns/" + fenced + "/sa/b"})), wantIssued},
		"if it asks for no identity, expect a refusal":                {certificatesResource, certificate(set("uris", []string{})), wantIssued},
		"if it asks for a DNS name, expect a refusal":                 {certificatesResource, certificate(set("dnsNames", []string{"example.com"})), wantIssued},
		"if it asks for a CA, expect a refusal":                       {certificatesResource, certificate(set("isCA", true)), wantIssued},
		"if it asks to sign code, expect a refusal":                   {certificatesResource, certificate(set("usages", []string{"code signing"})), wantIssued},
		"if it annotates the Secret, expect a refusal":                {certificatesResource, certificate(set("secretTemplate", fields{"labels": managedLabels(), "annotations": fields{"kubernetes.io/service-account.name": "x"}})), wantIssued},
		"if it wants a keystore, expect a refusal":                    {certificatesResource, certificate(set("keystores", fields{"pkcs12": fields{"create": true}})), wantIssued},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			attempt := func() {
				t.Helper()
				err := apply(attacker, test.resource, fenced, test.object, dryRun...)
				if test.want == "" {
					assert.NoError(t, err)
					return
				}
				assert.NoError(t, checkForbidden(err))
				assert.ErrorContains(t, err, test.want)
			}
			attempt()
			good := map[schema.GroupVersionResource]fields{bindingsResource: binding(nil), tlsContextsResource: tlsContext(nil), certificatesResource: certificate(nil)}[test.resource]
			require.NoError(t, apply(administrator, test.resource, fenced, good))
			attempt()
			require.NoError(t, administrator.Resource(test.resource).Namespace(fenced).Delete(ctx, good.at("metadata")["name"].(string), metav1.DeleteOptions{}))
			assert.NoError(t, apply(administrator, test.resource, fenced, test.object, dryRun...), "the administrator is not restricted")
		})
	}

	for kind, object := range map[schema.GroupVersionResource]fields{bindingsResource: binding(nil), tlsContextsResource: tlsContext(nil), certificatesResource: certificate(nil)} {
		t.Run(kind.Resource+" elsewhere and of somebody else", func(t *testing.T) {
			for _, namespace := range []string{unlabelled, excluded, releaseNamespace, "kube-system"} {
				err := apply(attacker, kind, namespace, object, dryRun...)
				assert.NoError(t, checkForbidden(err), namespace)
				assert.ErrorContains(t, err, "the controller may write in namespaces with the label isthmus.dev/injection=enabled that are not excluded, and "+namespace+" is none")
			}
			name := object.at("metadata")["name"].(string)
			object.at("metadata")["labels"] = fields{"team": "edge"}
			require.NoError(t, apply(administrator, kind, fenced, object))
			remove := func(client dynamic.Interface) error {
				return client.Resource(kind).Namespace(fenced).Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{})
			}
			t.Cleanup(func() { assert.NoError(t, remove(administrator)) })
			const want = "the controller may change and delete objects with the label app.kubernetes.io/managed-by=isthmus, and this one has not got it"
			assert.ErrorContains(t, remove(attacker), want)
			object.at("metadata")["labels"] = managedLabels("team", "edge")
			assert.ErrorContains(t, apply(attacker, kind, fenced, object), want)
		})
	}
}

// patchAsUser adds fields to an object as an administrator, with a field manager of its own.
func patchAsUser(t *testing.T, resource schema.GroupVersionResource, name, patch string) {
	t.Helper()
	administrator, err := dynamic.NewForConfig(admin)
	require.NoError(t, err)
	_, err = administrator.Resource(resource).Namespace(fenced).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	require.NoError(t, err)
}

// Users may add fields to the controller's objects. A server-side apply keeps them, so the
// policy must not refuse what the controller changes beside them.
func TestFieldsOfUsersDoNotBlockTheController(t *testing.T) {
	serveKind(t, tlsContextsResource, "TLSContext", "tlscontext")
	serveKind(t, certificatesResource, "Certificate", "certificate")
	c := install(t, everyOption)
	c.namespace(fenced, enabledNamespace)
	controller := c.dynamicFor(releaseNamespace, controllerName)
	tlsContext := func(spec string) string {
		return `{"apiVersion":"getambassador.io/v3alpha1","kind":"TLSContext","metadata":{"name":"istio-upstream","labels":{"app.kubernetes.io/managed-by":"isthmus"}},
			"spec":{"secret":"istio-certs","secret_namespacing":false` + spec + `}}`
	}
	certificate := func(duration, spec string) string {
		return `{"apiVersion":"cert-manager.io/v1","kind":"Certificate","metadata":{"name":"istio-certs","labels":{"app.kubernetes.io/managed-by":"isthmus"}},
			"spec":{"secretName":"istio-certs-issued","issuerRef":{"name":"mesh-ca","kind":"ClusterIssuer"},"usages":["client auth"],
			"uris":["spiffe://cluster.local/ns/` + fenced + `/sa/edge"],"duration":"` + duration + `"` + spec + `}}`
	}
	const labels = `,"secretTemplate":{"labels":{"app.kubernetes.io/managed-by":"isthmus"}}`
	apply := func(resource schema.GroupVersionResource, name, text string, dryRun ...string) error {
		_, err := controller.Resource(resource).Namespace(fenced).Patch(t.Context(), name, types.ApplyPatchType, []byte(text),
			metav1.PatchOptions{FieldManager: "isthmus", Force: ptr.To(true), DryRun: dryRun})
		return err
	}
	awaitDenial(t, objectPolicy, func() error {
		return apply(tlsContextsResource, "istio-upstream", tlsContext(`,"hosts":["*"]`), dryRun...)
	})

	tests := map[string]struct {
		resource    schema.GroupVersionResource
		name        string
		first, user string // what the controller applies first, and what the user adds to it
		then        string
		wantRefused bool
	}{
		"if the context has a user's field, expect no refusal": {
			tlsContextsResource, "istio-upstream", tlsContext(""), `{"spec":{"min_tls_version":"v1.2","hosts":["example.com"]}}`, tlsContext(`,"ambassador_id":["edge"]`), false,
		},
		"if the controller changes a user's field of the context, expect a refusal": {
			tlsContextsResource, "istio-upstream", tlsContext(""), `{"spec":{"hosts":["example.com"]}}`, tlsContext(`,"hosts":["*"]`), true,
		},
		"if the certificate has a user's fields, expect no refusal": {
			certificatesResource, "istio-certs", certificate("24h", labels), `{"spec":{"subject":{"organizations":["edge"]},"dnsNames":["edge.example.com"]}}`, certificate("6h", labels), false,
		},
		"if the controller changes a user's field of the certificate, expect a refusal": {
			certificatesResource, "istio-certs", certificate("24h", ""), `{"spec":{"dnsNames":["edge.example.com"]}}`, certificate("6h", `,"dnsNames":["example.com"]`), true,
		},
		"if a user annotates and labels the template, expect no refusal": {
			certificatesResource, "istio-certs", certificate("24h", labels), `{"spec":{"secretTemplate":{"annotations":{"a":"b"},"labels":{"team":"edge"}}}}`, certificate("6h", labels), false,
		},
		"if a user wrote the template, expect no refusal of the label": {
			certificatesResource, "istio-certs", certificate("24h", ""), `{"spec":{"secretTemplate":{"annotations":{"a":"b"},"labels":{"team":"edge"}}}}`, certificate("6h", labels), false,
		},
		"if the controller changes a user's annotation, expect a refusal": {
			certificatesResource, "istio-certs", certificate("24h", ""), `{"spec":{"secretTemplate":{"annotations":{"a":"b"}}}}`, certificate("6h", `,"secretTemplate":{"annotations":{"a":"c"}}`), true,
		},
		"if the controller adds an annotation to a user's, expect a refusal": {
			certificatesResource, "istio-certs", certificate("24h", ""), `{"spec":{"secretTemplate":{"annotations":{"a":"b"}}}}`, certificate("6h", `,"secretTemplate":{"annotations":{"kubernetes.io/service-account.name":"x"}}`), true,
		},
		"if the controller adds another label to the template, expect a refusal": {
			certificatesResource, "istio-certs", certificate("24h", labels), `{"spec":{"subject":{"organizations":["edge"]}}}`, certificate("6h", `,"secretTemplate":{"labels":{"team":"edge"}}`), true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, apply(test.resource, test.name, test.first))
			t.Cleanup(func() {
				assert.NoError(t, controller.Resource(test.resource).Namespace(fenced).Delete(context.WithoutCancel(t.Context()), test.name, metav1.DeleteOptions{}))
			})
			patchAsUser(t, test.resource, test.name, test.user)
			err := apply(test.resource, test.name, test.then)
			if test.wantRefused {
				assert.NoError(t, checkForbidden(err))
				return
			}
			assert.NoError(t, err)
		})
	}
}

// What the source cert-manager itself writes passes. No cert-manager runs here, so nothing
// is issued.
func TestTheSourceCertManagerPassesThePolicy(t *testing.T) {
	serveKind(t, certificatesResource, "Certificate", "certificate")
	c := install(t, everyOption)
	c.namespace(fenced, enabledNamespace)
	attacker := c.dynamicFor(releaseNamespace, controllerName)
	awaitDenial(t, objectPolicy, func() error {
		_, err := attacker.Resource(certificatesResource).Namespace(fenced).Patch(t.Context(), "istio-certs", types.ApplyPatchType,
			[]byte(`{"apiVersion":"cert-manager.io/v1","kind":"Certificate","metadata":{"name":"istio-certs"}}`), metav1.PatchOptions{FieldManager: "test", DryRun: dryRun})
		return err
	})
	secrets, err := publish.NewClient(c.configFor(releaseNamespace, controllerName))
	require.NoError(t, err)
	source, err := certmanager.New(certmanager.Options{Dynamic: attacker, Secrets: secrets, Issuer: cmmeta.IssuerReference{Name: "mesh-ca", Kind: "ClusterIssuer"}})
	require.NoError(t, err)
	id, err := certs.Identity("cluster.local", fenced, "edge")
	require.NoError(t, err)
	request := func(ttl time.Duration) {
		t.Helper()
		_, err := source.Bundle(t.Context(), certs.Request{
			Namespace: fenced, ServiceAccount: "edge", Secret: "istio-certs", TTL: ttl,
			Want: certs.Want{ID: id, Roots: []*x509.Certificate{certtest.NewAuthority(t).Certificate}, Now: time.Now()},
		})
		assert.ErrorIs(t, err, certs.ErrPending)
	}
	request(0)
	request(6 * time.Hour)
	patchAsUser(t, certificatesResource, "istio-certs", `{"spec":{"subject":{"organizations":["edge"]},"keystores":{"jks":{"create":true}},
		"secretTemplate":{"labels":{"team":"edge"},"annotations":{"example.com/owner":"edge"}}}}`)
	request(12 * time.Hour)
	current, err := attacker.Resource(certificatesResource).Namespace(fenced).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	require.NoError(t, err)
	duration, _, err := unstructured.NestedString(current.Object, "spec", "duration")
	require.NoError(t, err)
	assert.Equal(t, "12h0m0s", duration, "fields of others do not block a change")
	require.NoError(t, source.Remove(t.Context(), fenced, "istio-certs"))
	_, err = attacker.Resource(certificatesResource).Namespace(fenced).Get(t.Context(), "istio-certs", metav1.GetOptions{})
	assert.True(t, apierrors.IsNotFound(err), "%v", err)
}
