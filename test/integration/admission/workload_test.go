package admission

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestSampleDeploymentsPodsAreInjected(t *testing.T) {
	data, err := os.ReadFile("../../../samples/emissary/deployment.yaml")
	require.NoError(t, err)
	deployment := &appsv1.Deployment{}
	require.NoError(t, yaml.UnmarshalStrict(data, deployment))
	s := newNamespace(t, enabled, restricted)
	require.NoError(t, env.createServiceAccount(t.Context(), s.name, deployment.Spec.Template.Spec.ServiceAccountName))
	deployment.Namespace = s.name

	_, err = s.client.AppsV1().Deployments(s.name).Create(t.Context(), deployment, metav1.CreateOptions{})

	require.NoError(t, err)
	for _, pod := range s.awaitPods(int(*deployment.Spec.Replicas)) {
		assert.Equal(t, 1, sidecars(&pod))
		assert.Equal(t, "ReplicaSet", metav1.GetControllerOf(&pod).Kind)
		assert.Equal(t, deployment.Spec.Template.Spec.ServiceAccountName, pod.Spec.ServiceAccountName)
		reverted, err := uninject(t, &pod)
		require.NoError(t, err)
		for key, value := range deployment.Spec.Template.Annotations {
			assert.Equal(t, value, reverted.Annotations[key])
		}
	}
}

func TestReplicaSetsPodsAreInjected(t *testing.T) {
	s := newNamespace(t, enabled)

	s.createReplicaSet(3, edgePod(""))

	for _, pod := range s.awaitPods(3) {
		assert.Equal(t, 1, sidecars(&pod))
	}
}

// The controller of ReplicaSets drops warnings and retries; the user finds the reason of a
// denial in the Events.
func TestReplicaSetsEventsNameTheDenial(t *testing.T) {
	s := newNamespace(t, label("isthmus.dev/injection", "disabled"))

	// Created while no server answers, so that it is not validated.
	env.service.setReplicas()
	s.createReplicaSet(0, edgePod("", optIn))
	env.service.setReplicas(env.server)
	_, err := s.client.AppsV1().ReplicaSets(s.name).UpdateScale(t.Context(), "edge", &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: "edge", Namespace: s.name}, Spec: autoscalingv1.ScaleSpec{Replicas: 1},
	}, metav1.UpdateOptions{})
	require.NoError(t, err, "scaling is not reviewed")

	var message string
	require.NoError(t, await(t.Context(), func(ctx context.Context) error {
		events, err := s.client.CoreV1().Events(s.name).List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedCreate"})
		if err != nil {
			return err
		}
		if len(events.Items) == 0 {
			return errors.New("no event yet")
		}
		message = events.Items[0].Message
		return nil
	}))
	assert.Equal(t, `Error creating: admission webhook "pod.isthmus.dev" denied the request: excluded-namespace: isthmus.dev/inject is "true" but namespace `+s.name+
		" is locked by its label isthmus.dev/injection=disabled; remove the key, or ask the namespace's owner to remove the label", message)
}

func (s *testNamespace) createReplicaSet(replicas int32, pod *corev1.Pod) {
	s.t.Helper()
	labels := map[string]string{"app": "edge"}
	pod.Labels = labels
	_, err := s.client.AppsV1().ReplicaSets(s.name).Create(s.t.Context(), &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "edge"},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec},
		},
	}, metav1.CreateOptions{})
	require.NoError(s.t, err)
}

// awaitPods waits until the namespace has this many pods.
func (s *testNamespace) awaitPods(count int) []corev1.Pod {
	s.t.Helper()
	var pods []corev1.Pod
	require.NoError(s.t, await(s.t.Context(), func(ctx context.Context) error {
		list, err := s.client.CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if pods = list.Items; len(pods) != count {
			return fmt.Errorf("want %d pods, got %d", count, len(pods))
		}
		return nil
	}))
	return pods
}
