package restart

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/internal/restart"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func (env *environment) createStatefulSet(name string, strategy appsv1.StatefulSetUpdateStrategy) {
	env.t.Helper()
	_, err := kube.AppsV1().StatefulSets(env.namespace).Create(env.t.Context(), &appsv1.StatefulSet{ObjectMeta: objectMeta(name, nil), Spec: appsv1.StatefulSetSpec{
		Replicas: ptr.To[int32](2), Selector: selector(name), Template: podTemplate(name), UpdateStrategy: strategy,
	}}, metav1.CreateOptions{})
	require.NoError(env.t, err)
	require.Eventually(env.t, func() bool {
		s, err := kube.AppsV1().StatefulSets(env.namespace).Get(env.t.Context(), name, metav1.GetOptions{})
		return err == nil && s.Status.AvailableReplicas == 2
	}, waitTimeout, pollInterval)
}

func (env *environment) createDaemonSet(name string, strategy appsv1.DaemonSetUpdateStrategy) {
	env.t.Helper()
	// The controller of DaemonSets creates a pod for every node, even without a kubelet.
	_, err := kube.CoreV1().Nodes().Create(env.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: env.namespace}}, metav1.CreateOptions{})
	require.NoError(env.t, err)
	env.t.Cleanup(func() {
		assert.NoError(env.t, kube.CoreV1().Nodes().Delete(context.Background(), env.namespace, metav1.DeleteOptions{}))
	})
	_, err = kube.AppsV1().DaemonSets(env.namespace).Create(env.t.Context(), &appsv1.DaemonSet{ObjectMeta: objectMeta(name, nil), Spec: appsv1.DaemonSetSpec{
		Selector: selector(name), Template: podTemplate(name), UpdateStrategy: strategy,
	}}, metav1.CreateOptions{})
	require.NoError(env.t, err)
	require.Eventually(env.t, func() bool {
		d, err := kube.AppsV1().DaemonSets(env.namespace).Get(env.t.Context(), name, metav1.GetOptions{})
		return err == nil && d.Status.NumberAvailable >= 1
	}, waitTimeout, pollInterval)
}

func TestEachKindIsRestarted(t *testing.T) {
	env := newEnvironment(t)
	env.deploy("d")
	env.createStatefulSet("s", appsv1.StatefulSetUpdateStrategy{})
	env.createDaemonSet("e", appsv1.DaemonSetUpdateStrategy{})
	env.upgrade(newer)
	for kind, name := range map[string]string{"Deployment": "d", "StatefulSet": "s", "DaemonSet": "e"} {
		assert.Contains(t, env.awaitEvent(kind, name, "RestartCompleted"), "is rolled out")
		assert.True(t, env.allPodsHaveSidecar(name, newer), kind)
	}
	env.awaitQueue(0, 0, 0)
	env.awaitMetric("isthmus_restarts_total", "result", "started", 3)
}

// Workloads that cannot be rolled, or decline, have an Event and are left alone, and
// the others do not wait for them.
func TestWhatCannotBeRolledIsRefused(t *testing.T) {
	env := newEnvironment(t)
	ctx := t.Context()
	env.createDeployment("declines", map[string]string{policy.RestartKey: "false"}, func(*appsv1.Deployment) {})
	env.createDeployment("unsure", map[string]string{policy.RestartKey: "maybe"}, func(*appsv1.Deployment) {})
	env.deploy("paused", "z")
	env.awaitRollout("declines")
	env.awaitRollout("unsure")
	_, err := kube.AppsV1().Deployments(env.namespace).Patch(ctx, "paused", types.MergePatchType, []byte(`{"spec":{"paused":true}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	env.createStatefulSet("delete", appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType})
	env.createStatefulSet("half", appsv1.StatefulSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr.To[int32](1)}})
	env.createDaemonSet("daemon", appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType})
	template := podTemplate("bare")
	_, err = kube.CoreV1().Pods(env.namespace).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bare", Labels: template.Labels}, Spec: template.Spec}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = kube.AppsV1().ReplicaSets(env.namespace).Create(ctx, &appsv1.ReplicaSet{ObjectMeta: objectMeta("alone", nil), Spec: appsv1.ReplicaSetSpec{
		Replicas: ptr.To[int32](1), Selector: selector("alone"), Template: podTemplate("alone"),
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	job := podTemplate("job")
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	job.Annotations = map[string]string{policy.InjectKey: "true", policy.ProfileKey: "emissary"} // without a profile a Job is no edge, since its pods end
	_, err = kube.BatchV1().Jobs(env.namespace).Create(ctx, &batchv1.Job{ObjectMeta: objectMeta("job", nil), Spec: batchv1.JobSpec{Template: job}}, metav1.CreateOptions{})
	require.NoError(t, err)
	for _, name := range []string{"bare", "alone", "job", "daemon"} {
		require.Eventually(t, func() bool { return env.allPodsHaveSidecar(name, older) }, waitTimeout, pollInterval, name)
	}

	env.upgrade(newer)
	for _, c := range []struct{ kind, name, want string }{
		{"Deployment", "unsure", `annotation isthmus.dev/restart-when-stale: "maybe" is not allowed; want "true" or "false"`},
		{"Deployment", "paused", "it is paused"},
		{"StatefulSet", "delete", "its update strategy is OnDelete"},
		{"StatefulSet", "half", "its update strategy has partition 1"},
		{"DaemonSet", "daemon", "its update strategy is OnDelete"},
		{"Pod", "bare", "the pod has no controller that would recreate it"},
		{"ReplicaSet", "alone", "its ReplicaSet alone belongs to no Deployment"},
		{"Job", "job", "its owner is the Job job"},
	} {
		assert.Contains(t, env.awaitEvent(c.kind, c.name, "RestartRefused"), c.want)
	}
	env.awaitSidecar("z", newer)
	env.awaitQueue(0, 0, 0)
	env.awaitMetric("isthmus_restarts_total", "result", "started", 1)
	env.awaitMetric("isthmus_restarts_total", "result", "refused", 8)
	for _, name := range []string{"declines", "unsure", "paused", "delete", "half", "daemon", "bare", "alone", "job"} {
		assert.True(t, env.allPodsHaveSidecar(name, older), name)
	}
}

// Until controller and webhook are rolled out with the same image and settings, the webhook
// may inject another template than the controller expects.
func TestNothingIsRestartedWhileIsthmusIsRolledOut(t *testing.T) {
	client, err := kubernetes.NewForConfig(controllerConfig)
	require.NoError(t, err)
	served := restart.CheckWebhook(client, release)
	await := func(want string) {
		t.Helper()
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			if err := served(t.Context()); want == "" {
				assert.NoError(c, err)
			} else {
				assert.ErrorContains(c, err, want)
			}
		}, waitTimeout, pollInterval)
	}
	patch := func(name, patch string) {
		t.Helper()
		_, err := kube.AppsV1().Deployments(release).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	await("")
	resume := kubelet.hold(func(pod *corev1.Pod) bool { return pod.Namespace == release })
	patch("isthmus-webhook", `{"spec":{"template":{"metadata":{"annotations":{"checksum/settings":"new"}}}}}`)
	await("Deployment restart-isthmus/isthmus-webhook is not rolled out")
	resume()
	await("settings new")
	patch("isthmus-controller", `{"spec":{"template":{"metadata":{"annotations":{"checksum/settings":"new"}}}}}`)
	await("")
	patch("isthmus-webhook", `{"spec":{"replicas":0}}`)
	await("has no pod that is available")
	patch("isthmus-webhook", `{"spec":{"replicas":2}}`)
	await("")
}
