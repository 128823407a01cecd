package main

import (
	"context"
	"encoding/json"
	"log"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// nodeName is the name of the Node.
const nodeName = "stand-in"

// node runs every pod of the cluster.
type node struct {
	settings Settings
	client   kubernetes.Interface
	network  *network

	mu   sync.Mutex
	pods map[string]*pod // by uid
}

// register creates the Node with a large capacity and the condition Ready, and renews its
// Lease: without the Lease the kube-controller-manager would evict the node's pods.
func register(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: nodeName, Labels: map[string]string{"kubernetes.io/os": "linux", "kubernetes.io/hostname": nodeName},
	}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	capacity := corev1.ResourceList{"cpu": resource.MustParse("64"), "memory": resource.MustParse("256Gi"), "pods": resource.MustParse("500")}
	status, err := json.Marshal(map[string]any{"status": map[string]any{
		"capacity": capacity, "allocatable": capacity,
		"nodeInfo":  map[string]string{"operatingSystem": "linux", "kubeletVersion": "v1.36.0"},
		"addresses": []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: hostAddress}},
		"conditions": []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "StandIn", LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
		}},
	}})
	if err != nil {
		return err
	}
	if _, err = client.CoreV1().Nodes().Patch(ctx, nodeName, types.MergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	renewLease := func() {
		l := &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: nodeName, Namespace: corev1.NamespaceNodeLease},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity: ptr.To(nodeName), LeaseDurationSeconds: ptr.To[int32](40), RenewTime: ptr.To(metav1.NowMicro()),
			},
		}
		leases := client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
		old, err := leases.Get(ctx, nodeName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = leases.Create(ctx, l, metav1.CreateOptions{})
		} else if err == nil {
			old.Spec = l.Spec
			_, err = leases.Update(ctx, old, metav1.UpdateOptions{})
		}
		if err != nil && ctx.Err() == nil {
			log.Printf("renew the lease: %v", err)
		}
	}
	renewLease()
	go func() {
		for range ticker(ctx, 10*time.Second) {
			renewLease()
		}
	}()
	return nil
}

// run runs the pods until ctx ends.
func (n *node) run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(n.client, 0)
	informer := factory.Core().V1().Pods().Informer()
	handle := func(o any) {
		if p, ok := o.(*corev1.Pod); ok {
			n.syncPod(ctx, p)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: handle, UpdateFunc: func(_, o any) { handle(o) }, DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if p, ok := o.(*corev1.Pod); ok {
				n.removePod(p)
			}
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	return nil
}

// syncPod starts a new pod, and stops a pod that is being deleted.
func (n *node) syncPod(ctx context.Context, apiPod *corev1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pods[string(apiPod.UID)]
	switch {
	case p != nil && apiPod.DeletionTimestamp != nil:
		p.stop()
	case p != nil, apiPod.Status.Phase == corev1.PodSucceeded, apiPod.Status.Phase == corev1.PodFailed:
	default:
		p = newPod(n, apiPod)
		n.pods[string(apiPod.UID)] = p
		if apiPod.DeletionTimestamp != nil {
			p.stop()
		}
		go p.run(ctx)
	}
}

// removePod stops a pod that was deleted from the API server.
func (n *node) removePod(apiPod *corev1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.pods[string(apiPod.UID)]; p != nil {
		p.stop()
		delete(n.pods, string(apiPod.UID))
	}
}

// ticker returns a channel that receives a tick every interval until ctx ends.
func ticker(ctx context.Context, interval time.Duration) <-chan time.Time {
	out := make(chan time.Time)
	go func() {
		defer close(out)
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case at := <-t.C:
				select {
				case out <- at:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}
