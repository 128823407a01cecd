package restart

import (
	"encoding/json"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// podTemplate returns the pod template of an edge.
func podTemplate(name string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false), SchedulerName: "nobody",
			Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:3.9.1"}},
		},
	}
}

func objectMeta(name string, annotations map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Annotations: annotations}
}

func selector(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

// deploy creates Deployments of two replicas, and waits until they are rolled out.
func (env *environment) deploy(names ...string) {
	env.t.Helper()
	for _, name := range names {
		env.createDeployment(name, nil, func(*appsv1.Deployment) {})
	}
	for _, name := range names {
		env.awaitRollout(name)
	}
}

func (env *environment) createDeployment(name string, annotations map[string]string, change func(*appsv1.Deployment)) {
	env.t.Helper()
	d := &appsv1.Deployment{ObjectMeta: objectMeta(name, annotations), Spec: appsv1.DeploymentSpec{
		Replicas: ptr.To[int32](2), Selector: selector(name), Template: podTemplate(name), ProgressDeadlineSeconds: ptr.To[int32](3600),
	}}
	change(d)
	_, err := kube.AppsV1().Deployments(env.namespace).Create(env.t.Context(), d, metav1.CreateOptions{})
	require.NoError(env.t, err)
}

func (env *environment) deployment(name string) *appsv1.Deployment {
	env.t.Helper()
	d, err := kube.AppsV1().Deployments(env.namespace).Get(env.t.Context(), name, metav1.GetOptions{})
	require.NoError(env.t, err)
	return d
}

// isRolledOut reports the condition that kubectl rollout status waits for.
func isRolledOut(d *appsv1.Deployment) bool {
	s, want := d.Status, *d.Spec.Replicas
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
}

func (env *environment) awaitRollout(name string) {
	env.t.Helper()
	require.Eventually(env.t, func() bool { return isRolledOut(env.deployment(name)) }, waitTimeout, pollInterval, "Deployment %s is not rolled out", name)
}

// pods returns the pods of a workload that are not being deleted.
func (env *environment) pods(name string) []corev1.Pod {
	env.t.Helper()
	list, err := kube.CoreV1().Pods(env.namespace).List(env.t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
	require.NoError(env.t, err)
	var pods []corev1.Pod
	for _, pod := range list.Items {
		if pod.DeletionTimestamp.IsZero() {
			pods = append(pods, pod)
		}
	}
	return pods
}

// allPodsHaveSidecar reports whether every pod of a workload has the sidecar of a version.
func (env *environment) allPodsHaveSidecar(name, version string) bool {
	env.t.Helper()
	pods := env.pods(name)
	for _, pod := range pods {
		if !hasSidecar(&pod, version) {
			return false
		}
	}
	return len(pods) > 0
}

func hasSidecar(pod *corev1.Pod, version string) bool {
	for _, c := range pod.Spec.InitContainers {
		if c.Image == "docker.io/istio/proxyv2:"+version {
			return true
		}
	}
	return false
}

// awaitSidecar waits until a Deployment is rolled out with the sidecar of a version.
func (env *environment) awaitSidecar(name, version string) {
	env.t.Helper()
	require.Eventually(env.t, func() bool { return isRolledOut(env.deployment(name)) && env.allPodsHaveSidecar(name, version) }, waitTimeout, pollInterval, "Deployment %s is not rolled out with sidecar %s", name, version)
}

// isRestarted reports whether the controller has restarted a Deployment.
func isRestarted(d *appsv1.Deployment) bool {
	return d.Annotations[policy.RestartedForKey] != "" || d.Spec.Template.Annotations[policy.RestartedAtKey] != ""
}

// revisions returns the number of templates that a Deployment has had.
func (env *environment) revisions(name string) int {
	env.t.Helper()
	list, err := kube.AppsV1().ReplicaSets(env.namespace).List(env.t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
	require.NoError(env.t, err)
	return len(list.Items)
}

// annotate sets an annotation of a Deployment.
func (env *environment) annotate(name, key, value string) {
	env.t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{key: value}}})
	require.NoError(env.t, err)
	_, err = kube.AppsV1().Deployments(env.namespace).Patch(env.t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(env.t, err)
}
