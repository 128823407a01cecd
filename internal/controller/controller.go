// Package controller reconciles the objects that injected edges need besides their
// pod: the Secret with their certificate, Emissary's TLSContext, and the publisher's
// RoleBinding. It reports in Events and metrics, and removes the objects that it
// manages when a namespace opts out.
//
// It observes, decides with pure functions (decide*.go), and acts.
package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Name is the name of the controller in Events, logs and its Lease. Its field
// manager is publish.FieldManager.
const Name = policy.ControllerName

// concurrency is how many namespaces are reconciled concurrently: most of the time is
// spent waiting for the API server and the certificate authority. It is a multiple of
// the requests that one authority gets at a time, so that an authority that does not
// answer leaves workers for the others.
const concurrency = 12

// reconciler reconciles one namespace at a time.
type reconciler struct {
	Options
	rules rules
	// readNamespace reads an opted-in namespace from the cache, and readNamespaceLive
	// any namespace from the API server.
	readNamespace, readNamespaceLive NamespaceReader
	// cached reads metadata of opted-in namespaces and of injected pods.
	cached client.Reader
	// live reads pods from the API server.
	live    client.Reader
	metrics *controllerMetrics
	// contexts knows the TLSContexts of the cluster.
	contexts *contextIndex
	// versions knows which changes of Secrets are somebody else's.
	versions *secretVersions

	mu         sync.Mutex
	namespaces map[string]*namespaceState
	// secrets is the number of Secrets that are checked, in all namespaces.
	secrets int
	// waiting are the namespaces whose last request to a source failed; true for those
	// whose source is available again since.
	waiting map[string]bool
}

// Add adds the controller to a manager whose cache CacheOptions configured.
func Add(mgr manager.Manager, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	o = o.withDefaults()
	metrics, err := newMetrics(o.Registerer)
	if err != nil {
		return err
	}
	versions := newSecretVersions(o.Clock.Now, metrics.observeRepair)
	o.Secrets = trackedSecrets{Secrets: o.Secrets, versions: versions}
	secretMetadata, err := metadata.NewForConfigAndClient(metadata.ConfigFor(mgr.GetConfig()), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("create client of metadata: %w", err)
	}
	r := &reconciler{
		Options: o, rules: rulesOf(o), metrics: metrics, versions: versions,
		namespaces: map[string]*namespaceState{}, waiting: map[string]bool{},
		readNamespace: NewNamespaceReader(mgr.GetClient(), o.Settings), readNamespaceLive: NewNamespaceReader(mgr.GetAPIReader(), o.Settings),
		cached: mgr.GetClient(), live: mgr.GetAPIReader(),
	}
	requeue := make(chan event.GenericEvent)
	r.contexts = newContextIndex(o.Dynamic, contextNames(o.Settings.TLSContextNames), requeue)
	if err := mgr.Add(r.contexts); err != nil {
		return err
	}
	if err := mgr.Add(&follower{onChange: o.Roots.OnChange, namespaces: r.knownNamespaces, requeue: requeue}); err != nil {
		return err
	}
	for _, source := range o.Sources {
		reconnecting, ok := source.(Reconnecting)
		if !ok {
			continue
		}
		if err := mgr.Add(&follower{onChange: reconnecting.OnAvailable, namespaces: r.wakeNamespaces, pause: availablePause, requeue: requeue}); err != nil {
			return err
		}
	}
	if err := mgr.Add(&orphanCollector{reader: mgr.GetAPIReader(), requeue: requeue}); err != nil {
		return err
	}
	limiter := newBackoff(func() time.Duration { return r.checkInterval() / 2 }, r.lifeLeft, o.Random)
	if limits := o.Settings.ControllerNamespaces; len(limits) > 0 {
		mgr.GetLogger().WithName(Name).Info("limited to some namespaces: in others no Secret is kept, and nothing is removed", "namespaces", limits)
	}
	return builder.ControllerManagedBy(mgr).
		Named(Name).
		For(&corev1.Namespace{}, builder.OnlyMetadata).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(namespaceOf),
			builder.OnlyMetadata, builder.WithPredicates(predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }})).
		WatchesRawSource(source.Channel(requeue, &handler.EnqueueRequestForObject{})).
		WatchesRawSource(&secretWatches{
			client: secretMetadata, namespaces: o.Settings.ControllerNamespaces, names: writtenSecrets(o.Settings.SecretNames), versions: versions,
		}).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency, RateLimiter: limiter}).
		Complete(r)
}

// writtenSecrets are the names of all Secrets that the controller writes.
func writtenSecrets(allowed []string) []string {
	return withCompanions(allowed, policy.RootsSuffix)
}

func namespaceOf(_ context.Context, pod client.Object) []ctrl.Request {
	return []ctrl.Request{{NamespacedName: types.NamespacedName{Name: pod.GetNamespace()}}}
}

func rulesOf(o Options) rules {
	sources := make(map[policy.Source]bool, len(o.Sources))
	for name := range o.Sources {
		sources[name] = true
	}
	return rules{
		sources: sources, mirrorSecrets: o.Settings.MirrorSecretNames, defaults: o.Settings.Defaults, names: o.Settings.Names(), labels: o.Settings.SecretLabels,
		restarts: o.ReportStale != nil,
	}
}

func (r *reconciler) reportStale(namespace string, pods []StalePod) {
	if r.ReportStale != nil {
		r.ReportStale(namespace, pods)
	}
}

// metadataOf returns an empty object of a kind of the core API, to read the metadata
// only.
func metadataOf(kind string) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return o
}
