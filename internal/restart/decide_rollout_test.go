package restart

import (
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func generation(n int64) metav1.ObjectMeta { return metav1.ObjectMeta{Generation: n} }

func TestDeploymentRollout(t *testing.T) {
	for name, c := range map[string]struct {
		status appsv1.DeploymentStatus
		want   rollout
	}{
		"if all are updated and available, expect it to be complete": {
			appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 3, UpdatedReplicas: 3, AvailableReplicas: 3}, rollout{complete: true},
		},
		"if its controller has not seen the change, expect to wait for that": {
			appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 3, UpdatedReplicas: 3, AvailableReplicas: 3},
			rollout{waitsFor: "its latest change has not been seen by its controller"},
		},
		"if some are not updated, expect to wait": {
			appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 3, UpdatedReplicas: 1, AvailableReplicas: 3}, rollout{waitsFor: "1 of 3 pods are updated"},
		},
		"if an old one is left, expect to wait": {
			appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 4, UpdatedReplicas: 3, AvailableReplicas: 4}, rollout{waitsFor: "1 old pods are left"},
		},
		"if one is not available, expect to wait": {
			appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 3, UpdatedReplicas: 3, AvailableReplicas: 2}, rollout{waitsFor: "2 of 3 updated pods are available"},
		},
		"if its deadline is exceeded, expect it to have failed": {
			appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 4, UpdatedReplicas: 1, AvailableReplicas: 3, Conditions: []appsv1.DeploymentCondition{{
				Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded",
			}}},
			rollout{failed: true, waitsFor: "its progress deadline is exceeded, with 1 of 3 pods updated and 3 available"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := &appsv1.Deployment{ObjectMeta: generation(2), Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](3)}, Status: c.status}
			assert.Equal(t, c.want, deploymentRollout(d))
		})
	}
}

func TestStatefulSetRollout(t *testing.T) {
	for name, c := range map[string]struct {
		status appsv1.StatefulSetStatus
		want   rollout
	}{
		"if all are of the update's revision, expect it to be complete": {
			appsv1.StatefulSetStatus{ObservedGeneration: 2, Replicas: 3, AvailableReplicas: 3, CurrentRevision: "b", UpdateRevision: "b"}, rollout{complete: true},
		},
		"if its controller has not seen the change, expect to wait": {
			appsv1.StatefulSetStatus{ObservedGeneration: 1, Replicas: 3, AvailableReplicas: 3, CurrentRevision: "a", UpdateRevision: "a"},
			rollout{waitsFor: "its latest change has not been seen by its controller"},
		},
		"if the revisions differ, expect to wait": {
			appsv1.StatefulSetStatus{ObservedGeneration: 2, Replicas: 3, AvailableReplicas: 3, UpdatedReplicas: 2, CurrentRevision: "a", UpdateRevision: "b"},
			rollout{waitsFor: "2 of 3 pods are updated"},
		},
		"if one is not available, expect to wait": {
			appsv1.StatefulSetStatus{ObservedGeneration: 2, Replicas: 3, AvailableReplicas: 2, CurrentRevision: "b", UpdateRevision: "b"}, rollout{waitsFor: "2 of 3 pods are available"},
		},
		"if it was scaled down and a pod is left, expect to wait": {
			appsv1.StatefulSetStatus{ObservedGeneration: 2, Replicas: 4, AvailableReplicas: 4, CurrentRevision: "b", UpdateRevision: "b"}, rollout{waitsFor: "1 pods have not been removed yet"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &appsv1.StatefulSet{ObjectMeta: generation(2), Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](3)}, Status: c.status}
			assert.Equal(t, c.want, statefulSetRollout(s))
		})
	}
}

func TestDaemonSetRollout(t *testing.T) {
	for name, c := range map[string]struct {
		status appsv1.DaemonSetStatus
		want   rollout
	}{
		"if all are updated and available, expect it to be complete": {
			appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 3, UpdatedNumberScheduled: 3, NumberAvailable: 3}, rollout{complete: true},
		},
		"if its controller has not seen the change, expect to wait": {
			appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: 3, UpdatedNumberScheduled: 3, NumberAvailable: 3},
			rollout{waitsFor: "its latest change has not been seen by its controller"},
		},
		"if one is not updated, expect to wait": {
			appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 3, UpdatedNumberScheduled: 2, NumberAvailable: 3}, rollout{waitsFor: "2 of 3 pods are updated"},
		},
		"if one is not available, expect to wait": {
			appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 3, UpdatedNumberScheduled: 3, NumberAvailable: 2}, rollout{waitsFor: "2 of 3 pods are available"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, daemonSetRollout(&appsv1.DaemonSet{ObjectMeta: generation(2), Status: c.status}))
		})
	}
}

func TestObstacleOfAWorkload(t *testing.T) {
	deploymentOf := func(paused bool) string {
		return obstacleOfDeployment(&appsv1.Deployment{Spec: appsv1.DeploymentSpec{Paused: paused}})
	}
	statefulSetOf := func(u appsv1.StatefulSetUpdateStrategy) string {
		return obstacleOfStatefulSet(&appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{UpdateStrategy: u}})
	}
	daemonSetOf := func(u appsv1.DaemonSetUpdateStrategy) string {
		return obstacleOfDaemonSet(&appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{UpdateStrategy: u}})
	}
	partition := func(n *int32) appsv1.StatefulSetUpdateStrategy {
		return appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: n}}
	}
	for name, test := range map[string]struct{ got, want string }{
		"if a Deployment rolls, expect none":                 {deploymentOf(false), ""},
		"if a Deployment is paused, expect that":             {deploymentOf(true), "it is paused; resume it (kubectl rollout resume)"},
		"if a StatefulSet has the default, expect none":      {statefulSetOf(appsv1.StatefulSetUpdateStrategy{}), ""},
		"if a StatefulSet has no partition, expect none":     {statefulSetOf(partition(nil)), ""},
		"if a StatefulSet has the partition 0, expect none":  {statefulSetOf(partition(ptr.To[int32](0))), ""},
		"if a StatefulSet has a partition, expect that":      {statefulSetOf(partition(ptr.To[int32](2))), "its update strategy has partition 2,"},
		"if a StatefulSet is updated on delete, expect that": {statefulSetOf(appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}), "its update strategy is OnDelete;"},
		"if a DaemonSet has the default, expect none":        {daemonSetOf(appsv1.DaemonSetUpdateStrategy{}), ""},
		"if a DaemonSet rolls, expect none":                  {daemonSetOf(appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType}), ""},
		"if a DaemonSet is updated on delete, expect that":   {daemonSetOf(appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}), "its update strategy is OnDelete;"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.want == "" {
				assert.Empty(t, test.got)
				return
			}
			assert.Contains(t, test.got, test.want)
		})
	}
}
