package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// DefaultNamespace is where Istio is installed unless someone chose otherwise.
const DefaultNamespace = "istio-system"

// errSettingsNotRead is the answer before the API server's first one.
var errSettingsNotRead = errors.New("istio's settings are not read yet")

// Options make a Watcher.
type Options struct {
	// Client lists and watches ConfigMaps and Deployments of Namespace, and
	// MutatingWebhookConfigurations. Required.
	Client kubernetes.Interface
	// Namespace is the namespace that Istio is installed in. Default
	// istio-system.
	Namespace string
	// Explicit settings win over discovered ones. Its Revision is the one that
	// is used for those who name none.
	Explicit patches.Mesh
	// WebhookConfiguration is the name of Isthmus' own MutatingWebhookConfiguration,
	// which Istio's are compared with. Default isthmus-injector.
	WebhookConfiguration string
	// Log gets a line whenever what is known of the mesh changes. Default: no
	// logging.
	Log logr.Logger
	// Registerer gets the metric isthmus_mesh_settings_errors. Default: no
	// metric.
	Registerer prometheus.Registerer
}

// Watcher follows the settings of the Istio revisions of a cluster, the tags that
// point to them, and who injects for them. Make it with NewWatcher and run it with Start; it is safe for concurrent use.
//
// A revision whose objects turn bad keeps the settings it had. While no Istio is
// there, or while reading it is forbidden, the explicit settings and the
// documented defaults are used; both are noticed when they change.
type Watcher struct {
	log     logr.Logger
	watches []*objectWatch
	updates chan struct{}
	state   atomic.Pointer[meshState]
	initial *meshState
	// ownConfiguration is the name of Isthmus' configuration.
	ownConfiguration string
	errorsGauge      prometheus.Gauge
	// loggedAccessErrors are what was last logged for each selection.
	loggedAccessErrors map[*objectWatch]string
}

// NewWatcher returns a Watcher. It says what is wrong with the options.
func NewWatcher(o Options) (*Watcher, error) {
	if o.Client == nil {
		return nil, errors.New("mesh watcher: no client given")
	}
	if err := o.Explicit.Validate(); err != nil {
		return nil, fmt.Errorf("mesh settings: %w", err)
	}
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	if o.WebhookConfiguration == "" {
		o.WebhookConfiguration = DefaultWebhookConfiguration
	}
	w := &Watcher{
		log:                o.Log.WithValues("namespace", o.Namespace),
		updates:            make(chan struct{}, 1),
		initial:            &meshState{namespace: o.Namespace, explicit: o.Explicit},
		ownConfiguration:   o.WebhookConfiguration,
		loggedAccessErrors: make(map[*objectWatch]string),
		errorsGauge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_mesh_settings_errors",
			Help: "Istio revisions whose settings cannot be read at the moment. Their last good settings are used.",
		}),
	}
	var err error
	if w.watches, err = newObjectWatches(o.Client, o.Namespace, w.queueUpdate); err != nil {
		return nil, err
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(w.errorsGauge); err != nil {
			return nil, fmt.Errorf("metric isthmus_mesh_settings_errors: %w", err)
		}
	}
	return w, nil
}

// NeedLeaderElection tells controller-runtime that every replica follows the
// mesh.
func (w *Watcher) NeedLeaderElection() bool { return false }

// Start follows the mesh until ctx is done, which is no error. It may be called
// once.
func (w *Watcher) Start(ctx context.Context) error {
	var informers sync.WaitGroup
	defer informers.Wait()
	for _, watch := range w.watches {
		informers.Go(func() { watch.informer.RunWithContext(ctx) })
		informers.Go(func() {
			select {
			case <-watch.informer.HasSyncedChecker().Done():
				w.queueUpdate() // a list without items makes no event
			case <-ctx.Done():
			}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.updates:
			w.updateState()
		}
	}
}

// HasSynced says whether the API server has answered for the first time, be it
// with Istio's objects, with none, or that reading them is forbidden.
func (w *Watcher) HasSynced() bool { return w.state.Load() != nil }

// Ready is nil once HasSynced. Bad or missing settings do not make it fail: they
// show in Err, in the log and in the metric, and in the answer for a pod that
// needs them.
func (w *Watcher) Ready() error {
	if w.HasSynced() {
		return nil
	}
	var errs []error
	for _, watch := range w.watches {
		if err := watch.listError(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return errSettingsNotRead
	}
	return fmt.Errorf("%w: %w", errSettingsNotRead, errors.Join(errs...))
}

// Err says what is wrong with Istio's objects at the moment, naming each; nil
// when nothing is.
func (w *Watcher) Err() error {
	s := w.state.Load()
	if s == nil {
		return nil
	}
	return s.err()
}

// Mesh returns the settings for a revision, or for the one that a tag points to.
// An empty one means that of the explicit settings, else what the tag default
// points to, else the default revision, else the only one. What is not installed
// is an error that names what is; so is a revision whose objects never made
// sense.
func (w *Watcher) Mesh(revision string) (patches.Mesh, error) {
	s := w.state.Load()
	if s == nil {
		return patches.Mesh{}, errSettingsNotRead
	}
	settings, _, err := s.resolveSettings(revision)
	return settings.Mesh, err
}

// SharedMesh returns the settings for what all revisions have in common, such as
// where the mesh's roots are: what Mesh returns for an empty revision, and where
// it is not clear which one that is, the first one's that can be read.
func (w *Watcher) SharedMesh() (patches.Mesh, error) {
	mesh, err := w.Mesh("")
	s := w.state.Load()
	if err == nil || s == nil {
		return mesh, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.revisions)) {
		if r := s.revisions[name]; r.discovered != nil {
			return r.effective.Mesh, nil
		}
	}
	return mesh, err
}

// Settings returns what Mesh returns, with the source of each field. The caller
// must not change the maps and slices in it.
func (w *Watcher) Settings(revision string) (Settings, error) {
	s := w.state.Load()
	if s == nil {
		return Settings{}, errSettingsNotRead
	}
	return s.settings(revision)
}

// Injector returns who injects the pods of a revision or tag of Istio. Empty and
// "default" are the pods of namespaces with istio-injection=enabled, and those
// that ask for a sidecar and name no revision. Where nobody injects them, that is
// an error that names what is served. Nothing is known, which is no error, while
// reading the configurations is forbidden.
func (w *Watcher) Injector(revision string) (inject.Injector, error) {
	s := w.state.Load()
	if s == nil {
		return inject.Injector{}, errSettingsNotRead
	}
	return s.injectors.injectorFor(revision)
}

// queueUpdate makes Start look at the objects again, soon and once.
func (w *Watcher) queueUpdate() {
	select {
	case w.updates <- struct{}{}:
	default:
	}
}

// updateState reads the objects as they are now and makes the next state of them.
func (w *Watcher) updateState() {
	for _, watch := range w.watches {
		if !watch.isAnswered() {
			return
		}
	}
	before := w.state.Load()
	if before == nil {
		before = w.initial
	}
	objects := cachedObjects(w.watches)
	after := before.next(controlPlanes(w.initial.namespace, objects.configMaps, objects.deployments),
		readInjectors(w.initial.namespace, w.ownConfiguration, objects.configurations))
	for _, watch := range w.watches {
		switch err := watch.accessError(); {
		case err == nil:
		case watch.holdsInjectors:
			after.injectors.unreadableReason = err.Error()
		case watch.showsIstio && after.absentReason == "":
			after.absentReason = err.Error()
		}
	}
	failing := 0
	for _, r := range after.revisions {
		if r.err != nil {
			failing++
		}
	}
	w.errorsGauge.Set(float64(failing))
	w.logChanges(w.state.Load(), after)
	w.state.Store(after)
}
