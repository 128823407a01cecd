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

func (w *world) stateful(name string, strategy appsv1.StatefulSetUpdateStrategy) {
	w.t.Helper()
	_, err := kube.AppsV1().StatefulSets(w.space).Create(w.t.Context(), &appsv1.StatefulSet{ObjectMeta: objectMeta(name, nil), Spec: appsv1.StatefulSetSpec{
		Replicas: ptr.To[int32](2), Selector: selector(name), Template: template(name), UpdateStrategy: strategy,
	}}, metav1.CreateOptions{})
	require.NoError(w.t, err)
	require.Eventually(w.t, func() bool {
		s, err := kube.AppsV1().StatefulSets(w.space).Get(w.t.Context(), name, metav1.GetOptions{})
		return err == nil && s.Status.AvailableReplicas == 2
	}, patience, tick)
}

func (w *world) daemon(name string, strategy appsv1.DaemonSetUpdateStrategy) {
	w.t.Helper()
	// A kubelet is not needed for the DaemonSet's controller to want a pod there.
	_, err := kube.CoreV1().Nodes().Create(w.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.space}}, metav1.CreateOptions{})
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		assert.NoError(w.t, kube.CoreV1().Nodes().Delete(context.Background(), w.space, metav1.DeleteOptions{}))
	})
	_, err = kube.AppsV1().DaemonSets(w.space).Create(w.t.Context(), &appsv1.DaemonSet{ObjectMeta: objectMeta(name, nil), Spec: appsv1.DaemonSetSpec{
		Selector: selector(name), Template: template(name), UpdateStrategy: strategy,
	}}, metav1.CreateOptions{})
	require.NoError(w.t, err)
	require.Eventually(w.t, func() bool {
		d, err := kube.AppsV1().DaemonSets(w.space).Get(w.t.Context(), name, metav1.GetOptions{})
		return err == nil && d.Status.NumberAvailable >= 1
	}, patience, tick)
}

func TestEachKindIsRolled(t *testing.T) {
	w := newWorld(t)
	w.deploy("d")
	w.stateful("s", appsv1.StatefulSetUpdateStrategy{})
	w.daemon("e", appsv1.DaemonSetUpdateStrategy{})
	w.upgrade(newer)
	for kind, name := range map[string]string{"Deployment": "d", "StatefulSet": "s", "DaemonSet": "e"} {
		assert.Contains(t, w.event(kind, name, "RestartCompleted"), "is rolled out")
		assert.True(t, w.carries(name, newer), kind)
	}
	w.queue(0, 0, 0)
	w.reaches("isthmus_restarts_total", "result", "started", 3)
}

// Workloads that cannot be rolled, or decline, have an Event and are left alone, and
// the others do not wait for them.
func TestWhatCannotBeRolledIsRefused(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.deployWith("declines", map[string]string{policy.RestartKey: "false"}, func(*appsv1.Deployment) {})
	w.deployWith("unsure", map[string]string{policy.RestartKey: "maybe"}, func(*appsv1.Deployment) {})
	w.deploy("paused", "z")
	w.up("declines")
	w.up("unsure")
	_, err := kube.AppsV1().Deployments(w.space).Patch(ctx, "paused", types.MergePatchType, []byte(`{"spec":{"paused":true}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	w.stateful("delete", appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType})
	w.stateful("half", appsv1.StatefulSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr.To[int32](1)}})
	w.daemon("daemon", appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType})
	bare := template("bare")
	_, err = kube.CoreV1().Pods(w.space).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bare", Labels: bare.Labels}, Spec: bare.Spec}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = kube.AppsV1().ReplicaSets(w.space).Create(ctx, &appsv1.ReplicaSet{ObjectMeta: objectMeta("alone", nil), Spec: appsv1.ReplicaSetSpec{
		Replicas: ptr.To[int32](1), Selector: selector("alone"), Template: template("alone"),
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	job := template("job")
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	job.Annotations = map[string]string{policy.InjectKey: "true", policy.ProfileKey: "emissary"} // no edge else, for it ends
	_, err = kube.BatchV1().Jobs(w.space).Create(ctx, &batchv1.Job{ObjectMeta: objectMeta("job", nil), Spec: batchv1.JobSpec{Template: job}}, metav1.CreateOptions{})
	require.NoError(t, err)
	for _, name := range []string{"bare", "alone", "job", "daemon"} {
		require.Eventually(t, func() bool { return w.carries(name, older) }, patience, tick, name)
	}

	w.upgrade(newer)
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
		assert.Contains(t, w.event(c.kind, c.name, "RestartRefused"), c.want)
	}
	w.rolled("z", newer)
	w.queue(0, 0, 0)
	w.reaches("isthmus_restarts_total", "result", "started", 1)
	w.reaches("isthmus_restarts_total", "result", "refused", 8)
	for _, name := range []string{"declines", "unsure", "paused", "delete", "half", "daemon", "bare", "alone", "job"} {
		assert.True(t, w.carries(name, older), name)
	}
}

// Until controller and webhook are rolled out, of the same image and settings, what
// is stale may be what the next version injects.
func TestNothingIsRestartedWhileIsthmusIsRolled(t *testing.T) {
	client, err := kubernetes.NewForConfig(robot)
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
		}, patience, tick)
	}
	patch := func(name, patch string) {
		t.Helper()
		_, err := kube.AppsV1().Deployments(release).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	await("")
	letGo := kubelet.hold(func(pod *corev1.Pod) bool { return pod.Namespace == release })
	patch("isthmus-webhook", `{"spec":{"template":{"metadata":{"annotations":{"checksum/settings":"new"}}}}}`)
	await("Deployment restart-isthmus/isthmus-webhook is not rolled out")
	letGo()
	await("settings new")
	patch("isthmus-controller", `{"spec":{"template":{"metadata":{"annotations":{"checksum/settings":"new"}}}}}`)
	await("")
	patch("isthmus-webhook", `{"spec":{"replicas":0}}`)
	await("has no pod that is available")
	patch("isthmus-webhook", `{"spec":{"replicas":2}}`)
	await("")
}
