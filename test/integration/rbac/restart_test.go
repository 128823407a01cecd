package rbac

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/internal/restart"
)

const (
	annotatedNamespace   = "rbac-asking"
	unannotatedNamespace = "rbac-silent"
)

// restartValues are values of the chart with which the controller may restart workloads.
const restartValues = "controller: {restartStale: {enabled: true}}\nwebhook: {excludedNamespaces: [" + excluded + "]}"

// workloadMeta returns the metadata of a workload with this value of the annotation
// isthmus.dev/restart-when-stale. Empty means no annotation.
func workloadMeta(name, restartWhenStale string) metav1.ObjectMeta {
	o := metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": "edge"}, Annotations: map[string]string{"example.com/kept": "1"}}
	if restartWhenStale != "" {
		o.Annotations["isthmus.dev/restart-when-stale"] = restartWhenStale
	}
	return o
}

func podTemplate() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "edge"}, Annotations: map[string]string{"example.com/kept": "1"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "edge", Image: "edge:1", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}}},
	}
}

var selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "edge"}}

// deploy creates a Deployment until the test ends.
func (c *cluster) deploy(namespace, name, restartWhenStale string) {
	c.t.Helper()
	_, err := c.admin.AppsV1().Deployments(namespace).Create(c.t.Context(), &appsv1.Deployment{
		ObjectMeta: workloadMeta(name, restartWhenStale), Spec: appsv1.DeploymentSpec{Selector: selector, Template: podTemplate()},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	c.t.Cleanup(func() {
		assert.NoError(c.t, c.admin.AppsV1().Deployments(namespace).Delete(context.Background(), name, metav1.DeleteOptions{}))
	})
}

func patchDeployment(ctx context.Context, client kubernetes.Interface, namespace, name, patch string, subresources ...string) error {
	_, err := client.AppsV1().Deployments(namespace).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "attacker"}, subresources...)
	return err
}

// restartPatch is the patch that the controller sends.
const restartPatch = `{"metadata":{"annotations":{"isthmus.dev/restarted-for":"0a1b2c3d4e5f6071"}},
	"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-11-21T22:00:00Z"}}}}}`

// mergedPatch returns restartPatch merged with another patch.
func mergedPatch(t *testing.T, addition string) string {
	t.Helper()
	var all, extra map[string]any
	require.NoError(t, json.Unmarshal([]byte(restartPatch), &all))
	require.NoError(t, json.Unmarshal([]byte(addition), &extra))
	var merge func(into, from map[string]any)
	merge = func(into, from map[string]any) {
		for key, value := range from {
			nested, isMap := value.(map[string]any)
			if existing, ok := into[key].(map[string]any); ok && isMap {
				merge(existing, nested)
				continue
			}
			into[key] = value
		}
	}
	merge(all, extra)
	raw, err := json.Marshal(all)
	require.NoError(t, err)
	return string(raw)
}

// An attacker with the token of a controller that may restart workloads cannot do more.
func TestAStolenControllerTokenChangesNoWorkload(t *testing.T) {
	c := install(t, restartValues)
	enabled := map[string]string{"isthmus.dev/injection": "enabled"}
	c.namespace(unannotatedNamespace, enabled)
	c.namespace(excluded, enabled)
	c.namespace(unlabelled, nil)
	c.namespace(annotatedNamespace, enabled)
	ctx := t.Context()
	_, err := c.admin.CoreV1().Namespaces().Patch(ctx, annotatedNamespace, types.MergePatchType, []byte(`{"metadata":{"annotations":{"isthmus.dev/restart-when-stale":"true"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	for namespace, workloads := range map[string]map[string]string{
		unannotatedNamespace: {"asks": "true", "silent": "", "wrong": "yes"}, annotatedNamespace: {"silent": "", "declines": "false"}, excluded: {"asks": "true"}, unlabelled: {"asks": "true"},
	} {
		for name, restartWhenStale := range workloads {
			c.deploy(namespace, name, restartWhenStale)
		}
	}
	attacker := c.clientFor(releaseNamespace, controllerName)
	c.awaitPolicy(attacker)

	const wantOnlyRestart = "the controller may change of a workload its annotation isthmus.dev/restarted-for and, in its pod template, kubectl.kubernetes.io/restartedAt, and nothing else"
	const wantFormat = "the controller may write a hash into isthmus.dev/restarted-for and a time of UTC into kubectl.kubernetes.io/restartedAt"
	const wantAnnotation = "the controller may restart workloads that ask for it with the annotation isthmus.dev/restart-when-stale, of their own or of their namespace, and "
	const wantNamespace = "the controller may restart workloads in namespaces with the label isthmus.dev/injection=enabled that are not excluded, and "
	tests := map[string]struct {
		namespace, name, patch string
		want                   string // the refusal; empty if the patch is allowed
	}{
		"if the workload asks for a restart, expect no refusal":         {unannotatedNamespace, "asks", restartPatch, ""},
		"if the namespace asks for restarts, expect no refusal":         {annotatedNamespace, "silent", restartPatch, ""},
		"if neither asks for a restart, expect a refusal":               {unannotatedNamespace, "silent", restartPatch, wantAnnotation + "silent does not"},
		"if the annotation's value is invalid, expect a refusal":        {unannotatedNamespace, "wrong", restartPatch, wantAnnotation},
		"if the workload declines, expect a refusal":                    {annotatedNamespace, "declines", restartPatch, wantAnnotation + "declines does not"},
		"if it adds the annotation itself, expect a refusal":            {unannotatedNamespace, "silent", mergedPatch(t, `{"metadata":{"annotations":{"isthmus.dev/restart-when-stale":"true"}}}`), wantOnlyRestart},
		"if the namespace is not opted in, expect a refusal":            {unlabelled, "asks", restartPatch, wantNamespace + unlabelled + " is none"},
		"if the namespace is excluded, expect a refusal":                {excluded, "asks", restartPatch, wantNamespace + excluded + " is none"},
		"if it changes the image, expect a refusal":                     {unannotatedNamespace, "asks", mergedPatch(t, `{"spec":{"template":{"spec":{"containers":[{"name":"edge","image":"evil:1"}]}}}}`), wantOnlyRestart},
		"if it adds a volume, expect a refusal":                         {unannotatedNamespace, "asks", mergedPatch(t, `{"spec":{"template":{"spec":{"volumes":[{"name":"x","hostPath":{"path":"/"}}]}}}}`), wantOnlyRestart},
		"if it changes the service account, expect a refusal":           {unannotatedNamespace, "asks", mergedPatch(t, `{"spec":{"template":{"spec":{"serviceAccountName":"admin"}}}}`), wantOnlyRestart},
		"if it scales the workload, expect a refusal":                   {unannotatedNamespace, "asks", mergedPatch(t, `{"spec":{"replicas":0}}`), wantOnlyRestart},
		"if it pauses the workload, expect a refusal":                   {unannotatedNamespace, "asks", mergedPatch(t, `{"spec":{"paused":true}}`), wantOnlyRestart},
		"if it changes the update strategy, expect a refusal":           {unannotatedNamespace, "asks", mergedPatch(t, `{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}`), wantOnlyRestart},
		"if it labels the pods, expect a refusal":                       {unannotatedNamespace, "asks", mergedPatch(t, `{"spec":{"template":{"metadata":{"labels":{"x":"y"}}}}}`), wantOnlyRestart},
		"if it annotates the pods, expect a refusal":                    {unannotatedNamespace, "asks", mergedPatch(t, `{"spec":{"template":{"metadata":{"annotations":{"isthmus.dev/inject":"false"}}}}}`), wantOnlyRestart},
		"if it removes an annotation of the pods, expect a refusal":     {unannotatedNamespace, "asks", mergedPatch(t, `{"spec":{"template":{"metadata":{"annotations":{"example.com/kept":null}}}}}`), wantOnlyRestart},
		"if it annotates the workload, expect a refusal":                {unannotatedNamespace, "asks", mergedPatch(t, `{"metadata":{"annotations":{"x":"y"}}}`), wantOnlyRestart},
		"if it removes an annotation of the workload, expect a refusal": {unannotatedNamespace, "asks", mergedPatch(t, `{"metadata":{"annotations":{"example.com/kept":null}}}`), wantOnlyRestart},
		"if it writes a DaemonSet's annotation, expect a refusal":       {unannotatedNamespace, "asks", mergedPatch(t, `{"metadata":{"annotations":{"deprecated.daemonset.template.generation":"7"}}}`), wantOnlyRestart},
		"if it labels the workload, expect a refusal":                   {unannotatedNamespace, "asks", mergedPatch(t, `{"metadata":{"labels":{"x":"y"}}}`), wantOnlyRestart},
		"if it removes the labels of the workload, expect a refusal":    {unannotatedNamespace, "asks", mergedPatch(t, `{"metadata":{"labels":null}}`), wantOnlyRestart},
		"if it adds an owner, expect a refusal":                         {unannotatedNamespace, "asks", mergedPatch(t, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Secret","name":"x","uid":"1"}]}}`), wantOnlyRestart},
		"if it adds a finalizer, expect a refusal":                      {unannotatedNamespace, "asks", mergedPatch(t, `{"metadata":{"finalizers":["example.com/never"]}}`), wantOnlyRestart},
		"if restarted-for is not a hash, expect a refusal":              {unannotatedNamespace, "asks", mergedPatch(t, `{"metadata":{"annotations":{"isthmus.dev/restarted-for":"a long story"}}}`), wantFormat},
		"if restartedAt is not a time, expect a refusal":                {unannotatedNamespace, "asks", mergedPatch(t, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}}}}}`), wantFormat},
		"if it removes restarted-for, expect a refusal":                 {unannotatedNamespace, "asks", mergedPatch(t, `{"metadata":{"annotations":{"isthmus.dev/restarted-for":null}}}`), wantFormat},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := patchDeployment(t.Context(), attacker, test.namespace, test.name, test.patch)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			assert.NoError(t, checkForbidden(err))
			assert.ErrorContains(t, err, test.want)
		})
	}
	t.Run("other users are not restricted", func(t *testing.T) {
		assert.NoError(t, patchDeployment(t.Context(), c.admin, unannotatedNamespace, "asks", `{"spec":{"replicas":3}}`))
	})
	for _, subresource := range []string{"scale", "status"} {
		t.Run("the subresource "+subresource+" is forbidden", func(t *testing.T) {
			assert.NoError(t, checkForbidden(patchDeployment(t.Context(), attacker, unannotatedNamespace, "asks", `{"spec":{"replicas":0}}`, subresource)))
		})
	}
	t.Run("the same holds for StatefulSet and DaemonSet", func(t *testing.T) { c.testOtherKinds(t, attacker) })
}

func (c *cluster) testOtherKinds(t *testing.T, attacker kubernetes.Interface) {
	ctx := t.Context()
	_, err := c.admin.AppsV1().StatefulSets(unannotatedNamespace).Create(ctx, &appsv1.StatefulSet{
		ObjectMeta: workloadMeta("asks", "true"), Spec: appsv1.StatefulSetSpec{Selector: selector, Template: podTemplate()},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = c.admin.AppsV1().DaemonSets(unannotatedNamespace).Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: workloadMeta("asks", "true"), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: podTemplate()},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, c.admin.AppsV1().StatefulSets(unannotatedNamespace).Delete(context.Background(), "asks", metav1.DeleteOptions{}))
		assert.NoError(t, c.admin.AppsV1().DaemonSets(unannotatedNamespace).Delete(context.Background(), "asks", metav1.DeleteOptions{}))
	})
	for kind, patch := range map[string]func(string) error{
		"StatefulSet": func(patch string) error {
			_, err := attacker.AppsV1().StatefulSets(unannotatedNamespace).Patch(ctx, "asks", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			return err
		},
		"DaemonSet": func(patch string) error {
			_, err := attacker.AppsV1().DaemonSets(unannotatedNamespace).Patch(ctx, "asks", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			return err
		},
	} {
		assert.NoError(t, patch(restartPatch), kind)
		assert.NoError(t, checkForbidden(patch(mergedPatch(t, `{"spec":{"template":{"spec":{"hostNetwork":true}}}}`))), kind)
	}
}

// awaitPolicy waits until the API server enforces the policy and the roles, which it
// observes by watches.
func (c *cluster) awaitPolicy(attacker kubernetes.Interface) {
	c.t.Helper()
	require.EventuallyWithT(c.t, func(t *assert.CollectT) {
		assert.NoError(t, patchDeployment(c.t.Context(), attacker, unannotatedNamespace, "asks", restartPatch))
		assert.ErrorContains(t, patchDeployment(c.t.Context(), attacker, unannotatedNamespace, "silent", restartPatch), "isthmus.dev/restart-when-stale")
	}, time.Minute, 100*time.Millisecond)
}

// Before every restart the controller reads its own Deployment and the webhook's, which are
// in its namespace whether or not controller.namespaces limits the controller to others.
func TestTheControllerReadsItsOwnDeployments(t *testing.T) {
	for name, namespaces := range map[string]string{"every namespace": "[]", "two namespaces": "[" + annotatedNamespace + ", " + unannotatedNamespace + "]"} {
		t.Run(name, func(t *testing.T) {
			kube, err := kubernetes.NewForConfig(admin)
			require.NoError(t, err)
			c := &cluster{t: t, admin: kube}
			c.namespace(annotatedNamespace, enabledNamespace)
			c.namespace(unannotatedNamespace, enabledNamespace)
			c = install(t, "controller: {restartStale: {enabled: true}, namespaces: "+namespaces+"}")
			controller := c.clientFor(releaseNamespace, controllerName)
			require.EventuallyWithT(t, func(collect *assert.CollectT) {
				err := restart.CheckWebhook(controller, releaseNamespace)(t.Context())
				assert.ErrorContains(collect, err, controllerName+" is not rolled out", "no node runs its pods")
			}, 30*time.Second, 50*time.Millisecond)
			_, err = controller.AppsV1().Deployments(releaseNamespace).Get(t.Context(), webhookName, metav1.GetOptions{})
			assert.NoError(t, err)
			_, err = controller.AppsV1().Deployments(releaseNamespace).List(t.Context(), metav1.ListOptions{})
			assert.NoError(t, checkForbidden(err))
		})
	}
}

// If restarts are disabled, the controller may neither read nor change workloads.
func TestWithoutRestartsTheControllerHasNoAccessToWorkloads(t *testing.T) {
	c := install(t, "")
	c.namespace(unannotatedNamespace, map[string]string{"isthmus.dev/injection": "enabled"})
	c.deploy(unannotatedNamespace, "asks", "true")
	controller := c.clientFor(releaseNamespace, controllerName)
	_, err := controller.AppsV1().Deployments(unannotatedNamespace).Get(t.Context(), "asks", metav1.GetOptions{})
	assert.NoError(t, checkForbidden(err))
	assert.NoError(t, checkForbidden(patchDeployment(t.Context(), controller, unannotatedNamespace, "asks", restartPatch)))
	policies, err := c.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, p := range policies.Items {
		assert.NotEqual(t, "isthmus-controller-restarts", p.Name)
		assert.Equal(t, admissionregistrationv1.Fail, *p.Spec.FailurePolicy)
	}
}
