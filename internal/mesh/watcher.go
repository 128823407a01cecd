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

// errNotRead is the answer before the API server's first one.
var errNotRead = errors.New("istio's settings are not read yet")

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
	// Configuration is the name of Isthmus' own MutatingWebhookConfiguration,
	// which Istio's are compared with. Default isthmus-injector.
	Configuration string
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
	log        logr.Logger
	selections []*selection
	changed    chan struct{}
	state      atomic.Pointer[state]
	empty      *state
	// own is the name of Isthmus' configuration.
	own string
	bad prometheus.Gauge
	// refusals are what was last logged for each selection.
	refusals map[*selection]string
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
	if o.Configuration == "" {
		o.Configuration = DefaultConfiguration
	}
	w := &Watcher{
		log:      o.Log.WithValues("namespace", o.Namespace),
		changed:  make(chan struct{}, 1),
		empty:    &state{namespace: o.Namespace, explicit: o.Explicit},
		own:      o.Configuration,
		refusals: make(map[*selection]string),
		bad: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_mesh_settings_errors",
			Help: "Istio revisions whose settings cannot be read at the moment. Their last good settings are used.",
		}),
	}
	var err error
	if w.selections, err = selections(o.Client, o.Namespace, w.wake); err != nil {
		return nil, err
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(w.bad); err != nil {
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
	var running sync.WaitGroup
	defer running.Wait()
	for _, s := range w.selections {
		running.Go(func() { s.informer.RunWithContext(ctx) })
		running.Go(func() {
			select {
			case <-s.informer.HasSyncedChecker().Done():
				w.wake() // a list without items makes no event
			case <-ctx.Done():
			}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.changed:
			w.update()
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
	for _, s := range w.selections {
		if err := s.failure(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return errNotRead
	}
	return fmt.Errorf("%w: %w", errNotRead, errors.Join(errs...))
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
		return patches.Mesh{}, errNotRead
	}
	found, _, err := s.find(revision)
	return found.Mesh, err
}

// Shared returns the settings for what all revisions have in common, such as
// where the mesh's roots are: what Mesh returns for an empty revision, and where
// it is not clear which one that is, the first one's that can be read.
func (w *Watcher) Shared() (patches.Mesh, error) {
	found, err := w.Mesh("")
	s := w.state.Load()
	if err == nil || s == nil {
		return found, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.revisions)) {
		if r := s.revisions[name]; r.found != nil {
			return r.used.Mesh, nil
		}
	}
	return found, err
}

// Settings returns what Mesh returns, with the source of each field. The caller
// must not change the maps and slices in it.
func (w *Watcher) Settings(revision string) (Settings, error) {
	s := w.state.Load()
	if s == nil {
		return Settings{}, errNotRead
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
		return inject.Injector{}, errNotRead
	}
	return s.injectors.injector(revision)
}

// wake makes Start look at the objects again, soon and once.
func (w *Watcher) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// update reads the objects as they are now and makes the next state of them.
func (w *Watcher) update() {
	for _, s := range w.selections {
		if !s.answered() {
			return
		}
	}
	before := w.state.Load()
	if before == nil {
		before = w.empty
	}
	found := held(w.selections)
	after := before.next(controlPlanes(w.empty.namespace, found.configMaps, found.deployments),
		readInjectors(w.empty.namespace, w.own, found.configurations))
	for _, s := range w.selections {
		switch err := s.refusal(); {
		case err == nil:
		case s.injects:
			after.injectors.unknown = err.Error()
		case s.decides && after.reason == "":
			after.reason = err.Error()
		}
	}
	bad := 0
	for _, r := range after.revisions {
		if r.err != nil {
			bad++
		}
	}
	w.bad.Set(float64(bad))
	w.report(w.state.Load(), after)
	w.state.Store(after)
}
