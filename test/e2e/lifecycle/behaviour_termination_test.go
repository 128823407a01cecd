//go:build e2e

package lifecycle

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// testFinalizer is a finalizer that keeps a pod which has ended, so that the test can read
// its status.
const testFinalizer = "isthmus.test/kept"

// The edge ends before the agent, and has its certificates until then.
func TestEdgeStopsBeforeTheAgent(t *testing.T) {
	t.Parallel()
	s := newNamespace(t, "end", nil)
	for name, test := range map[string]struct {
		linger       string
		grace        int64
		drainsInTime bool
	}{
		"if the edge drains, expect certificates until it is done":                {"5s", 60, true},
		"if the edge never ends, expect that it is killed after the grace period": {"1h", 5, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			edge := withCertificateFolder(inspectorPod("drains-"+test.linger, "--remain", "--linger="+test.linger))
			edge.Finalizers, edge.Spec.TerminationGracePeriodSeconds = []string{testFinalizer}, ptr.To(test.grace)
			s.createReady(t, edge)
			t.Cleanup(func() { s.removeFinalizer(t, edge.Name) })
			pods := s.Client.CoreV1().Pods(s.name)
			require.NoError(t, pods.Delete(t.Context(), edge.Name, metav1.DeleteOptions{}))
			pod := s.awaitPod(t, edge.Name, func(pod *corev1.Pod) error {
				if containerStatus(pod, "edge").State.Terminated == nil || containerStatus(pod, patches.SidecarName).State.Terminated == nil {
					return errors.New("edge or agent has not ended")
				}
				return nil
			})
			ended, agent := containerStatus(pod, "edge").State.Terminated, containerStatus(pod, patches.SidecarName).State.Terminated
			t.Logf("edge: %d at %s, agent: %d at %s", ended.ExitCode, ended.FinishedAt, agent.ExitCode, agent.FinishedAt)
			if !test.drainsInTime {
				// At the end of the grace period, which is the deletion timestamp, the kubelet
				// waits for the edge no longer and ends both at the same time (waitForTurn in
				// pkg/kubelet/kuberuntime). Times are whole seconds.
				assert.False(t, agent.FinishedAt.Add(time.Second).Before(pod.DeletionTimestamp.Time), "the agent ended at %s, the grace period at %s", agent.FinishedAt, pod.DeletionTimestamp)
				assert.EqualValues(t, 137, ended.ExitCode, "it was killed")
				return
			}
			assert.False(t, agent.FinishedAt.Before(&ended.FinishedAt), "the agent ended at %s, the edge at %s", agent.FinishedAt, ended.FinishedAt)
			assert.Zero(t, ended.ExitCode)
			assert.Zero(t, agent.ExitCode, "the agent ends by itself, within the grace period")
			v := lastView(t, pod, "edge")
			assert.Greater(t, v.Reads, 3)
			assert.Zero(t, v.FailedReads, v.ReadError)
		})
	}
}

// removeFinalizer lets a pod with the finalizer be deleted.
func (s *testNamespace) removeFinalizer(t *testing.T, name string) {
	t.Helper()
	_, err := s.Client.CoreV1().Pods(s.name).Patch(context.WithoutCancel(t.Context()), name, types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`), metav1.PatchOptions{})
	assert.NoError(t, err)
}

// A Job whose pod runs the agent completes when its own container does. The publisher would
// not end, so Isthmus refuses a Job that requests it.
func TestJobWithAnAgentCompletes(t *testing.T) {
	t.Parallel()
	s := newNamespace(t, "job", nil)
	pod := withCertificateFolder(inspectorPod("job"))
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "job"},
		Spec: batchv1.JobSpec{
			BackoffLimit: ptr.To[int32](0), Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec},
		},
	}
	jobs := s.Client.BatchV1().Jobs(s.name)
	optedInJob := job.DeepCopy()
	optedInJob.Spec.Template.Annotations[policy.PublishKey], optedInJob.Spec.Template.Annotations[policy.InjectKey] = "true", "true"
	_, err := jobs.Create(t.Context(), optedInJob, metav1.CreateOptions{})
	require.ErrorContains(t, err, "such a pod is meant to complete, but the publisher keeps running")

	_, err = jobs.Create(t.Context(), job, metav1.CreateOptions{})
	require.NoError(t, err)
	s.await(t, func(ctx context.Context) error {
		got, err := jobs.Get(ctx, "job", metav1.GetOptions{})
		if err == nil && got.Status.Succeeded != 1 {
			err = errors.New("the Job has not succeeded")
		}
		return err
	})
	pods, err := s.Client.CoreV1().Pods(s.name).List(t.Context(), metav1.ListOptions{LabelSelector: "app=job"})
	require.NoError(t, err)
	require.Len(t, pods.Items, 1)
	ended := &pods.Items[0]
	assert.Equal(t, corev1.PodSucceeded, ended.Status.Phase)
	assert.NotNil(t, containerStatus(ended, patches.SidecarName).State.Terminated, describeContainers(ended))
	assert.Equal(t, s.identity("default"), lastView(t, ended, "edge").ID)
}
