package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Restarts are what restarts stale workloads: one at a time in the whole cluster,
// and the next only when the one before is up with the current template.
type Restarts struct {
	// Kube reads and patches workloads. Required.
	Kube kubernetes.Interface
	// Namespace is Isthmus' own: it has the ConfigMap of RestartsConfigMap, which
	// the chart makes, and the Deployments of the webhook and the controller.
	// Required, unless Served is given too.
	Namespace string
	// Timeout is how long a rollout may take before an Event tells. Nothing else is
	// restarted meanwhile, nor afterwards, until it is complete. Default 15 minutes.
	Timeout time.Duration
	// Settle is how long a template has to have been the current one, served by
	// every replica of the webhook, before anything is restarted for it. Default one
	// minute.
	Settle time.Duration
	// Every is how often the rollout that is under way is looked at, and how often
	// the next is looked for. Default 5 seconds.
	Every time.Duration
	// Served is nil when every replica of the webhook injects as Options.Engine
	// says. Default: the Deployments in Namespace are rolled out and agree.
	Served func(ctx context.Context) error
}

// The defaults of Restarts.
const (
	DefaultRestartTimeout = 15 * time.Minute
	DefaultRestartSettle  = time.Minute
	defaultRestartEvery   = 5 * time.Second
)

func (o *Restarts) validate() error {
	switch {
	case o.Kube == nil:
		return errors.New("controller: no client for restarts given")
	case o.Namespace == "":
		return errors.New("controller: no namespace for the ConfigMap " + RestartsConfigMap + " given")
	}
	return nil
}

// perStep is how many owners of stale pods are looked at in one step: two or three
// requests each, so that thousands that ask for nothing cost a few requests a second.
const perStep = 20

// The results of isthmus_restarts_total.
const (
	restartStarted   = "started"
	restartCompleted = "completed"
	// restartStuck: the rollout was not complete in time.
	restartStuck = "stuck"
	// restartInVain: the new pods are stale again, or are not injected.
	restartInVain = "in-vain"
	// restartRefused: the workload asks, and cannot be restarted.
	restartRefused = "refused"
	// restartReleased: the workload was not waited for to the end, because it is
	// gone or asks no more.
	restartReleased = "released"
)

func restartResults() []string {
	return []string{restartStarted, restartCompleted, restartStuck, restartInVain, restartRefused, restartReleased}
}

// restarter restarts stale workloads. What it must not forget stands in the
// cluster: the record in its ConfigMap, and on the workload what it was restarted
// for. Only the leader runs it.
type restarter struct {
	Restarts
	*reconciler
	book book

	mu sync.Mutex
	// found are the stale pods, by namespace, that the namespaces' workers know of,
	// and seen is since when pods of a namespace should have a template.
	found map[string][]stale
	seen  map[sight]time.Time

	// The rest belongs to Start alone, and is found again by looking.
	cursor int
	// servedSince is since when the webhook serves the current template, and
	// unserved why it does not.
	servedSince time.Time
	unserved    string
	// waiting are the workloads that ask and await their turn, by the owner of
	// their stale pods.
	waiting map[string]string
	said    map[string]string
}

type sight struct{ namespace, template string }

func newRestarter(r *reconciler, o Restarts) *restarter {
	o.Timeout = cmp.Or(o.Timeout, DefaultRestartTimeout)
	o.Settle = cmp.Or(o.Settle, DefaultRestartSettle)
	o.Every = cmp.Or(o.Every, defaultRestartEvery)
	if o.Served == nil {
		o.Served = Served(o.Kube, o.Namespace)
	}
	for _, result := range restartResults() {
		r.metrics.restarts.WithLabelValues(result)
	}
	return &restarter{
		Restarts: o, reconciler: r, book: book{kube: o.Kube, namespace: o.Namespace}, found: map[string][]stale{},
		seen: map[sight]time.Time{}, waiting: map[string]string{}, said: map[string]string{},
	}
}

// report says which pods of a namespace are stale.
func (q *restarter) report(namespace string, pods map[types.UID]stale) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.found[namespace] = slices.Collect(maps.Values(pods))
	wanted := map[string]bool{}
	for _, s := range pods {
		wanted[s.template] = true
		if at := (sight{namespace, s.template}); q.seen[at].IsZero() {
			q.seen[at] = q.Clock.Now()
		}
	}
	maps.DeleteFunc(q.seen, func(at sight, _ time.Time) bool { return at.namespace == namespace && !wanted[at.template] })
	if len(pods) == 0 {
		delete(q.found, namespace)
	}
}

// Start implements manager.Runnable.
func (q *restarter) Start(ctx context.Context) error {
	for {
		if err := q.step(ctx); err != nil && ctx.Err() == nil {
			q.log.Error(err, "restart stale workloads; trying again")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(q.Every):
		}
	}
}

// step follows the restart that is under way, or begins the next.
func (q *restarter) step(ctx context.Context) error {
	if q.Ready() != nil {
		return nil
	}
	r, err := q.book.open(ctx)
	if err != nil {
		return err
	}
	state := ""
	if r != nil {
		var free bool
		if free, state, err = q.follow(ctx, *r); err != nil {
			return err
		}
		if free {
			r = nil
		}
	}
	begun, err := q.next(ctx, r)
	if begun {
		state = queueRolling
	}
	q.show(state)
	return err
}

// The states of isthmus_restart_queue.
const (
	queueWaiting = "waiting"
	queueRolling = "rolling"
	queueStopped = "stopped"
)

// show brings isthmus_restart_queue up to date: state is that of the workload that
// is being restarted, empty where there is none.
func (q *restarter) show(state string) {
	different := slices.Compact(slices.Sorted(maps.Values(q.waiting)))
	counts := map[string]int{queueWaiting: len(different), queueRolling: 0, queueStopped: 0}
	if state != "" {
		counts[state] = 1
	}
	for s, n := range counts {
		q.metrics.restartQueue.WithLabelValues(s).Set(float64(n))
	}
}

// candidate is the owner of a stale pod, or a pod that has none.
type candidate struct {
	stale
	key string
}

// candidates are the owners of all stale pods, each once, in a fixed order.
func (q *restarter) candidates() []candidate {
	q.mu.Lock()
	defer q.mu.Unlock()
	owners := map[string]candidate{}
	for namespace, pods := range q.found {
		for _, s := range pods {
			if s.template == "" {
				continue
			}
			key := namespace + "/Pod/" + s.pod.Name
			if s.owner != nil {
				key = namespace + "/" + s.owner.Kind + "/" + s.owner.Name
			}
			owners[key] = candidate{stale: s, key: key}
		}
	}
	list := make([]candidate, 0, len(owners))
	for _, key := range slices.Sorted(maps.Keys(owners)) {
		list = append(list, owners[key])
	}
	maps.DeleteFunc(q.waiting, func(key, _ string) bool { _, there := owners[key]; return !there })
	return list
}

// next looks at some owners of stale pods, and begins to restart the first that
// may be, unless there is a restart under way: then it only learns who waits. A
// mistake in one keeps none of the others waiting.
func (q *restarter) next(ctx context.Context, under *record) (begun bool, err error) {
	list := q.candidates()
	if len(list) == 0 {
		if under == nil {
			clear(q.said) // what comes back is told again
		}
		return false, nil
	}
	if len(list) <= perStep {
		q.cursor = 0 // all of them are looked at, in their order
	}
	var errs []error
	for range min(len(list), perStep) {
		c := list[q.cursor%len(list)]
		q.cursor++
		delete(q.waiting, c.key)
		begun, err := q.consider(ctx, c, under)
		if begun || ctx.Err() != nil {
			return begun, errors.Join(append(errs, err)...)
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}

// about tells something of a workload or a pod, once for each basis. It reports
// whether it was new.
func (q *restarter) about(o *corev1.ObjectReference, kind, reason, basis, note string) bool {
	key := o.Kind + "/" + o.Namespace + "/" + o.Name + "/" + reason
	if q.said[key] == basis {
		return false
	}
	q.said[key] = basis
	q.say(o, kind, reason, note)
	return true
}

// refuse tells that a workload cannot be restarted.
func (q *restarter) refuse(o *corev1.ObjectReference, why string) {
	if q.about(o, corev1.EventTypeWarning, EventRestartRefused, why, "asks to be restarted when stale, and is not: "+why) {
		q.metrics.restarts.WithLabelValues(restartRefused).Inc()
	}
}

// settled reports whether a template has been the current one in a namespace for
// long enough.
func (q *restarter) settled(namespace, template string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	since := q.seen[sight{namespace, template}]
	return !since.IsZero() && q.Clock.Since(since) >= q.Settle
}

// isServed reports whether the webhook has served the current template for long
// enough; what is in the way is in unserved.
func (q *restarter) isServed(ctx context.Context) bool {
	if err := q.Served(ctx); err != nil {
		q.servedSince, q.unserved = time.Time{}, err.Error()
		return false
	}
	q.unserved = ""
	if q.servedSince.IsZero() {
		q.servedSince = q.Clock.Now()
	}
	return q.Clock.Since(q.servedSince) >= q.Settle
}

// begin writes the record, then restarts the workload. Where that is refused, the
// record is again what it was before: nil, or the restart that was under way.
func (q *restarter) begin(ctx context.Context, w *workload, template string, before *record) (begun bool, err error) {
	now := q.Clock.Now()
	r := &record{kind: w.kind, namespace: w.GetNamespace(), name: w.GetName(), uid: w.GetUID(), template: template, at: now}
	if err := q.book.write(ctx, r); err != nil {
		return false, err
	}
	err = restart(ctx, q.Kube, w, template, now)
	switch {
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		q.refuse(w.reference(), err.Error())
		return false, q.book.write(ctx, before)
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return false, q.book.write(ctx, before) // it is not what it was; another look will tell
	case err != nil:
		// It may have been restarted all the same. The record stays: whoever finds that
		// it was not lets go of it.
		return false, err
	}
	q.metrics.restarts.WithLabelValues(restartStarted).Inc()
	q.about(w.reference(), corev1.EventTypeNormal, EventRestarted, template+now.String(),
		fmt.Sprintf("its pods are stale: restarted for template %s; until it is rolled out nothing else is restarted", template))
	return true, nil
}

func podReference(s stale) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: s.pod.Namespace, Name: s.pod.Name, UID: s.uid}
}

func ownerReference(namespace string, o *metav1.OwnerReference) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: namespace, Name: o.Name, UID: o.UID}
}
