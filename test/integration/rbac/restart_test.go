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
)

const (
	asking = "rbac-asking"
	silent = "rbac-silent"
)

// restarting has the chart let the controller restart workloads.
const restarting = "controller: {restartStale: {enabled: true}}\nwebhook: {excludedNamespaces: [" + excluded + "]}"

// ask is the annotation, empty for none.
func workload(name, ask string) metav1.ObjectMeta {
	o := metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": "edge"}, Annotations: map[string]string{"example.com/kept": "1"}}
	if ask != "" {
		o.Annotations["isthmus.dev/restart-when-stale"] = ask
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

// deploy creates a Deployment, and removes it with the test.
func (c *cluster) deploy(namespace, name, ask string) {
	c.t.Helper()
	_, err := c.admin.AppsV1().Deployments(namespace).Create(c.t.Context(), &appsv1.Deployment{
		ObjectMeta: workload(name, ask), Spec: appsv1.DeploymentSpec{Selector: selector, Template: podTemplate()},
	}, metav1.CreateOptions{})
	require.NoError(c.t, err)
	c.t.Cleanup(func() {
		assert.NoError(c.t, c.admin.AppsV1().Deployments(namespace).Delete(context.Background(), name, metav1.DeleteOptions{}))
	})
}

func patchDeployment(ctx context.Context, as kubernetes.Interface, namespace, name, patch string, subresources ...string) error {
	_, err := as.AppsV1().Deployments(namespace).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "thief"}, subresources...)
	return err
}

// restart is the patch that the program sends.
const restart = `{"metadata":{"annotations":{"isthmus.dev/restarted-for":"0a1b2c3d4e5f6071"}},
	"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-11-21T22:00:00Z"}}}}}`

// with is the same patch with more in it.
func with(t *testing.T, more string) string {
	t.Helper()
	var all, extra map[string]any
	require.NoError(t, json.Unmarshal([]byte(restart), &all))
	require.NoError(t, json.Unmarshal([]byte(more), &extra))
	var merge func(into, from map[string]any)
	merge = func(into, from map[string]any) {
		for key, value := range from {
			deeper, isMap := value.(map[string]any)
			if there, ok := into[key].(map[string]any); ok && isMap {
				merge(there, deeper)
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

// A thief has the token of a controller that may restart workloads, and tries.
func TestAStolenControllerTokenChangesNoWorkload(t *testing.T) {
	c := install(t, restarting)
	enabled := map[string]string{"isthmus.dev/injection": "enabled"}
	c.namespace(silent, enabled)
	c.namespace(excluded, enabled)
	c.namespace(unlabelled, nil)
	c.namespace(asking, enabled)
	ctx := t.Context()
	_, err := c.admin.CoreV1().Namespaces().Patch(ctx, asking, types.MergePatchType, []byte(`{"metadata":{"annotations":{"isthmus.dev/restart-when-stale":"true"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	for namespace, workloads := range map[string]map[string]string{
		silent: {"asks": "true", "silent": "", "wrong": "yes"}, asking: {"silent": "", "declines": "false"}, excluded: {"asks": "true"}, unlabelled: {"asks": "true"},
	} {
		for name, ask := range workloads {
			c.deploy(namespace, name, ask)
		}
	}
	thief := c.as(releaseNamespace, controllerName)
	c.awaitFence(thief)

	const nothingElse = "the controller may change of a workload its annotation isthmus.dev/restarted-for and, in its pod template, kubectl.kubernetes.io/restartedAt, and nothing else"
	const form = "the controller may write a hash into isthmus.dev/restarted-for and a time of UTC into kubectl.kubernetes.io/restartedAt"
	const asks = "the controller may restart workloads that ask for it with the annotation isthmus.dev/restart-when-stale, of their own or of their namespace, and "
	const where = "the controller may restart workloads in namespaces with the label isthmus.dev/injection=enabled that are not excluded, and "
	tests := map[string]struct {
		namespace, name, patch string
		want                   string // the refusal; empty where it is let through
	}{
		"if it restarts what asks, expect that it may":                     {silent, "asks", restart, ""},
		"if it restarts what the namespace asks for, expect it":            {asking, "silent", restart, ""},
		"if nobody asks, expect a refusal":                                 {silent, "silent", restart, asks + "silent does not"},
		"if the value is wrong, expect a refusal":                          {silent, "wrong", restart, asks},
		"if the workload declines, expect a refusal":                       {asking, "declines", restart, asks + "declines does not"},
		"if it has the workload ask itself, expect a refusal":              {silent, "silent", with(t, `{"metadata":{"annotations":{"isthmus.dev/restart-when-stale":"true"}}}`), nothingElse},
		"if the namespace is not opted in, expect a refusal":               {unlabelled, "asks", restart, where + unlabelled + " is none"},
		"if the namespace is excluded, expect a refusal":                   {excluded, "asks", restart, where + excluded + " is none"},
		"if it changes the image, expect a refusal":                        {silent, "asks", with(t, `{"spec":{"template":{"spec":{"containers":[{"name":"edge","image":"evil:1"}]}}}}`), nothingElse},
		"if it adds a volume, expect a refusal":                            {silent, "asks", with(t, `{"spec":{"template":{"spec":{"volumes":[{"name":"x","hostPath":{"path":"/"}}]}}}}`), nothingElse},
		"if it changes the service account, expect a refusal":              {silent, "asks", with(t, `{"spec":{"template":{"spec":{"serviceAccountName":"admin"}}}}`), nothingElse},
		"if it scales, expect a refusal":                                   {silent, "asks", with(t, `{"spec":{"replicas":0}}`), nothingElse},
		"if it pauses, expect a refusal":                                   {silent, "asks", with(t, `{"spec":{"paused":true}}`), nothingElse},
		"if it removes the strategy's bounds, expect a refusal":            {silent, "asks", with(t, `{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}`), nothingElse},
		"if it labels the pods, expect a refusal":                          {silent, "asks", with(t, `{"spec":{"template":{"metadata":{"labels":{"x":"y"}}}}}`), nothingElse},
		"if it annotates the pods, expect a refusal":                       {silent, "asks", with(t, `{"spec":{"template":{"metadata":{"annotations":{"isthmus.dev/inject":"false"}}}}}`), nothingElse},
		"if it takes an annotation of the pods away, expect a refusal":     {silent, "asks", with(t, `{"spec":{"template":{"metadata":{"annotations":{"example.com/kept":null}}}}}`), nothingElse},
		"if it annotates the workload, expect a refusal":                   {silent, "asks", with(t, `{"metadata":{"annotations":{"x":"y"}}}`), nothingElse},
		"if it takes an annotation of the workload away, expect a refusal": {silent, "asks", with(t, `{"metadata":{"annotations":{"example.com/kept":null}}}`), nothingElse},
		"if it writes what a DaemonSet alone has, expect a refusal":        {silent, "asks", with(t, `{"metadata":{"annotations":{"deprecated.daemonset.template.generation":"7"}}}`), nothingElse},
		"if it labels the workload, expect a refusal":                      {silent, "asks", with(t, `{"metadata":{"labels":{"x":"y"}}}`), nothingElse},
		"if it takes its labels away, expect a refusal":                    {silent, "asks", with(t, `{"metadata":{"labels":null}}`), nothingElse},
		"if it gives it an owner, expect a refusal":                        {silent, "asks", with(t, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Secret","name":"x","uid":"1"}]}}`), nothingElse},
		"if it keeps it from being deleted, expect a refusal":              {silent, "asks", with(t, `{"metadata":{"finalizers":["example.com/never"]}}`), nothingElse},
		"if what it writes is no hash, expect a refusal":                   {silent, "asks", with(t, `{"metadata":{"annotations":{"isthmus.dev/restarted-for":"a long story"}}}`), form},
		"if what it writes is no time, expect a refusal":                   {silent, "asks", with(t, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}}}}}`), form},
		"if it forgets what it restarted for, expect a refusal":            {silent, "asks", with(t, `{"metadata":{"annotations":{"isthmus.dev/restarted-for":null}}}`), form},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := patchDeployment(t.Context(), thief, test.namespace, test.name, test.patch)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			assert.NoError(t, refused(err))
			assert.ErrorContains(t, err, test.want)
		})
	}
	t.Run("others patch as before", func(t *testing.T) {
		assert.NoError(t, patchDeployment(t.Context(), c.admin, silent, "asks", `{"spec":{"replicas":3}}`))
	})
	for _, part := range []string{"scale", "status"} {
		t.Run("its "+part+" is closed", func(t *testing.T) {
			assert.NoError(t, refused(patchDeployment(t.Context(), thief, silent, "asks", `{"spec":{"replicas":0}}`, part)))
		})
	}
	t.Run("a StatefulSet and a DaemonSet are fenced alike", func(t *testing.T) { c.fencedAlike(t, thief) })
}

func (c *cluster) fencedAlike(t *testing.T, thief kubernetes.Interface) {
	ctx := t.Context()
	_, err := c.admin.AppsV1().StatefulSets(silent).Create(ctx, &appsv1.StatefulSet{
		ObjectMeta: workload("asks", "true"), Spec: appsv1.StatefulSetSpec{Selector: selector, Template: podTemplate()},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = c.admin.AppsV1().DaemonSets(silent).Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: workload("asks", "true"), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: podTemplate()},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, c.admin.AppsV1().StatefulSets(silent).Delete(context.Background(), "asks", metav1.DeleteOptions{}))
		assert.NoError(t, c.admin.AppsV1().DaemonSets(silent).Delete(context.Background(), "asks", metav1.DeleteOptions{}))
	})
	for kind, patch := range map[string]func(string) error{
		"StatefulSet": func(patch string) error {
			_, err := thief.AppsV1().StatefulSets(silent).Patch(ctx, "asks", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			return err
		},
		"DaemonSet": func(patch string) error {
			_, err := thief.AppsV1().DaemonSets(silent).Patch(ctx, "asks", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			return err
		},
	} {
		assert.NoError(t, patch(restart), kind)
		assert.NoError(t, refused(patch(with(t, `{"spec":{"template":{"spec":{"hostNetwork":true}}}}`))), kind)
	}
}

// awaitFence waits until the API server has learnt of the policy and of the roles:
// it does so by watches.
func (c *cluster) awaitFence(thief kubernetes.Interface) {
	c.t.Helper()
	require.EventuallyWithT(c.t, func(t *assert.CollectT) {
		assert.NoError(t, patchDeployment(c.t.Context(), thief, silent, "asks", restart))
		assert.ErrorContains(t, patchDeployment(c.t.Context(), thief, silent, "silent", restart), "isthmus.dev/restart-when-stale")
	}, time.Minute, 100*time.Millisecond)
}

// Where nothing is restarted, the controller reads and changes no workload.
func TestWithoutRestartsNoWorkloadIsOpen(t *testing.T) {
	c := install(t, "")
	c.namespace(silent, map[string]string{"isthmus.dev/injection": "enabled"})
	c.deploy(silent, "asks", "true")
	controller := c.as(releaseNamespace, controllerName)
	_, err := controller.AppsV1().Deployments(silent).Get(t.Context(), "asks", metav1.GetOptions{})
	assert.NoError(t, refused(err))
	assert.NoError(t, refused(patchDeployment(t.Context(), controller, silent, "asks", restart)))
	policies, err := c.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	for _, p := range policies.Items {
		assert.NotEqual(t, "isthmus-controller-restarts", p.Name)
		assert.Equal(t, admissionregistrationv1.Fail, *p.Spec.FailurePolicy)
	}
}
