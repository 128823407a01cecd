//go:build e2e

package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Edges of a DaemonSet and of a StatefulSet are injected like those of a Deployment, and each
// new pod gets its own certificate.
func TestEdgesOfDaemonSetAndStatefulSet(t *testing.T) {
	t.Parallel()
	s := newNamespace(t, "workloads", nil)
	template := func(name string) (*metav1.LabelSelector, corev1.PodTemplateSpec) {
		pod := withCertificateFolder(inspectorPod(name, "--remain"))
		pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](10)
		return &metav1.LabelSelector{MatchLabels: pod.Labels}, corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec}
	}
	t.Run("a DaemonSet", func(t *testing.T) {
		t.Parallel()
		selector, pod := template("daemon")
		sets := s.Client.AppsV1().DaemonSets(s.name)
		_, err := sets.Create(t.Context(), &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "daemon"}, Spec: appsv1.DaemonSetSpec{Selector: selector, Template: pod}}, metav1.CreateOptions{})
		require.NoError(t, err)
		s.await(t, func(ctx context.Context) error {
			set, err := sets.Get(ctx, "daemon", metav1.GetOptions{})
			if err == nil && (set.Status.DesiredNumberScheduled == 0 || set.Status.NumberAvailable < set.Status.DesiredNumberScheduled) {
				err = fmt.Errorf("%d of %d are available", set.Status.NumberAvailable, set.Status.DesiredNumberScheduled)
			}
			return err
		})
		for _, pod := range s.edges(t, "daemon") {
			s.assertStartedOnce(t, &pod)
		}
	})
	t.Run("a StatefulSet", func(t *testing.T) {
		t.Parallel()
		selector, pod := template("stateful")
		_, err := s.Client.AppsV1().StatefulSets(s.name).Create(t.Context(), &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Name: "stateful"}, Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](2), Selector: selector, Template: pod},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
		serials := map[string]bool{}
		for _, name := range []string{"stateful-0", "stateful-1"} {
			s.assertStartedOnce(t, s.awaitPod(t, name, isReady))
			serials[s.firstView(t, name, "edge").Serial] = true
		}
		first := s.edges(t, "stateful")[0]
		require.NoError(t, s.Client.CoreV1().Pods(s.name).Delete(t.Context(), first.Name, metav1.DeleteOptions{}))
		recreated := s.awaitPod(t, first.Name, func(pod *corev1.Pod) error {
			if pod.UID == first.UID {
				return errors.New("the pod is still the old one")
			}
			return isReady(pod)
		})
		s.assertStartedOnce(t, recreated)
		serials[s.firstView(t, first.Name, "edge").Serial] = true
		assert.Len(t, serials, 3, "each pod has its own certificate")
	})
}

// edges are the injected pods of a workload.
func (s *testNamespace) edges(t *testing.T, app string) []corev1.Pod {
	t.Helper()
	list, err := s.Client.CoreV1().Pods(s.name).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app + "," + policy.InjectedLabel + "=sidecar"})
	require.NoError(t, err)
	require.NotEmpty(t, list.Items)
	return list.Items
}

// The publisher is the last ordinary container of the pod. So the edge starts once and keeps
// running even if the publisher fails. The pod is ready only while the publisher runs.
func TestFailingPublisherDoesNotStopTheEdge(t *testing.T) {
	t.Parallel()
	s := newNamespace(t, "publisher", map[string]string{policy.SourceKey: "agent"})
	healthy := s.createReady(t, withCertificateFolder(inspectorPod("sound", "--remain")))
	s.assertStartedOnce(t, healthy)
	require.Equal(t, patches.PublisherName, healthy.Spec.Containers[len(healthy.Spec.Containers)-1].Name, "the last of the ordinary containers")
	s.await(t, func(ctx context.Context) error {
		secret, err := s.Client.CoreV1().Secrets(s.name).Get(ctx, patches.CertsVolume, metav1.GetOptions{})
		if err == nil && secret.Annotations[policy.SourceKey] != "agent" {
			err = fmt.Errorf("the Secret is from %q", secret.Annotations[policy.SourceKey])
		}
		return err
	})

	publisher := func(pod *corev1.Pod) *corev1.Container { return &pod.Spec.Containers[len(pod.Spec.Containers)-1] }
	const missingImage = "127.0.0.1:1/absent:dev"
	for name, modify := range map[string]func(*corev1.Pod){
		"absent": func(pod *corev1.Pod) { publisher(pod).Image = missingImage },
		"broken": func(pod *corev1.Pod) {
			c := publisher(pod)
			c.Image, c.Command, c.Args = meshImage, []string{"/mesh"}, []string{"nonsense"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.createModified(t, name, modify)
			pod := s.awaitPod(t, name, func(pod *corev1.Pod) error {
				publisher := containerStatus(pod, patches.PublisherName)
				if !containerStatus(pod, "edge").Ready || publisher.State.Waiting == nil || publisher.RestartCount < 2 && name == "broken" {
					return errors.New("want the edge ready, and the publisher failing")
				}
				return nil
			})
			t.Log(describeContainers(pod))
			s.assertStartedOnce(t, pod)
			assert.False(t, hasCondition(pod, corev1.PodReady), "a pod is ready only if all its containers are")
		})
	}
	// This is why the publisher is not a native sidecar.
	t.Run("a failing native sidecar stops the edge", func(t *testing.T) {
		t.Parallel()
		s.createModified(t, "native", func(pod *corev1.Pod) {
			c := *publisher(pod)
			c.Image, c.RestartPolicy = missingImage, ptr.To(corev1.ContainerRestartPolicyAlways)
			pod.Spec.Containers = pod.Spec.Containers[:len(pod.Spec.Containers)-1]
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
		})
		pod := s.awaitPod(t, "native", func(pod *corev1.Pod) error {
			if waiting := containerStatus(pod, patches.PublisherName).State.Waiting; waiting == nil || waiting.Reason != "ImagePullBackOff" {
				return errors.New("want the publisher's image missing")
			}
			return nil
		})
		t.Log(describeContainers(pod))
		assert.True(t, ptr.Deref(containerStatus(pod, patches.SidecarName).Started, false), "the agent has its certificate")
		assert.Empty(t, containerStatus(pod, "edge").ContainerID, "the edge is not created")
	})
}

// createModified creates a pod that is injected as usual and then changed by modify.
func (s *testNamespace) createModified(t *testing.T, name string, modify func(*corev1.Pod)) {
	t.Helper()
	injected, err := s.Client.CoreV1().Pods(s.name).Create(t.Context(), withCertificateFolder(inspectorPod(name, "--remain")), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	require.NoError(t, err)
	modify(injected)
	injected.ObjectMeta = metav1.ObjectMeta{Name: name, Labels: injected.Labels, Annotations: injected.Annotations}
	s.create(t, injected)
}
