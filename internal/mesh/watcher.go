package mesh

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// DefaultNamespace is the namespace that Istio is installed in by default.
const DefaultNamespace = "istio-system"

// errSettingsNotRead is returned until the API server has answered.
var errSettingsNotRead = errors.New("istio's settings have not been read yet")

// Options configure a Watcher.
type Options struct {
	// Client lists and watches ConfigMaps and Deployments of Namespace, and
	// MutatingWebhookConfigurations. Required.
	Client kubernetes.Interface
	// Namespace is the namespace that Istio is installed in. Default
	// istio-system.
	Namespace string
	// Explicit settings override discovered ones. Explicit.Revision applies to
	// requests that name no revision.
	Explicit patches.Mesh
	// WebhookConfiguration is the name of Isthmus' own
	// MutatingWebhookConfiguration. The order of the names decides which of Istio's
	// injectors run before Isthmus. Default isthmus-injector.
	WebhookConfiguration string
	// Log receives a line when the settings, tags or injectors change. Default: no
	// logging.
	Log logr.Logger
	// Registerer registers the metric isthmus_mesh_settings_errors. Default: no
	// metric.
	Registerer prometheus.Registerer
}

// Watcher watches the settings of the Istio revisions in a cluster, the tags that
// point to them, and the injectors that serve them. Create it with NewWatcher and run
// it with Start. It is safe for concurrent use.
//
// A revision whose objects become invalid keeps its last good settings. While no
// Istio is installed, or while its objects may not be read, the explicit settings
// and the documented defaults apply. The Watcher notices when that changes.
type Watcher struct {
	log     logr.Logger
	watches []*objectWatch
	updates chan struct{}
	state   atomic.Pointer[meshState]
	initial *meshState
	// ownConfiguration is the name of Isthmus' MutatingWebhookConfiguration.
	ownConfiguration string
	errorsGauge      prometheus.Gauge
	// accessErrors are the last logged access errors, by the description of the watch.
	accessErrors events.Latest
}

// NewWatcher returns a Watcher. It returns an error if the options are invalid.
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
		log:              o.Log.WithValues("namespace", o.Namespace),
		updates:          make(chan struct{}, 1),
		initial:          &meshState{namespace: o.Namespace, explicit: o.Explicit},
		ownConfiguration: o.WebhookConfiguration,
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

// NeedLeaderElection returns false: every replica watches the mesh, not only the
// leader.
func (w *Watcher) NeedLeaderElection() bool { return false }

// Start watches the mesh until ctx is done and then returns nil. Call it at most
// once.
func (w *Watcher) Start(ctx context.Context) error {
	var informers sync.WaitGroup
	defer informers.Wait()
	for _, watch := range w.watches {
		informers.Go(func() { watch.informer.RunWithContext(ctx) })
		informers.Go(func() {
			select {
			case <-watch.informer.HasSyncedChecker().Done():
				w.queueUpdate() // an empty list causes no event
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

// HasSynced reports whether the API server has answered at least once: with Istio's
// objects, without any, or that they may not be read.
func (w *Watcher) HasSynced() bool { return w.state.Load() != nil }

// Ready returns nil once HasSynced is true. Invalid or missing settings do not make
// it fail: they show in Err, in the log, in the metric, and in the response for a
// pod that needs them.
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

// Err returns the errors of all objects of Istio that are invalid at the moment, nil
// if there are none. Each error names its object.
func (w *Watcher) Err() error {
	s := w.state.Load()
	if s == nil {
		return nil
	}
	return s.err()
}

// Mesh returns the settings of a revision, or of the revision that a tag points to.
// An empty revision means the revision of the explicit settings, else the one that
// the tag default points to, else the default revision, else the only one.
//
// It returns an error that names the installed revisions if the revision is not
// installed, and an error if the revision's objects never were valid.
func (w *Watcher) Mesh(revision string) (patches.Mesh, error) {
	s := w.state.Load()
	if s == nil {
		return patches.Mesh{}, errSettingsNotRead
	}
	settings, _, err := s.resolveSettings(revision)
	return settings.Mesh, err
}

// SharedMesh returns settings for what all revisions have in common, such as the
// object that holds the mesh's roots. It returns the settings that Mesh returns for
// an empty revision. If those are ambiguous or invalid, it returns the settings of
// the first revision, by name, that has valid ones.
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

// ExtraRoots returns the trust anchors in MeshConfig.caCertificates of all revisions:
// istiods of several revisions serve one mesh. The error names what cannot be read of
// them; the others are returned with it.
func (w *Watcher) ExtraRoots() ([]*x509.Certificate, error) {
	s := w.state.Load()
	if s == nil {
		return nil, errSettingsNotRead
	}
	return s.extraRoots, s.extraRootsErr
}

// Settings returns the settings that Mesh returns, with the source of each field.
// The caller must not change the maps and slices in it.
func (w *Watcher) Settings(revision string) (Settings, error) {
	s := w.state.Load()
	if s == nil {
		return Settings{}, errSettingsNotRead
	}
	return s.settings(revision)
}

// Injector returns the injector of Istio that serves the pods of a revision or tag.
// An empty revision and "default" mean the pods of namespaces with
// istio-injection=enabled, and the pods that request a sidecar and name no revision.
//
// If no injector serves the pods, it returns an error that names the revisions and
// tags that are served. While the configurations may not be read, it returns an
// empty Injector and no error.
func (w *Watcher) Injector(revision string) (inject.Injector, error) {
	s := w.state.Load()
	if s == nil {
		return inject.Injector{}, errSettingsNotRead
	}
	return s.injectors.injectorFor(revision)
}

// queueUpdate makes Start read the objects again. Several calls before that cause one
// read.
func (w *Watcher) queueUpdate() {
	select {
	case w.updates <- struct{}{}:
	default:
	}
}

// updateState computes the next state from the cached objects.
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
