package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// place is what is known of an opted-in namespace. It is lost with the process
// and found again by looking.
type place struct {
	namespace string
	// claims are those of the pods, by their UID, and idle are the pods that were
	// read and claim nothing.
	claims map[types.UID]claim
	idle   map[types.UID]bool
	// surveyed is when the pods were last listed, and basis what of the
	// namespace they were judged by.
	surveyed time.Time
	basis    string
	// settled is true from the second survey on.
	settled bool
	// stale are the pods that were stale when they were read, by their UID, and
	// missing is the count of the last survey, by mode.
	stale   map[types.UID]stale
	missing map[policy.Mode]int
	// kept are the Secrets, by name.
	kept map[string]*kept
	// applied are the objects beside the Secrets that are known to stand, by
	// name; the empty text says that there is none of ours.
	applied map[string]string
	// said is what was last told of whom, so that it is told once.
	said map[string]string
}

// waitReady is how long a namespace waits for the mesh's settings at start.
const waitReady = 500 * time.Millisecond

// Reconcile makes one namespace true.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	if err := r.Ready(); err != nil {
		log.FromContext(ctx).V(1).Info("not ready", "why", err.Error())
		return ctrl.Result{RequeueAfter: spread(waitReady, 0.5)}, nil
	}
	ns, enabled, err := r.namespace(ctx, request.Name)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !enabled {
		return ctrl.Result{}, r.release(ctx, request.Name)
	}
	p := r.place(ns.Name)
	if err := r.meet(ctx, ns, p); err != nil {
		return ctrl.Result{}, err
	}
	r.restarts.report(ns.Name, p.stale)
	next := p.surveyed.Add(spread(r.SurveyEvery, 0.1))
	claims := slices.Collect(maps.Values(p.claims))
	options, problem := policy.Resolve(nil, nil, ns, r.Settings.Defaults, r.Settings.SecretNames)
	if problem == nil && options.ServiceAccount != "" {
		// Its Secret is kept even while no pod of it runs.
		claims = append(claims, claim{mode: options.Mode, serviceAccount: options.ServiceAccount, options: options})
	}
	groups := bySecret(claims)
	var errs []error
	for _, secret := range slices.Sorted(maps.Keys(groups)) {
		due, err := r.keep(ctx, p, secret, groups[secret])
		errs = append(errs, err)
		if !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	r.drop(p, groups)
	errs = append(errs, r.bindPublisher(ctx, p, claims))
	if problem == nil {
		errs = append(errs, r.keepTLSContext(ctx, p, options, claims))
	}
	r.count(p)
	if err := errors.Join(errs...); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: max(next.Sub(r.Clock.Now()), time.Millisecond)}, nil
}

// namespace reads what the cache holds: opted-in namespaces and no others.
func (r *reconciler) namespace(ctx context.Context, name string) (ns policy.Namespace, enabled bool, err error) {
	o := metadata("Namespace")
	if err := r.cached.Get(ctx, client.ObjectKey{Name: name}, o); err != nil {
		return policy.Namespace{Name: name}, false, client.IgnoreNotFound(err)
	}
	ns = policy.Namespace{Name: name, Labels: o.Labels, Annotations: o.Annotations}
	excluded := slices.Contains(r.Settings.ExcludedNamespaces, name)
	return ns, o.DeletionTimestamp.IsZero() && !excluded, nil
}

// meet learns of the pods: by a survey when one is due, else by reading the
// pods that were not seen before.
func (r *reconciler) meet(ctx context.Context, ns policy.Namespace, p *place) error {
	basis := fmt.Sprint(ns.Labels, ns.Annotations)
	if p.basis != basis || r.Clock.Since(p.surveyed) >= r.SurveyEvery*9/10 {
		if err := r.survey(ctx, ns, p); err != nil {
			return err
		}
		p.settled, p.basis = !p.surveyed.IsZero(), basis
		p.surveyed = r.Clock.Now()
		if !p.settled {
			// As if it had been a while ago: thousands of namespaces that were first
			// met within a minute must not all be surveyed within one again.
			p.surveyed = p.surveyed.Add(-spread(r.SurveyEvery/2, 1))
		}
		return nil
	}
	present, err := r.injected(ctx, ns.Name)
	if err != nil {
		return err
	}
	maps.DeleteFunc(p.claims, func(uid types.UID, _ claim) bool { _, there := present[uid]; return !there })
	maps.DeleteFunc(p.stale, func(uid types.UID, _ stale) bool { _, there := present[uid]; return !there })
	for uid, name := range present {
		if _, known := p.claims[uid]; known || p.idle[uid] {
			continue
		}
		pod := &corev1.Pod{}
		err := r.live.Get(ctx, client.ObjectKey{Namespace: ns.Name, Name: name}, pod)
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return fmt.Errorf("read pod %s/%s: %w", ns.Name, name, err)
		}
		r.judge(ns, p, pod)
	}
	return nil
}

// injected lists the injected pods of a namespace from the cache.
func (r *reconciler) injected(ctx context.Context, namespace string) (map[types.UID]string, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	if err := r.cached.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the injected pods of namespace %s: %w", namespace, err)
	}
	present := make(map[types.UID]string, len(list.Items))
	for i := range list.Items {
		present[list.Items[i].UID] = list.Items[i].Name
	}
	return present, nil
}

// release takes back what is ours in a namespace that is not opted in, once its
// last edge pod is gone: until then the edge lives by it.
func (r *reconciler) release(ctx context.Context, namespace string) error {
	present, err := r.injected(ctx, namespace)
	if err != nil {
		return err
	}
	if len(present) > 0 {
		log.FromContext(ctx).V(1).Info("edge pods still run in a namespace that is not opted in", "pods", len(present))
		return nil
	}
	var errs []error
	for _, name := range r.Settings.SecretNames {
		errs = append(errs, r.removeSecret(ctx, namespace, name))
		for _, source := range r.Sources {
			if remover, ok := source.(Remover); ok {
				errs = append(errs, remover.Remove(ctx, namespace, name))
			}
		}
	}
	errs = append(errs, r.removeTLSContext(ctx, namespace), r.disown(ctx, namespace, publisherBinding))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.forget(namespace)
	return nil
}
