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

// nodeName is what the cluster calls this node.
const nodeName = "stand-in"

// node runs every pod of the cluster.
type node struct {
	settings Settings
	client   kubernetes.Interface
	network  *network

	mu   sync.Mutex
	pods map[string]*pod // by uid
}

// register makes the Node object, ready and large, and keeps its Lease: the
// controller manager ends the pods of a node that it does not hear of.
func register(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: nodeName, Labels: map[string]string{"kubernetes.io/os": "linux", "kubernetes.io/hostname": nodeName},
	}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	room := corev1.ResourceList{"cpu": resource.MustParse("64"), "memory": resource.MustParse("256Gi"), "pods": resource.MustParse("500")}
	status, err := json.Marshal(map[string]any{"status": map[string]any{
		"capacity": room, "allocatable": room,
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
	lease := func() {
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
	lease()
	go func() {
		for range tick(ctx, 10*time.Second) {
			lease()
		}
	}()
	return nil
}

// work runs pods until ctx ends.
func (n *node) work(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(n.client, 0)
	informer := factory.Core().V1().Pods().Informer()
	see := func(o any) {
		if p, ok := o.(*corev1.Pod); ok {
			n.see(ctx, p)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: see, UpdateFunc: func(_, o any) { see(o) }, DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if p, ok := o.(*corev1.Pod); ok {
				n.forget(p)
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

// see starts a new pod, and ends one that is to be deleted.
func (n *node) see(ctx context.Context, object *corev1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pods[string(object.UID)]
	switch {
	case p != nil && object.DeletionTimestamp != nil:
		p.stop()
	case p != nil, object.Status.Phase == corev1.PodSucceeded, object.Status.Phase == corev1.PodFailed:
	default:
		p = newPod(n, object)
		n.pods[string(object.UID)] = p
		if object.DeletionTimestamp != nil {
			p.stop()
		}
		go p.run(ctx)
	}
}

// forget ends what is left of a pod that is no more.
func (n *node) forget(object *corev1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.pods[string(object.UID)]; p != nil {
		p.stop()
		delete(n.pods, string(object.UID))
	}
}

// tick is a ticker that ends with ctx.
func tick(ctx context.Context, every time.Duration) <-chan time.Time {
	out := make(chan time.Time)
	go func() {
		defer close(out)
		t := time.NewTicker(every)
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
