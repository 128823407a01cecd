package servingcert

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

const (
	secretName = "isthmus-webhook-ca"
	// The users that the replicas and the rotator run as.
	webhookUser    = "isthmus-webhook-under-test"
	controllerUser = "isthmus-controller-under-test"
)

// installation holds the objects that the chart installs: an empty Secret, two
// configurations without a caBundle, and permissions for those by name. The webhook may
// read them, the controller may also write.
type installation struct {
	t             *testing.T
	admin         kubernetes.Interface
	webhook       kubernetes.Interface
	controller    kubernetes.Interface
	namespace     string
	configuration string
}

// configurations are the kinds whose caBundle the rotator writes.
var configurations = []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"}

// install creates a namespace whose pods and ConfigMaps are reviewed at address.
func install(t *testing.T, address string) *installation {
	t.Helper()
	client, err := kubernetes.NewForConfig(admin)
	require.NoError(t, err)
	ctx := t.Context()

	namespace, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "servingcert-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	i := &installation{t: t, admin: client, namespace: namespace.Name, configuration: "isthmus-" + namespace.Name}
	t.Cleanup(i.uninstall)

	_, err = client.CoreV1().ServiceAccounts(i.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = client.CoreV1().Secrets(i.namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretName}, Type: corev1.SecretTypeOpaque}, metav1.CreateOptions{})
	require.NoError(t, err)
	i.createMutatingConfiguration(address)
	i.createValidatingConfiguration(address)
	i.allow(webhookUser, "secrets", "", secretName, "get", "watch")
	i.allow(controllerUser, "secrets", "", secretName, "get", "watch", "update")
	for _, kind := range configurations {
		i.allow(webhookUser, kind, "admissionregistration.k8s.io", i.configuration, "get", "watch")
		i.allow(controllerUser, kind, "admissionregistration.k8s.io", i.configuration, "get", "watch", "patch")
	}
	i.webhook, i.controller = i.clientAs(webhookUser), i.clientAs(controllerUser)
	return i
}

// clientAs returns a client with the permissions of a user of this installation.
func (i *installation) clientAs(user string) kubernetes.Interface {
	i.t.Helper()
	restricted := rest.CopyConfig(admin)
	restricted.Impersonate = rest.ImpersonationConfig{UserName: user + "-" + i.namespace}
	client, err := kubernetes.NewForConfig(restricted)
	require.NoError(i.t, err)
	return client
}

func (i *installation) createMutatingConfiguration(address string) {
	i.t.Helper()
	webhook := func(name string) admissionregistrationv1.MutatingWebhook {
		return admissionregistrationv1.MutatingWebhook{
			Name:                    name,
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: ptr.To("https://" + address + "/mutate")},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: i.namespace}},
			FailurePolicy:           ptr.To(admissionregistrationv1.Fail),
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
			TimeoutSeconds:          ptr.To[int32](10),
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}
	}
	_, err := i.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(i.t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: i.configuration, Labels: map[string]string{"keep": "me"}},
		Webhooks:   []admissionregistrationv1.MutatingWebhook{webhook("namespace.isthmus.dev"), webhook("pod.isthmus.dev")},
	}, metav1.CreateOptions{})
	require.NoError(i.t, err)
}

// createValidatingConfiguration sends ConfigMaps to the same server. It fails closed,
// unlike the chart's, so that the test notices a review that does not arrive.
func (i *installation) createValidatingConfiguration(address string) {
	i.t.Helper()
	_, err := i.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(i.t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: i.configuration, Labels: map[string]string{"keep": "me"}},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name:                    "template.isthmus.dev",
			ClientConfig:            admissionregistrationv1.WebhookClientConfig{URL: ptr.To("https://" + address + "/validate")},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: i.namespace}},
			FailurePolicy:           ptr.To(admissionregistrationv1.Fail),
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
			TimeoutSeconds:          ptr.To[int32](10),
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
		}},
	}, metav1.CreateOptions{})
	require.NoError(i.t, err)
}

// allow grants verbs on one named object, never list or create.
func (i *installation) allow(user, resource, group, name string, verbs ...string) {
	i.t.Helper()
	role, err := i.admin.RbacV1().ClusterRoles().Create(i.t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: i.namespace + "-" + user + "-" + resource},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: []string{name}, Verbs: verbs}},
	}, metav1.CreateOptions{})
	require.NoError(i.t, err)
	_, err = i.admin.RbacV1().ClusterRoleBindings().Create(i.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user + "-" + i.namespace}},
	}, metav1.CreateOptions{})
	require.NoError(i.t, err)
}

func (i *installation) uninstall() {
	ctx := context.Background() // the test's context has ended
	_ = i.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, i.configuration, metav1.DeleteOptions{})
	_ = i.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(ctx, i.configuration, metav1.DeleteOptions{})
	for _, user := range []string{webhookUser, controllerUser} {
		for _, resource := range append(configurations, "secrets") {
			name := i.namespace + "-" + user + "-" + resource
			_ = i.admin.RbacV1().ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{})
			_ = i.admin.RbacV1().ClusterRoles().Delete(ctx, name, metav1.DeleteOptions{})
		}
	}
	_ = i.admin.CoreV1().Secrets(i.namespace).Delete(ctx, secretName, metav1.DeleteOptions{})
	_ = i.admin.CoreV1().Namespaces().Delete(ctx, i.namespace, metav1.DeleteOptions{})
}

func (i *installation) secret() *corev1.Secret {
	i.t.Helper()
	secret, err := i.admin.CoreV1().Secrets(i.namespace).Get(i.t.Context(), secretName, metav1.GetOptions{})
	require.NoError(i.t, err)
	return secret
}

func (i *installation) mutatingConfiguration() *admissionregistrationv1.MutatingWebhookConfiguration {
	i.t.Helper()
	configuration, err := i.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(i.t.Context(), i.configuration, metav1.GetOptions{})
	require.NoError(i.t, err)
	return configuration
}

func (i *installation) validatingConfiguration() *admissionregistrationv1.ValidatingWebhookConfiguration {
	i.t.Helper()
	configuration, err := i.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(i.t.Context(), i.configuration, metav1.GetOptions{})
	require.NoError(i.t, err)
	return configuration
}

// createConfigMap creates a ConfigMap, as a dry run.
func (i *installation) createConfigMap() error {
	_, err := i.admin.CoreV1().ConfigMaps(i.namespace).Create(i.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "config-"}},
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// createPod creates a pod, as a dry run.
func (i *installation) createPod() error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-"},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false),
			Containers:                   []corev1.Container{{Name: "main", Image: "registry.test/main:1"}},
		},
	}
	_, err := i.admin.CoreV1().Pods(i.namespace).Create(i.t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}
