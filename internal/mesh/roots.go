package mesh

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/patches"
)

const (
	// keyRoots is the key of the ConfigMap that holds the roots.
	keyRoots = "root-cert.pem"
	// settingsPollInterval is the interval at which the mesh settings are polled for
	// the object that holds the roots, and for the extra roots. Polling sends no
	// request.
	settingsPollInterval = time.Second
	// retryInterval is the time between two requests that ask the API server
	// whether it serves ClusterTrustBundles.
	retryInterval = 15 * time.Second
)

// errRootsNotRead is returned until the API server has answered.
var errRootsNotRead = errors.New("the mesh's root certificates have not been read yet")

// RootsOptions configure Roots.
type RootsOptions struct {
	// Client gets and watches one ConfigMap in Namespace or one
	// ClusterTrustBundle, by name. Required.
	Client kubernetes.Interface
	// Namespace is the namespace that Istio is installed in. Default
	// istio-system.
	Namespace string
	// Mesh returns the mesh settings, which name the object that holds the roots.
	// Watcher.SharedMesh is one implementation. Roots calls it every second, so it
	// must not block. Default: the documented defaults, which name the ConfigMap
	// istio-ca-root-cert.
	Mesh func() (patches.Mesh, error)
	// Extra returns trust anchors that the mesh has beside those in the object, and
	// which of them cannot be read. Watcher.ExtraRoots is one implementation. Roots
	// calls it as often as Mesh. Default: none.
	Extra func() ([]*x509.Certificate, error)
	// Log receives a line when the roots change, become invalid or become valid
	// again. Default: no logging.
	Log logr.Logger
}

// Roots watches the trust anchors of the mesh: the key root-cert.pem of a ConfigMap
// in Istio's namespace, which istiod maintains, or the ClusterTrustBundle that the
// mesh settings name, and the extra roots. Create it with NewRoots and run it with
// Start. It is safe for concurrent use.
//
// Roots that cannot be read are left out. While there are such roots, and when the
// object disappears, the last good roots stay in use beside those that can be read.
type Roots struct {
	options RootsOptions
	updates chan struct{}
	state   atomic.Pointer[rootState]

	mu       sync.Mutex
	handlers []func()
}

// rootState holds the roots at one moment. It is immutable.
type rootState struct {
	// published are the last good roots of the object; empty if there never were any.
	published []*x509.Certificate
	// roots are published and the extra roots. Empty if published is.
	roots []*x509.Certificate
	// err says what of the roots cannot be read now; nil if all can.
	err error
}

// NewRoots returns Roots. It returns an error if the options are invalid.
func NewRoots(o RootsOptions) (*Roots, error) {
	if o.Client == nil {
		return nil, errors.New("mesh roots: no client given")
	}
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	if o.Mesh == nil {
		o.Mesh = func() (patches.Mesh, error) { return patches.Mesh{}, nil }
	}
	if o.Extra == nil {
		o.Extra = func() ([]*x509.Certificate, error) { return nil, nil }
	}
	return &Roots{options: o, updates: make(chan struct{}, 1)}, nil
}

// NeedLeaderElection returns false: every replica watches the roots, not only the
// leader.
func (r *Roots) NeedLeaderElection() bool { return false }

// HasSynced reports whether the API server has answered at least once: with roots,
// without roots, or that they may not be read.
func (r *Roots) HasSynced() bool { return r.state.Load() != nil }

// Roots returns the last good roots without duplicates and in a stable order. The
// caller must not change the slice. If there never were good roots, it returns an
// error that says why.
func (r *Roots) Roots() ([]*x509.Certificate, error) {
	return r.load(func(s *rootState) []*x509.Certificate { return s.roots })
}

// Published returns what Roots returns without the extra roots. istiod's own
// certificate is verified with these alone.
func (r *Roots) Published() ([]*x509.Certificate, error) {
	return r.load(func(s *rootState) []*x509.Certificate { return s.published })
}

func (r *Roots) load(roots func(*rootState) []*x509.Certificate) ([]*x509.Certificate, error) {
	switch s := r.state.Load(); {
	case s == nil:
		return nil, errRootsNotRead
	case len(s.published) == 0:
		return nil, s.err
	default:
		return roots(s), nil
	}
}

// Err returns which roots cannot be read at the moment, and why. It is nil when all
// can, and before HasSynced.
func (r *Roots) Err() error {
	if s := r.state.Load(); s != nil {
		return s.err
	}
	return nil
}

// OnChange registers a handler that is called when the roots change, including the
// first time that they are read. Start calls all handlers from one goroutine, one
// after the other. A handler must not block.
func (r *Roots) OnChange(handler func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handlers = append(r.handlers, handler)
}

// Start watches the roots until ctx is done and then returns nil. Call it at most
// once.
func (r *Roots) Start(ctx context.Context) error {
	ticks := time.NewTicker(settingsPollInterval)
	defer ticks.Stop()
	watcher := rootWatcher{Roots: r}
	defer watcher.stopWatch()
	for {
		watcher.ensureWatch(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
			if watcher.readExtra() {
				watcher.readRoots()
			}
		case <-r.updates:
			watcher.readRoots()
		}
	}
}

// queueUpdate makes Start read the object again. Several calls before that cause one
// read.
func (r *Roots) queueUpdate() {
	select {
	case r.updates <- struct{}{}:
	default:
	}
}

// storeState stores the roots that were read. It calls the handlers if the roots
// changed, and logs what cannot be read, unless that is the same as before.
func (r *Roots) storeState(after rootState) {
	before := r.state.Load()
	if before == nil {
		before = &rootState{}
	}
	r.state.Store(&after)
	changed := !slices.EqualFunc(before.roots, after.roots, (*x509.Certificate).Equal)
	switch {
	case after.err != nil && before.err != nil && before.err.Error() == after.err.Error():
	case after.err != nil && len(after.roots) == 0:
		r.options.Log.Error(after.err, "the mesh's roots cannot be read, and there are no earlier ones: no certificate can be verified")
	case after.err != nil:
		r.options.Log.Error(after.err, "some of the mesh's roots cannot be read: the last good ones are used")
	case before.err != nil && !changed:
		r.options.Log.Info("the mesh's roots can be read again")
	}
	if !changed {
		return
	}
	r.options.Log.Info("the mesh's roots", "roots", describeRoots(after.roots))
	r.mu.Lock()
	handlers := slices.Clone(r.handlers)
	r.mu.Unlock()
	for _, handler := range handlers {
		handler()
	}
}

func describeRoots(roots []*x509.Certificate) []string {
	var lines []string
	for _, c := range roots {
		lines = append(lines, fmt.Sprintf("%s, serial %s, until %s", c.Subject, certs.Serial(c), c.NotAfter.UTC().Format(time.RFC3339)))
	}
	return lines
}
