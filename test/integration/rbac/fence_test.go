package rbac

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// The ValidatingAdmissionPolicies of the chart.
const (
	secretPolicy  = "isthmus-secrets"
	objectPolicy  = "isthmus-controller-objects"
	webhookPolicy = "isthmus-controller-webhooks"
)

var (
	enabledNamespace = map[string]string{"isthmus.dev/injection": "enabled"}
	dryRun           = []string{metav1.DryRunAll}
)

// fields are the fields of an object.
type fields map[string]any

func (f fields) json(t *testing.T) []byte {
	t.Helper()
	raw, err := json.Marshal(f)
	require.NoError(t, err)
	return raw
}

// managedLabels are the labels of what the controller manages, and more.
func managedLabels(more ...string) fields {
	all := fields{"app.kubernetes.io/managed-by": "isthmus"}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

// secretFields are the fields of the edge's Secret as the controller applies it, changed.
func secretFields(name string, change func(fields)) fields {
	f := fields{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
		"metadata": fields{"name": name, "labels": managedLabels(), "annotations": fields{"isthmus.dev/spiffe-id": "spiffe://cluster.local/ns/edge/sa/edge", "isthmus.dev/serial": "1"}},
		"data":     fields{"tls.crt": "YQ==", "tls.key": "YQ==", "ca.crt": "YQ==", "root-cert.pem": "YQ=="},
	}
	if name == "istio-certs-roots" {
		f["type"], f["data"] = "Opaque", fields{"tls.crt": "YQ==", "ca.crt": "YQ=="}
	}
	if change != nil {
		change(f)
	}
	return f
}

func (f fields) at(path ...string) fields {
	for _, key := range path {
		f = f[key].(fields)
	}
	return f
}

// applySecret applies a Secret by its name, as the controller and publishers do.
func applySecret(ctx context.Context, t *testing.T, client kubernetes.Interface, namespace string, f fields, dryRun ...string) error {
	t.Helper()
	_, err := client.CoreV1().Secrets(namespace).Patch(ctx, f.at("metadata")["name"].(string), types.ApplyPatchType, f.json(t),
		metav1.PatchOptions{FieldManager: "isthmus", Force: ptr.To(true), DryRun: dryRun})
	return err
}

// tokenSecret makes a Secret of the type that Kubernetes fills in with a token of the
// service account.
func tokenSecret(account string) func(fields) {
	return func(f fields) {
		f["type"] = string(corev1.SecretTypeServiceAccountToken)
		f.at("metadata")["annotations"] = fields{corev1.ServiceAccountNameKey: account}
		delete(f, "data")
	}
}

// createSecret creates a Secret as the administrator until the test ends.
func (c *cluster) createSecret(namespace string, secret *corev1.Secret) {
	c.t.Helper()
	_, err := c.admin.CoreV1().Secrets(namespace).Create(c.t.Context(), secret, metav1.CreateOptions{})
	require.NoError(c.t, err)
	c.deleteSecretAfter(namespace, secret.Name)
}

func (c *cluster) deleteSecretAfter(namespace, name string) {
	c.t.Helper()
	c.t.Cleanup(func() {
		if err := c.admin.CoreV1().Secrets(namespace).Delete(context.Background(), name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			assert.NoError(c.t, err)
		}
	})
}

// awaitDenial waits until the API server, which observes policies by a watch, enforces one.
func awaitDenial(t *testing.T, policy string, attempt func() error) {
	t.Helper()
	require.EventuallyWithT(t, func(collect *assert.CollectT) {
		assert.ErrorContains(collect, attempt(), "ValidatingAdmissionPolicy '"+policy+"'")
	}, 30*time.Second, 50*time.Millisecond)
}

// awaitSecretPolicy waits until the API server enforces the policy for Secrets.
func (c *cluster) awaitSecretPolicy(namespace string) {
	c.t.Helper()
	controller := c.clientFor(releaseNamespace, controllerName)
	awaitDenial(c.t, secretPolicy, func() error {
		return applySecret(c.t.Context(), c.t, controller, namespace, secretFields("istio-certs", tokenSecret("edge")), dryRun...)
	})
}

// The controller manager compares the policies with the types of the objects, and has no
// objection.
func TestPoliciesHaveNoTypeErrors(t *testing.T) {
	c := install(t, everyOption)
	for _, name := range policyNames {
		require.EventuallyWithT(t, func(collect *assert.CollectT) {
			policy, err := c.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), name, metav1.GetOptions{})
			if !assert.NoError(collect, err) || !assert.NotNil(collect, policy.Status.TypeChecking, name) {
				return
			}
			assert.Empty(collect, policy.Status.TypeChecking.ExpressionWarnings, name)
		}, 30*time.Second, 50*time.Millisecond)
	}
}

const (
	fenced   = "rbac-fenced"
	copying  = "rbac-copying"
	unfenced = "rbac-unfenced"
)

// fencedNamespaces creates an opted-in namespace with a publisher and one that asks for a
// copy.
func (c *cluster) fencedNamespaces() {
	c.t.Helper()
	c.namespace(fenced, enabledNamespace)
	c.namespace(unlabelled, map[string]string{"team": "edge"})
	c.namespace(locked, map[string]string{"isthmus.dev/injection": "disabled"})
	c.namespace(excluded, enabledNamespace)
	c.namespace(copying, nil)
	_, err := c.admin.CoreV1().Namespaces().Patch(c.t.Context(), copying, types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"isthmus.dev/copy-from":"rbac-fenced/istio-certs"}}}`), metav1.PatchOptions{})
	require.NoError(c.t, err)
	c.bindPublisher(fenced)
}

const excludedValues = "webhook: {excludedNamespaces: [" + excluded + "]}"

// Kubernetes fills in a Secret of one type with a token of any account of the namespace. An
// account that may write one Secret would get the rights of all of them.
func TestAStolenTokenMintsNoTokens(t *testing.T) {
	c := install(t, excludedValues)
	c.fencedNamespaces()
	ctx := t.Context()
	_, err := c.admin.CoreV1().ServiceAccounts(fenced).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "victim"}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		require.NoError(t, err)
	}
	attackers := map[string]*kubernetes.Clientset{
		"the controller": c.clientFor(releaseNamespace, controllerName), "a publisher": c.clientFor(fenced, "edge"),
	}
	c.awaitSecretPolicy(fenced)
	secrets := c.admin.CoreV1().Secrets(fenced)
	for name, attacker := range attackers {
		t.Run("with the policy "+name+" is refused, for every type", func(t *testing.T) {
			err := applySecret(ctx, t, attacker, fenced, secretFields("istio-certs", tokenSecret("victim")))
			assert.NoError(t, checkForbidden(err))
			assert.ErrorContains(t, err, "Isthmus may write a Secret of type kubernetes.io/tls, and not of type kubernetes.io/service-account-token")
			for _, secretType := range []string{"Opaque", "", "kubernetes.io/dockercfg", "kubernetes.io/basic-auth", "bootstrap.kubernetes.io/token", "example.com/any"} {
				err := applySecret(ctx, t, attacker, fenced, secretFields("istio-certs", func(f fields) {
					f["type"], f["data"] = secretType, fields{".dockercfg": "e30=", "username": "YQ=="}
				}))
				assert.NoError(t, checkForbidden(err), secretType)
			}
			_, err = secrets.Get(ctx, "istio-certs", metav1.GetOptions{})
			assert.True(t, apierrors.IsNotFound(err), "%v", err)
		})
		t.Run("with the policy "+name+" cannot change one that exists", func(t *testing.T) {
			for _, labels := range []map[string]string{nil, {"app.kubernetes.io/managed-by": "isthmus"}} {
				c := &cluster{t: t, admin: c.admin}
				c.createSecret(fenced, &corev1.Secret{
					ObjectMeta: metav1.ObjectMeta{Name: "istio-certs", Labels: labels, Annotations: map[string]string{corev1.ServiceAccountNameKey: "edge", "isthmus.dev/adopt": "true"}},
					Type:       corev1.SecretTypeServiceAccountToken,
				})
				_, err := attacker.CoreV1().Secrets(fenced).Patch(ctx, "istio-certs", types.MergePatchType,
					[]byte(`{"metadata":{"labels":{"app.kubernetes.io/managed-by":"isthmus"},"annotations":{"kubernetes.io/service-account.name":"victim"}}}`), metav1.PatchOptions{})
				assert.NoError(t, checkForbidden(err))
				require.NoError(t, c.admin.CoreV1().Secrets(fenced).Delete(ctx, "istio-certs", metav1.DeleteOptions{}))
			}
		})
	}

	require.NoError(t, c.admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(ctx, secretPolicy, metav1.DeleteOptions{}))
	for name, attacker := range attackers {
		t.Run("without the policy "+name+" becomes another account", func(t *testing.T) {
			c := &cluster{t: t, admin: c.admin}
			c.deleteSecretAfter(fenced, "istio-certs")
			require.EventuallyWithT(t, func(collect *assert.CollectT) {
				assert.NoError(collect, applySecret(ctx, t, attacker, fenced, secretFields("istio-certs", tokenSecret("victim"))))
			}, 30*time.Second, 50*time.Millisecond)
			var token []byte
			require.EventuallyWithT(t, func(collect *assert.CollectT) {
				secret, err := attacker.CoreV1().Secrets(fenced).Get(ctx, "istio-certs", metav1.GetOptions{})
				if assert.NoError(collect, err) {
					token = secret.Data[corev1.ServiceAccountTokenKey]
					assert.NotEmpty(collect, token)
				}
			}, 30*time.Second, 50*time.Millisecond)
			require.EventuallyWithT(t, func(collect *assert.CollectT) {
				user, err := userOf(ctx, string(token))
				assert.NoError(collect, err)
				assert.Equal(collect, userName(fenced, "victim"), user)
			}, 30*time.Second, 50*time.Millisecond, "the API server observes the token's Secret by a watch")
		})
	}
}

// Only the changes that a publisher and the controller make to Secrets pass.
func TestSecretsAreFenced(t *testing.T) {
	c := install(t, excludedValues)
	c.fencedNamespaces()
	ctx := t.Context()
	c.namespace(unfenced, enabledNamespace)
	controller, publisher := c.clientFor(releaseNamespace, controllerName), c.clientFor(fenced, "edge")
	c.awaitSecretPolicy(fenced)
	label, annotation := func(key, value string) func(fields) {
		return func(f fields) { f.at("metadata", "labels")[key] = value }
	}, func(key, value string) func(fields) {
		return func(f fields) { f.at("metadata", "annotations")[key] = value }
	}
	data := func(key string) func(fields) { return func(f fields) { f.at("data")[key] = "YQ==" } }
	metadata := func(key string, value any) func(fields) {
		return func(f fields) { f.at("metadata")[key] = value }
	}

	const (
		wantAnnotations = "Isthmus may write its own annotations about the certificate, and no others"
		wantMetadata    = "the controller may set the label app.kubernetes.io/managed-by=isthmus, and no other label, owner or finalizer, and may not make a Secret immutable"
		wantKeys        = "the controller may write the keys "
		wantNamespace   = "the controller may write Secrets in namespaces with the label isthmus.dev/injection=enabled or the annotation isthmus.dev/copy-from that are not excluded, and "
	)
	owner := []any{fields{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}}
	tests := map[string]struct {
		attacker        kubernetes.Interface
		namespace, name string
		change          func(fields)
		want            string // the refusal; empty if it is allowed
		onlyCreate      bool   // the same update is allowed, or means nothing
	}{
		"if the controller writes the edge's Secret, expect no refusal":  {controller, fenced, "istio-certs", nil, "", false},
		"if the controller writes the roots, expect no refusal":          {controller, fenced, "istio-certs-roots", nil, "", false},
		"if the controller nudges, expect no refusal":                    {controller, fenced, "istio-certs", annotation("isthmus.dev/nudge", "1"), "", false},
		"if the controller copies, expect no refusal":                    {controller, copying, "istio-certs", annotation("isthmus.dev/copy-of", "a/b/c"), "", false},
		"if the controller writes another label, expect a refusal":       {controller, fenced, "istio-certs", label("argocd.argoproj.io/secret-type", "cluster"), wantMetadata, false},
		"if it claims another manager, expect a refusal":                 {controller, fenced, "istio-certs", label("app.kubernetes.io/managed-by", "Helm"), wantMetadata, false},
		"if it writes an annotation of Kubernetes, expect a refusal":     {controller, fenced, "istio-certs", annotation("kubernetes.io/service-account.name", "victim"), wantAnnotations, false},
		"if it writes an annotation of somebody else, expect a refusal":  {controller, fenced, "istio-certs", annotation("replicator.v1.mittwald.de/replicate-from", "kube-system/x"), wantAnnotations, false},
		"if it adopts the Secret itself, expect a refusal":               {controller, fenced, "istio-certs", annotation("isthmus.dev/adopt", "true"), wantAnnotations, false},
		"if it writes another key, expect a refusal":                     {controller, fenced, "istio-certs", data("token"), wantKeys + "tls.crt, tls.key, ca.crt, root-cert.pem", false},
		"if it writes a key beside the roots, expect a refusal":          {controller, fenced, "istio-certs-roots", data("tls.key"), wantKeys + "tls.crt, ca.crt", false},
		"if it makes the Secret immutable, expect a refusal":             {controller, fenced, "istio-certs", func(f fields) { f["immutable"] = true }, wantMetadata, false},
		"if it gives the Secret an owner, expect a refusal":              {controller, fenced, "istio-certs", metadata("ownerReferences", owner), wantMetadata, false},
		"if it gives the Secret a finalizer, expect a refusal":           {controller, fenced, "istio-certs", metadata("finalizers", []any{"example.com/stuck"}), wantMetadata, false},
		"if the namespace has no label, expect a refusal":                {controller, unlabelled, "istio-certs", nil, wantNamespace + unlabelled + " is none", false},
		"if the namespace is locked, expect a refusal":                   {controller, locked, "istio-certs", nil, wantNamespace + locked + " is none", false},
		"if the namespace is excluded, expect a refusal":                 {controller, excluded, "istio-certs", nil, wantNamespace + excluded + " is none", false},
		"if it is Isthmus' own namespace, expect a refusal":              {controller, releaseNamespace, "istio-certs", nil, wantNamespace + releaseNamespace + " is none", false},
		"if it is kube-system, expect a refusal":                         {controller, "kube-system", "istio-certs", nil, wantNamespace + "kube-system is none", false},
		"if a publisher writes the edge's Secret, expect no refusal":     {publisher, fenced, "istio-certs", nil, "", false},
		"if a publisher writes an annotation of Kubernetes, expect one":  {publisher, fenced, "istio-certs", annotation("kubernetes.io/service-account.name", "victim"), wantAnnotations, false},
		"if a publisher writes an annotation of somebody, expect one":    {publisher, fenced, "istio-certs", annotation("replicator.v1.mittwald.de/replicate-from", "kube-system/x"), wantAnnotations, false},
		"if the controller makes the roots a TLS Secret, expect refusal": {controller, fenced, "istio-certs-roots", func(f fields) { f["type"] = "kubernetes.io/tls"; data("tls.key")(f) }, "and not of type kubernetes.io/tls", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := &cluster{t: t, admin: c.admin}
			attempt := func() {
				t.Helper()
				err := applySecret(ctx, t, test.attacker, test.namespace, secretFields(test.name, test.change), dryRun...)
				if test.want == "" {
					assert.NoError(t, err)
					return
				}
				assert.NoError(t, checkForbidden(err))
				assert.ErrorContains(t, err, test.want)
			}
			attempt()
			if test.onlyCreate {
				return
			}
			require.NoError(t, applySecret(ctx, t, c.admin, test.namespace, secretFields(test.name, nil)), "the administrator is not restricted")
			c.deleteSecretAfter(test.namespace, test.name)
			attempt()
		})
	}
}

// A Secret that Isthmus does not manage stays as it is, unless its owner gives it to
// Isthmus. Its other contents stay in any case.
func TestForeignSecretsAreFenced(t *testing.T) {
	c := install(t, excludedValues)
	c.fencedNamespaces()
	ctx := t.Context()
	controller, publisher := c.clientFor(releaseNamespace, controllerName), c.clientFor(fenced, "edge")
	c.awaitSecretPolicy(fenced)
	foreign := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: "istio-certs", Labels: map[string]string{"team": "edge", "app.kubernetes.io/managed-by": "Helm"}, Finalizers: []string{"example.com/kept"},
			Annotations: map[string]string{"kubernetes.io/description": "by hand", "example.com/kept": "1"},
		},
		Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"other": []byte("a")},
	}
	secrets := c.admin.CoreV1().Secrets(fenced)
	c.createSecret(fenced, foreign)
	t.Cleanup(func() {
		_, err := secrets.Patch(context.Background(), foreign.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		assert.NoError(t, err)
	})
	annotate := func(annotations string) {
		t.Helper()
		_, err := secrets.Patch(ctx, foreign.Name, types.MergePatchType, []byte(`{"metadata":{"annotations":`+annotations+`}}`), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	write := func(client kubernetes.Interface, change func(fields)) error {
		return applySecret(ctx, t, client, fenced, secretFields("istio-certs", func(f fields) {
			f["type"] = "Opaque"
			if change != nil {
				change(f)
			}
		}), dryRun...)
	}
	remove := func() error {
		return controller.CoreV1().Secrets(fenced).Delete(ctx, foreign.Name, metav1.DeleteOptions{DryRun: dryRun})
	}
	const want = "the controller may change and delete Secrets with the label app.kubernetes.io/managed-by=isthmus"

	assert.ErrorContains(t, write(controller, nil), want)
	assert.ErrorContains(t, remove(), want)
	assert.NoError(t, write(publisher, nil), "an account of the namespace may write by its own right")
	assert.Error(t, write(publisher, func(f fields) { f.at("metadata")["annotations"] = fields{"kubernetes.io/description": "other"} }))

	annotate(`{"isthmus.dev/adopt":"true"}`)
	assert.NoError(t, write(controller, nil), "its owner gave it to Isthmus")
	assert.ErrorContains(t, remove(), want, "and may want it back")
	assert.ErrorContains(t, write(controller, func(f fields) { f.at("metadata")["labels"] = managedLabels("team", "other") }), "and no other label")

	require.NoError(t, applySecret(ctx, t, c.admin, fenced, secretFields("istio-certs", func(f fields) { f["type"] = "Opaque" })))
	annotate(`{"isthmus.dev/adopt":null}`)
	assert.NoError(t, write(controller, nil))
	assert.NoError(t, remove(), "Isthmus manages it now")
}

// An account that may create Secrets of any name in its namespace is no publisher.
func TestOtherAccountsAreNotFenced(t *testing.T) {
	c := install(t, excludedValues)
	c.fencedNamespaces()
	ctx := t.Context()
	c.awaitSecretPolicy(fenced)
	_, err := c.admin.CoreV1().ServiceAccounts(fenced).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "deployer"}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		require.NoError(t, err)
	}
	binding, err := c.admin.RbacV1().RoleBindings(fenced).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "deployer-"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "deployer", Namespace: fenced}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, c.admin.RbacV1().RoleBindings(fenced).Delete(context.Background(), binding.Name, metav1.DeleteOptions{}))
	})
	deployer := c.clientFor(fenced, "deployer")
	byHand := secretFields("istio-certs", func(f fields) {
		f["type"], f["data"] = "Opaque", fields{"a": "YQ=="}
		f["metadata"] = fields{"name": "istio-certs", "annotations": fields{"meta.helm.sh/release-name": "edge"}}
	})
	require.EventuallyWithT(t, func(collect *assert.CollectT) {
		assert.NoError(collect, applySecret(ctx, t, deployer, fenced, byHand, dryRun...))
	}, 30*time.Second, 50*time.Millisecond, "the role edit is aggregated, and the API server observes it by a watch")
	assert.NoError(t, applySecret(ctx, t, c.admin, fenced, secretFields("istio-certs", tokenSecret("edge")), dryRun...), "the administrator")
}

// The API server limits the cost of an expression, and an expression that costs more refuses
// the request. A Secret with 10,000 annotations and almost 1 MiB of data stays below.
func TestLargeSecretsPassThePolicy(t *testing.T) {
	c := install(t, excludedValues)
	c.fencedNamespaces()
	ctx := t.Context()
	controller := c.clientFor(releaseNamespace, controllerName)
	c.awaitSecretPolicy(fenced)
	annotations, large := map[string]string{}, make([]byte, 500<<10)
	for i := range 10000 {
		annotations[strconv.Itoa(i)] = "v"
	}
	c.createSecret(fenced, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-certs", Labels: map[string]string{"app.kubernetes.io/managed-by": "isthmus"}, Annotations: annotations},
		Type:       corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": {}, "tls.key": {}, "other": large, "another": large},
	})
	assert.NoError(t, applySecret(ctx, t, controller, fenced, secretFields("istio-certs", nil)))
}
