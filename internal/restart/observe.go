package restart

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// observeCandidate reads the workload of a stale pod, if its namespace is opted in.
// The workload is nil when there is none.
func (r *Restarter) observeCandidate(ctx context.Context, c candidate) (observation, error) {
	var o observation
	var err error
	if o.namespace, o.enabled, err = r.ReadNamespace(ctx, c.Pod.Namespace); err != nil || !o.enabled {
		return o, err
	}
	kind, name, unsupported, err := workloadOf(ctx, r.Kube, o.namespace.Name, c.Owner)
	o.unsupported = unsupported
	if err != nil || kind == "" {
		return o, ignoreNotFound(err)
	}
	o.workload, err = readWorkload(ctx, r.Kube, kind, o.namespace.Name, name)
	return o, ignoreNotFound(err)
}

// observeCurrent reads the workload that is being restarted. The workload is nil
// when it is gone, or when another one has its name.
func (r *Restarter) observeCurrent(ctx context.Context, current record) (observation, error) {
	var o observation
	var err error
	if o.namespace, o.enabled, err = r.ReadNamespace(ctx, current.namespace); err != nil {
		return o, err
	}
	o.workload, err = readWorkload(ctx, r.Kube, current.kind, current.namespace, current.name)
	if o.workload != nil && o.workload.GetUID() != current.uid {
		o.workload = nil
	}
	return o, ignoreNotFound(err)
}

// observeWebhook checks the replicas of the webhook.
func (r *Restarter) observeWebhook(ctx context.Context, o *observation) {
	problem := ""
	if err := r.CheckWebhook(ctx); err != nil {
		problem = err.Error()
	}
	r.webhook = r.webhook.next(problem, r.Clock.Now())
	state := r.webhook
	o.webhook = &state
}

// observePods reads the pods of the workload, and asks the engine about a new one
// when there are stale ones.
func (r *Restarter) observePods(ctx context.Context, o *observation) error {
	pods, err := r.summarizePods(ctx, o.namespace, o.workload)
	if err != nil {
		return err
	}
	o.pods = pods
	if template := pods.template(); template != "" {
		o.templateSince = r.reports.templateSince(o.namespace.Name, template)
		t := o.workload.template
		o.injection = r.Engine.Inject(inject.Request{Pod: &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}, Namespace: o.namespace})
	}
	return nil
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
