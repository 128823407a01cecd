package restart

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// rollout is how far a workload has rolled out its latest pod template, by the
// rules of kubectl rollout status (polymorphichelpers/rollout_status.go).
type rollout struct {
	// complete: every pod is of the latest template and available, and no other pod is
	// left.
	complete bool
	// failed: the progress deadline of the Deployment is exceeded.
	failed bool
	// waitsFor describes what is missing; empty when complete.
	waitsFor string
}

func notObserved() rollout {
	return rollout{waitsFor: "its latest change has not been seen by its controller"}
}

func incomplete(format string, args ...any) rollout {
	return rollout{waitsFor: fmt.Sprintf(format, args...)}
}

func deploymentRollout(d *appsv1.Deployment) rollout {
	s, want := d.Status, ptr.Deref(d.Spec.Replicas, 1)
	if s.ObservedGeneration < d.Generation {
		return notObserved()
	}
	for _, c := range s.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse && c.Reason == "ProgressDeadlineExceeded" {
			return rollout{failed: true, waitsFor: fmt.Sprintf("its progress deadline is exceeded, with %d of %d pods updated and %d available", s.UpdatedReplicas, want, s.AvailableReplicas)}
		}
	}
	switch {
	case s.UpdatedReplicas < want:
		return incomplete("%d of %d pods are updated", s.UpdatedReplicas, want)
	case s.Replicas > s.UpdatedReplicas:
		return incomplete("%d old pods are left", s.Replicas-s.UpdatedReplicas)
	case s.AvailableReplicas < s.UpdatedReplicas:
		return incomplete("%d of %d updated pods are available", s.AvailableReplicas, s.UpdatedReplicas)
	}
	return rollout{complete: true}
}

func statefulSetRollout(s *appsv1.StatefulSet) rollout {
	st, want := s.Status, ptr.Deref(s.Spec.Replicas, 1)
	switch {
	case st.ObservedGeneration < s.Generation:
		return notObserved()
	case st.UpdateRevision != st.CurrentRevision:
		return incomplete("%d of %d pods are updated", st.UpdatedReplicas, want)
	case st.AvailableReplicas < want:
		return incomplete("%d of %d pods are available", st.AvailableReplicas, want)
	case st.Replicas > want:
		return incomplete("%d pods have not been removed yet", st.Replicas-want)
	}
	return rollout{complete: true}
}

func daemonSetRollout(d *appsv1.DaemonSet) rollout {
	s := d.Status
	switch {
	case s.ObservedGeneration < d.Generation:
		return notObserved()
	case s.UpdatedNumberScheduled < s.DesiredNumberScheduled:
		return incomplete("%d of %d pods are updated", s.UpdatedNumberScheduled, s.DesiredNumberScheduled)
	case s.NumberAvailable < s.DesiredNumberScheduled:
		return incomplete("%d of %d pods are available", s.NumberAvailable, s.DesiredNumberScheduled)
	}
	return rollout{complete: true}
}

func obstacleOfDeployment(d *appsv1.Deployment) string {
	if d.Spec.Paused {
		return "it is paused; resume it (kubectl rollout resume)"
	}
	return ""
}

func obstacleOfStatefulSet(s *appsv1.StatefulSet) string {
	u := s.Spec.UpdateStrategy
	switch {
	case u.Type == appsv1.OnDeleteStatefulSetStrategyType:
		return "its update strategy is OnDelete; delete its pods one by one"
	case u.RollingUpdate != nil && ptr.Deref(u.RollingUpdate.Partition, 0) > 0:
		return fmt.Sprintf("its update strategy has partition %d, so the pods below it would stay as they are; set it to 0", *u.RollingUpdate.Partition)
	}
	return ""
}

func obstacleOfDaemonSet(d *appsv1.DaemonSet) string {
	if d.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType {
		return "its update strategy is OnDelete; delete its pods one by one"
	}
	return ""
}
