package restart

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

func ownerOf(version, kind, name string) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: version, Kind: kind, Name: name, UID: types.UID(name + "-1"), Controller: ptr.To(true)}
}

// replicaSets is an API server with ReplicaSets of namespace shop: of the Deployment
// front, of a Rollout, and of none.
func replicaSets() *fake.Clientset {
	replicaSet := func(name string, owner *metav1.OwnerReference) *appsv1.ReplicaSet {
		rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name + "-1")}}
		if owner != nil {
			rs.OwnerReferences = []metav1.OwnerReference{*owner}
		}
		return rs
	}
	return fake.NewClientset(
		replicaSet("front-abc", ownerOf("apps/v1", "Deployment", "front")),
		replicaSet("canary-abc", ownerOf("argoproj.io/v1alpha1", "Rollout", "canary")),
		replicaSet("bare-abc", nil),
	)
}

func countGets(kube *fake.Clientset) *int {
	gets := new(int)
	kube.PrependReactor("get", "replicasets", func(clienttesting.Action) (bool, runtime.Object, error) {
		*gets++
		return false, nil, nil
	})
	return gets
}

func TestWorkloadOf(t *testing.T) {
	for name, test := range map[string]struct {
		owner       *metav1.OwnerReference
		kind, name  string
		unsupported string
		gets        int
		err         string
	}{
		"if the pod has no owner, expect the reason": {unsupported: "the pod has no controller that would recreate it"},
		"if a StatefulSet owns it, expect that":      {owner: ownerOf("apps/v1", "StatefulSet", "db"), kind: statefulSet, name: "db"},
		"if a DaemonSet owns it, expect that":        {owner: ownerOf("apps/v1", "DaemonSet", "front"), kind: daemonSet, name: "front"},
		"if a Job owns it, expect the reason":        {owner: ownerOf("batch/v1", "Job", "job"), unsupported: "its owner is the Job job, and only the pods of a Deployment, StatefulSet or DaemonSet can be rolled"},
		"if another StatefulSet owns it, expect why": {owner: ownerOf("apps.kruise.io/v1beta1", "StatefulSet", "db"), unsupported: "its owner is the StatefulSet db,"},
		"if another ReplicaSet owns it, expect why":  {owner: ownerOf("example.com/v1", "ReplicaSet", "front-abc"), unsupported: "its owner is the ReplicaSet front-abc,"},
		"if a Deployment is above, expect that":      {owner: ownerOf("apps/v1", "ReplicaSet", "front-abc"), kind: deployment, name: "front", gets: 1},
		"if nothing is above, expect the reason":     {owner: ownerOf("apps/v1", "ReplicaSet", "bare-abc"), unsupported: "its ReplicaSet bare-abc belongs to no Deployment;", gets: 1},
		"if a Rollout is above, expect the reason":   {owner: ownerOf("apps/v1", "ReplicaSet", "canary-abc"), unsupported: "its ReplicaSet belongs to the Rollout canary (argoproj.io/v1alpha1), which has its own way to restart", gets: 1},
		"if its ReplicaSet is gone, expect an error": {owner: ownerOf("apps/v1", "ReplicaSet", "gone-abc"), err: "read ReplicaSet shop/gone-abc", gets: 1},
	} {
		t.Run(name, func(t *testing.T) {
			kube := replicaSets()
			gets := countGets(kube)
			kind, workload, unsupported, err := workloadOf(t.Context(), kube, "shop", test.owner)
			assert.Equal(t, test.gets, *gets)
			if test.err != "" {
				assert.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.kind, kind)
			assert.Equal(t, test.name, workload)
			if test.unsupported == "" {
				assert.Empty(t, unsupported)
				return
			}
			assert.Contains(t, unsupported, test.unsupported)
		})
	}
}

func TestIsPodOf(t *testing.T) {
	frontend := &workload{Object: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front", UID: "front-1"}}, kind: deployment}
	db := &workload{Object: &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: "db-1"}}, kind: statefulSet}
	for name, test := range map[string]struct {
		w     *workload
		owner *metav1.OwnerReference
		want  bool
		gets  int
	}{
		"if it has no owner, expect no":                        {frontend, nil, false, 0},
		"if its StatefulSet is the workload, expect yes":       {db, ownerOf("apps/v1", "StatefulSet", "db"), true, 0},
		"if its StatefulSet is another, expect no":             {db, ownerOf("apps/v1", "StatefulSet", "other"), false, 0},
		"if its ReplicaSet is the workload's, expect yes":      {frontend, ownerOf("apps/v1", "ReplicaSet", "front-abc"), true, 1},
		"if its ReplicaSet is another workload's, expect no":   {frontend, ownerOf("apps/v1", "ReplicaSet", "canary-abc"), false, 1},
		"if its ReplicaSet belongs to no workload, expect no":  {frontend, ownerOf("apps/v1", "ReplicaSet", "bare-abc"), false, 1},
		"if its ReplicaSet is gone, expect no and a read each": {frontend, ownerOf("apps/v1", "ReplicaSet", "gone-abc"), false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			kube := replicaSets()
			gets := countGets(kube)
			known := map[types.UID]bool{}
			for range 2 {
				got, err := isPodOf(t.Context(), kube, test.w, test.owner, known)
				require.NoError(t, err)
				assert.Equal(t, test.want, got)
			}
			assert.Equal(t, test.gets, *gets, "a ReplicaSet is read once")
		})
	}
	kube := replicaSets()
	kube.PrependReactor("get", "replicasets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection refused")
	})
	_, err := isPodOf(t.Context(), kube, frontend, ownerOf("apps/v1", "ReplicaSet", "front-abc"), map[types.UID]bool{})
	assert.EqualError(t, err, "read ReplicaSet shop/front-abc: connection refused")
}

func TestReadWorkload(t *testing.T) {
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "front"}}
	objectMeta := metav1.ObjectMeta{Namespace: "shop", Name: "front", UID: "front-1"}
	kube := fake.NewClientset(
		&appsv1.Deployment{ObjectMeta: objectMeta, Spec: appsv1.DeploymentSpec{Selector: selector, Paused: true}, Status: appsv1.DeploymentStatus{AvailableReplicas: 1}},
		&appsv1.StatefulSet{ObjectMeta: objectMeta, Spec: appsv1.StatefulSetSpec{Selector: selector, UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}}, Status: appsv1.StatefulSetStatus{AvailableReplicas: 2}},
		&appsv1.DaemonSet{ObjectMeta: objectMeta, Spec: appsv1.DaemonSetSpec{Selector: selector, UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}}, Status: appsv1.DaemonSetStatus{NumberAvailable: 3}},
	)
	for kind, available := range map[string]int32{deployment: 1, statefulSet: 2, daemonSet: 3} {
		w, err := readWorkload(t.Context(), kube, kind, "shop", "front")
		require.NoError(t, err, kind)
		assert.Equal(t, kind+" shop/front", w.String())
		assert.Equal(t, available, w.available)
		assert.NotEmpty(t, w.obstacle, kind)
		assert.Equal(t, "app=front", w.selector.String())
		_, err = readWorkload(t.Context(), kube, kind, "shop", "gone")
		assert.NoError(t, ignoreNotFound(err), kind)
	}
	_, err := readWorkload(t.Context(), kube, "Job", "shop", "front")
	assert.EqualError(t, err, "read Job shop/front: want a Deployment, StatefulSet or DaemonSet")
}
