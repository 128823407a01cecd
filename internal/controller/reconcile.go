package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// NamespaceReader returns the labels and annotations of a namespace, and whether
// it is opted in.
type NamespaceReader func(ctx context.Context, name string) (ns policy.Namespace, enabled bool, err error)

// NewNamespaceReader returns a NamespaceReader that reads from the cache of a manager that
// CacheOptions configured, which holds opted-in namespaces and no others, or from an
// API server.
func NewNamespaceReader(cached client.Reader, settings inject.Settings) NamespaceReader {
	excluded := settings.WithDefaults().ExcludedNamespaces
	return func(ctx context.Context, name string) (ns policy.Namespace, enabled bool, err error) {
		o := metadataOf("Namespace")
		if err := cached.Get(ctx, client.ObjectKey{Name: name}, o); err != nil {
			return policy.Namespace{Name: name}, false, client.IgnoreNotFound(err)
		}
		ns = policy.Namespace{Name: name, Labels: o.Labels, Annotations: o.Annotations}
		return ns, o.DeletionTimestamp.IsZero() && o.Labels[policy.InjectionLabel] == policy.InjectionEnabled && !slices.Contains(excluded, name), nil
	}
}

// Reconcile observes one namespace, decides and acts. The next reconciliation has the
// normal priority, also after one that a changed Secret caused.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	next, err := r.reconcile(ctx, request)
	return ctrl.Result{RequeueAfter: next, Priority: ptr.To(0)}, err
}

// reconcile returns the time until the next reconciliation; zero when there is none.
func (r *reconciler) reconcile(ctx context.Context, request ctrl.Request) (time.Duration, error) {
	o := namespaceObservation{isLeftOut: !r.Settings.KeepsSecretsIn(request.Name)}
	var ns policy.Namespace
	err := r.Ready()
	if err != nil && !o.isLeftOut {
		log.FromContext(ctx).V(1).Info("not ready", "why", err.Error())
	} else {
		o.isReady = true
		if ns, o.isOptedIn, err = r.readNamespace(ctx, request.Name); err != nil {
			return 0, err
		}
	}
	for {
		switch action := decideNamespace(o); action {
		case actionLeaveOut:
			if o.isOptedIn {
				log.FromContext(ctx).Info("namespace is opted in and left out: no Secret is kept there", "limitedTo", r.Settings.ControllerNamespaces)
			}
			return 0, nil
		case actionAwaitMesh:
			return jitter(readyRetry, 0.5, r.Random), nil
		case actionReconcile:
			return r.reconcileEdges(ctx, ns)
		case actionCountPods:
			present, err := r.injectedPods(ctx, request.Name)
			if err != nil {
				return 0, err
			}
			count := len(present)
			o.injectedPods = &count
		case actionAwaitLastPod:
			log.FromContext(ctx).V(1).Info("edge pods still run in a namespace that is not opted in", "pods", *o.injectedPods)
			return 0, nil
		case actionAskAPIServer:
			if o.live, err = r.askAPIServer(ctx, request.Name); err != nil {
				return 0, err
			}
		case actionAwaitCache:
			log.FromContext(ctx).V(1).Info("the cache is behind the API server, so nothing is removed", "optedIn", o.live.isOptedIn, "hasPods", o.live.hasInjectedPods)
			return 0, nil
		case actionCleanUp:
			return 0, r.cleanUp(ctx, request.Name)
		default:
			return 0, fmt.Errorf("namespace %s: unexpected action %q", request.Name, action)
		}
	}
}

// askAPIServer reads a namespace, and whether it has injected pods, past the cache.
func (r *reconciler) askAPIServer(ctx context.Context, name string) (*liveNamespace, error) {
	live := &liveNamespace{}
	var err error
	if _, live.isOptedIn, err = r.readNamespaceLive(ctx, name); err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", name, err)
	}
	pods := &metav1.PartialObjectMetadataList{}
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	selection, err := injectedSelection()
	if err != nil {
		return nil, err
	}
	err = r.live.List(ctx, pods, client.InNamespace(name), client.Limit(1),
		client.MatchingLabelsSelector{Selector: selection.Label}, client.MatchingFieldsSelector{Selector: selection.Field})
	if err != nil {
		return nil, fmt.Errorf("list the injected pods of namespace %s: %w", name, err)
	}
	live.hasInjectedPods = len(pods.Items) > 0 || pods.Continue != ""
	return live, nil
}

// reconcileEdges reconciles the objects that the edges of an opted-in namespace
// need, and returns the time until the next reconciliation. Pods that cannot be read do
// not keep the Secrets of those that are known from renewal.
func (r *reconciler) reconcileEdges(ctx context.Context, ns policy.Namespace) (time.Duration, error) {
	s, began := r.state(ns.Name), r.Clock.Now()
	defer r.setFirstEnd(s)
	for _, secret := range r.versions.changed(ns.Name) {
		delete(s.applied, secret)
	}
	podsErr := r.syncPods(ctx, ns, s)
	if podsErr != nil && s.scanned.IsZero() {
		return 0, podsErr // nothing is known yet
	}
	r.reportStale(ns.Name, slices.Collect(maps.Values(s.stale)))
	desire := desireOf(ns, r.rules)
	claims := slices.AppendSeq(desire.claims, maps.Values(s.claims))
	groups := groupBySecret(claims)
	if r.isWoken(s.name) {
		for _, secret := range s.secrets {
			secret.askAfter = time.Time{}
		}
	}
	var errs []error
	var checks []time.Time
	for _, secret := range slices.Sorted(maps.Keys(groups)) {
		next, err := r.checkSecret(ctx, s, secret, groups[secret])
		errs = append(errs, err)
		checks = append(checks, next, r.nudge(ctx, s, secret, groups[secret]))
	}
	r.forgetUnclaimed(s, groups)
	if holding, isKnown := holdingClaims(groups, s.secrets); isKnown {
		errs = append(errs, r.reconcileObject(ctx, s, publisherBinding, desiredBinding(ns.Name, holding)))
	}
	if desire.isValid {
		errs = append(errs, r.reconcileContexts(ctx, s, desire.options, claims))
	}
	r.metrics.setEdgePods(s)
	if err := errors.Join(errs...); err != nil {
		return 0, errors.Join(podsErr, err)
	}
	r.settleChanges(s, began)
	if podsErr != nil {
		return 0, podsErr
	}
	return nextReconciliation(s.scanned, r.scanInterval(), checks, r.Clock.Now(), r.Random), nil
}

// settleChanges notes that the changes of Secrets that were known when a
// reconciliation began have been dealt with. A Secret that still waits for its
// certificate is not settled: its repair ends when it is written.
func (r *reconciler) settleChanges(s *namespaceState, began time.Time) {
	for _, name := range r.versions.changed(s.name) {
		if state := s.secrets[name]; state == nil || state.state != publish.Absent && state.state != publish.Bad {
			r.versions.settle(s.name, name, began)
		}
	}
}

// cleanUp removes the objects that Isthmus manages in a namespace that is not opted in.
func (r *reconciler) cleanUp(ctx context.Context, namespace string) error {
	var errs []error
	for _, name := range r.Settings.SecretNames {
		former, err := r.deleteSecretOf(ctx, namespace, name)
		errs = append(errs, err)
		for source, implementation := range r.Sources {
			remover, ok := implementation.(Remover)
			if !ok {
				continue
			}
			err := remover.Remove(ctx, namespace, name)
			if errors.Is(err, certs.ErrNotConfigured) {
				// Nothing can be removed. Only a Secret of that source says that there is
				// something.
				if former == source {
					log.FromContext(ctx).Error(err, "what the source created stays", "secret", name, "source", source)
					r.Events.Record(leftBehind(secretReference(namespace, name), source, err))
				}
				continue
			}
			errs = append(errs, err)
		}
	}
	errs = append(errs, r.deleteContexts(ctx, namespace), r.deleteOwned(ctx, namespace, publisherBinding))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.forgetNamespace(namespace)
	return nil
}
