package controller

import (
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// readyRetry is how long a namespace waits for the mesh's settings at start.
const readyRetry = 500 * time.Millisecond

// namespaceObservation is what is known of a namespace before a decision.
type namespaceObservation struct {
	// isLeftOut is true for a namespace in which the controller may not work.
	isLeftOut bool
	// isReady is true once Options.Ready has returned nil.
	isReady bool
	// isOptedIn is true for a labelled namespace that is neither excluded nor being
	// deleted.
	isOptedIn bool
	// injectedPods is the number of injected pods in the cache; nil until it was
	// observed.
	injectedPods *int
	// live is what the API server says; nil until it was asked.
	live *liveNamespace
}

// liveNamespace is what the API server says of a namespace that is not opted in as far
// as the cache knows.
type liveNamespace struct {
	isOptedIn       bool
	hasInjectedPods bool
}

// namespaceAction is what to do about a namespace.
type namespaceAction string

const (
	// actionLeaveOut: do nothing, and say so if the namespace is opted in.
	actionLeaveOut namespaceAction = "leave-out"
	// actionAwaitMesh: come back after readyRetry.
	actionAwaitMesh namespaceAction = "await-mesh"
	// actionReconcile: reconcile the objects that the edges of the namespace need.
	actionReconcile namespaceAction = "reconcile"
	// actionCountPods: the decision needs the number of injected pods.
	actionCountPods namespaceAction = "count-pods"
	// actionAwaitLastPod: the namespace is not opted in, and edge pods still depend on
	// what Isthmus manages there. The end of a pod triggers the next reconciliation.
	actionAwaitLastPod namespaceAction = "await-last-pod"
	// actionAskAPIServer: nothing is left as far as the cache knows. It may be behind,
	// and a removal cannot be undone, so the decision needs the API server's word.
	actionAskAPIServer namespaceAction = "ask-api-server"
	// actionAwaitCache: the namespace is opted in, or holds an edge pod, and the cache
	// does not know it yet. When it does, that triggers the next reconciliation.
	actionAwaitCache namespaceAction = "await-cache"
	// actionCleanUp: remove the objects that Isthmus manages in the namespace.
	actionCleanUp namespaceAction = "clean-up"
)

// decideNamespace decides what to do about a namespace.
func decideNamespace(o namespaceObservation) namespaceAction {
	switch {
	case o.isLeftOut:
		return actionLeaveOut
	case !o.isReady:
		return actionAwaitMesh
	case o.isOptedIn:
		return actionReconcile
	case o.injectedPods == nil:
		return actionCountPods
	case *o.injectedPods > 0:
		return actionAwaitLastPod
	case o.live == nil:
		return actionAskAPIServer
	case o.live.isOptedIn || o.live.hasInjectedPods:
		return actionAwaitCache
	default:
		return actionCleanUp
	}
}

// scanBasisOf describes the labels and annotations of a namespace by which its pods
// are classified.
func scanBasisOf(ns policy.Namespace) string { return fmt.Sprint(ns.Labels, ns.Annotations) }

// needsScan reports whether the pods of a namespace are to be listed and classified
// again: when that is due, or when the pods were classified by other labels and
// annotations.
func needsScan(before, basis string, scanned time.Time, interval time.Duration, now time.Time) bool {
	return before != basis || isScanDue(scanned, interval, now)
}

// isScanDue reports whether the pods of a namespace are to be listed again. The
// tolerance of a tenth goes with the jitter of nextReconciliation.
func isScanDue(scanned time.Time, interval time.Duration, now time.Time) bool {
	return now.Sub(scanned) >= interval*9/10
}

// scanTime is the time that a scan counts from. The first counts from an earlier
// one: thousands of namespaces that were first scanned within a minute must not be
// scanned at the same time again.
func scanTime(isFirst bool, interval time.Duration, now time.Time, random func() float64) time.Time {
	if isFirst {
		return now.Add(-jitter(interval/2, 1, random))
	}
	return now
}

// nextReconciliation is the time until the next scan of a namespace, or until the
// first of its Secrets is checked. A zero time in checks counts for nothing.
func nextReconciliation(scanned time.Time, interval time.Duration, checks []time.Time, now time.Time, random func() float64) time.Duration {
	next := scanned.Add(jitter(interval, 0.1, random))
	for _, check := range checks {
		if !check.IsZero() && check.Before(next) {
			next = check
		}
	}
	return max(next.Sub(now), time.Millisecond)
}

// namespaceDesire is what the annotations of a namespace request, apart from its
// pods.
type namespaceDesire struct {
	options policy.Options
	// isValid is false when the annotations are invalid. Then the TLSContext is left as
	// it is.
	isValid bool
	// claims holds the claim of the service account that an annotation names, if it
	// names one. Its Secret is maintained even while no pod of it exists.
	claims []claim
}

// desireOf reads the annotations of a namespace.
func desireOf(ns policy.Namespace, r rules) namespaceDesire {
	options, problem := policy.Resolve(nil, nil, ns, r.defaults, r.names)
	d := namespaceDesire{options: options, isValid: problem == nil}
	if d.isValid && options.ServiceAccount != "" {
		d.claims = []claim{{mode: options.Mode, serviceAccount: options.ServiceAccount, options: options}}
	}
	return d
}
