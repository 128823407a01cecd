// Package controller keeps what injected edges need beside their pod: the
// Secret with their certificate, Emissary's TLSContext, and the publisher's
// rights. It says what it did in Events and metrics, and takes back what is its
// own when a namespace opts out.
package controller

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Name is what the controller calls itself: in Events, in its Lease, and as
// the field manager of nothing but what is named in publish.
const Name = "isthmus-controller"

// Source delivers a certificate for a Secret. It may take as long as ctx lets
// it, and returns certs.ErrPending when there is nothing yet.
type Source interface {
	Bundle(ctx context.Context, r certs.Request) (*certs.Bundle, error)
}

// Remover is a Source that leaves something in the cluster which has to go with
// the Secret.
type Remover interface {
	Remove(ctx context.Context, namespace, secret string) error
}

// Roots are the trust anchors of the mesh.
type Roots interface {
	Roots() ([]*x509.Certificate, error)
	// OnChange calls f whenever Roots changes.
	OnChange(f func())
}

// Secrets are the cluster's Secrets, each by its name.
type Secrets interface {
	publish.Secrets
	// Delete removes a Secret that is still the one that was read.
	Delete(ctx context.Context, namespace, name string, uid types.UID, resourceVersion string) error
}

// Options are what a controller is made of. Every field without a default is
// required.
type Options struct {
	// Settings of the operator; the webhook has the same.
	Settings inject.Settings
	// Engine says of a pod whether it misses the injection or carries an old one.
	Engine *inject.Engine
	// Mesh returns the settings of a revision of Istio.
	Mesh func(revision string) (patches.Mesh, error)
	// Roots are the mesh's trust anchors.
	Roots Roots
	// Secrets reads, applies and deletes Secrets by name.
	Secrets Secrets
	// Sources by the value of isthmus.dev/source. Agent is not among them: its
	// Secret is written from inside the pod.
	Sources map[policy.Source]Source
	// Dynamic reads, applies and deletes TLSContexts and RoleBindings by name.
	Dynamic dynamic.Interface
	// Ready is nil once mesh settings and roots have been asked for, be it in
	// vain; nothing is done before.
	Ready func() error
	// Registerer gets the metrics.
	Registerer prometheus.Registerer
	// SurveyEvery is how often the pods of an opted-in namespace are listed, to
	// find those that miss the injection. Default 10 minutes.
	SurveyEvery time.Duration
	// LookEvery is how often a Secret is read while nothing is due, so that one
	// that was deleted or damaged heals. Default 30 seconds; more when there
	// are more than 300 Secrets, so that it costs ten requests a second at most.
	LookEvery time.Duration
	// Clock: default the real one.
	Clock clock.PassiveClock
	// Restarts restarts stale workloads that ask for it. Default: nobody does.
	Restarts *Restarts
}

// DefaultSurveyEvery and DefaultLookEvery are the periods of Options.
const (
	DefaultSurveyEvery = 10 * time.Minute
	DefaultLookEvery   = 30 * time.Second
)

// concurrency is how many namespaces are worked on at once: most of the time
// is spent waiting for the certificate authority.
const concurrency = 8

func (o Options) withDefaults() Options {
	o.Settings = o.Settings.WithDefaults()
	if o.SurveyEvery == 0 {
		o.SurveyEvery = DefaultSurveyEvery
	}
	if o.LookEvery == 0 {
		o.LookEvery = DefaultLookEvery
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	for name, missing := range map[string]bool{
		"engine": o.Engine == nil, "mesh": o.Mesh == nil, "roots": o.Roots == nil, "secrets": o.Secrets == nil,
		"dynamic client": o.Dynamic == nil, "readiness": o.Ready == nil, "registerer": o.Registerer == nil,
	} {
		if missing {
			errs = append(errs, fmt.Errorf("controller: no %s given", name))
		}
	}
	if o.Restarts != nil {
		errs = append(errs, o.Restarts.validate())
	}
	return errors.Join(errs...)
}

// reconciler keeps one namespace at a time true.
type reconciler struct {
	Options
	// cached reads metadata of opted-in namespaces and of injected pods.
	cached client.Reader
	// live reads pods themselves.
	live    client.Reader
	log     logr.Logger
	events  *recorder
	metrics *meters
	// restarts is nil where nothing is restarted.
	restarts *restarter

	mu     sync.Mutex
	places map[string]*place
	// secrets is how many Secrets are kept, over all places.
	secrets int
}

// Add adds the controller to a manager whose cache CacheOptions made.
func Add(mgr manager.Manager, o Options) error {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return err
	}
	metrics, err := newMeters(o.Registerer)
	if err != nil {
		return err
	}
	r := &reconciler{
		Options: o, metrics: metrics, places: map[string]*place{},
		cached: mgr.GetClient(), live: mgr.GetAPIReader(), log: mgr.GetLogger().WithName(Name), events: newRecorder(mgr.GetClient()),
	}
	if err := mgr.Add(r.events); err != nil {
		return err
	}
	if o.Restarts != nil {
		r.restarts = newRestarter(r, *o.Restarts)
		if err := mgr.Add(r.restarts); err != nil {
			return err
		}
	}
	again := make(chan event.GenericEvent)
	if err := mgr.Add(&rootFollower{reconciler: r, again: again}); err != nil {
		return err
	}
	if err := mgr.Add(&sweeper{reader: mgr.GetAPIReader(), again: again}); err != nil {
		return err
	}
	return builder.ControllerManagedBy(mgr).
		Named(Name).
		For(&corev1.Namespace{}, builder.OnlyMetadata).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(namespaceOf),
			builder.OnlyMetadata, builder.WithPredicates(predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }})).
		WatchesRawSource(source.Channel(again, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency, RateLimiter: newBackoff(func() time.Duration { return r.lookEvery() / 2 })}).
		Complete(r)
}

func namespaceOf(_ context.Context, pod client.Object) []ctrl.Request {
	return []ctrl.Request{{NamespacedName: types.NamespacedName{Name: pod.GetNamespace()}}}
}

// place returns what is known of a namespace. Only one worker has a namespace
// at a time, so what it returns needs no lock.
func (r *reconciler) place(namespace string) *place {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.places[namespace]
	if !ok {
		p = &place{namespace: namespace, claims: map[types.UID]claim{}, kept: map[string]*kept{}, applied: map[string]string{}, said: map[string]string{}}
		r.places[namespace] = p
	}
	return p
}

// forget drops what is known of a namespace.
func (r *reconciler) forget(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.places[namespace]; ok {
		r.secrets -= len(p.kept)
		delete(r.places, namespace)
	}
	r.metrics.forget(namespace)
	r.restarts.report(namespace, nil)
}

// lookEvery stretches LookEvery with the number of Secrets.
func (r *reconciler) lookEvery() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.LookEvery, time.Duration(r.secrets)*time.Second/10)
}

// metadata makes an object for metadata alone.
func metadata(kind string) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return o
}
