package mesh

import (
	"bytes"
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
	// keyRoots is the key of the ConfigMap with the roots.
	keyRoots = "root-cert.pem"
	// settingsPollInterval is how often the mesh's settings are looked at for where
	// the roots are. It costs no request.
	settingsPollInterval = time.Second
	// retryInterval is how long to wait before the API server is asked again
	// whether it has ClusterTrustBundles.
	retryInterval = 15 * time.Second
)

// errRootsNotRead is the answer before the API server's first one.
var errRootsNotRead = errors.New("the mesh's root certificates are not read yet")

// RootsOptions make Roots.
type RootsOptions struct {
	// Client gets and watches one ConfigMap of Namespace or one
	// ClusterTrustBundle, by its name. Required.
	Client kubernetes.Interface
	// Namespace is the namespace that Istio is installed in. Default
	// istio-system.
	Namespace string
	// Mesh says where the roots are: Watcher.Mesh for one. It is asked every
	// second and must not block. Default: the documented defaults, which is the
	// ConfigMap istio-ca-root-cert.
	Mesh func() (patches.Mesh, error)
	// Log gets a line whenever the roots change or turn bad. Default: no
	// logging.
	Log logr.Logger
}

// Roots follows the trust anchors of the mesh: root-cert.pem of a ConfigMap in
// Istio's namespace, which istiod keeps, or the ClusterTrustBundle that the
// settings name. Make it with NewRoots and run it with Start; it is safe for
// concurrent use.
//
// Roots that turn bad or disappear leave the last good ones in use.
type Roots struct {
	options RootsOptions
	updates chan struct{}
	state   atomic.Pointer[rootState]

	mu       sync.Mutex
	handlers []func()
}

// rootState is what is known at one moment. It is never changed once made.
type rootState struct {
	// roots are the last good ones, none where there never were any.
	roots []*x509.Certificate
	// err is what is wrong now.
	err error
}

// NewRoots returns Roots. It says what is wrong with the options.
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
	return &Roots{options: o, updates: make(chan struct{}, 1)}, nil
}

// NeedLeaderElection tells controller-runtime that every replica follows the
// roots.
func (r *Roots) NeedLeaderElection() bool { return false }

// HasSynced says whether the API server has answered for the first time, be it
// with roots, with none, or that reading them is forbidden.
func (r *Roots) HasSynced() bool { return r.state.Load() != nil }

// Roots returns the last good roots, each once, in a stable order; the caller
// must not change the slice. The error says why there never were any.
func (r *Roots) Roots() ([]*x509.Certificate, error) {
	switch s := r.state.Load(); {
	case s == nil:
		return nil, errRootsNotRead
	case len(s.roots) == 0:
		return nil, s.err
	default:
		return s.roots, nil
	}
}

// Err says what is wrong with the roots at the moment; nil when nothing is, and
// before HasSynced.
func (r *Roots) Err() error {
	if s := r.state.Load(); s != nil {
		return s.err
	}
	return nil
}

// OnChange has a function called whenever Roots returns something else than
// before, also the first time. It is called by Start's goroutine, one call after
// the other, and must not block.
func (r *Roots) OnChange(handler func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handlers = append(r.handlers, handler)
}

// Start follows the roots until ctx is done, which is no error. It may be called
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
		case <-r.updates:
			watcher.readRoots()
		}
	}
}

// queueUpdate makes Start look at the object again, soon and once.
func (r *Roots) queueUpdate() {
	select {
	case r.updates <- struct{}{}:
	default:
	}
}

// storeRoots takes new roots.
func (r *Roots) storeRoots(roots []*x509.Certificate) {
	before := r.state.Load()
	r.state.Store(&rootState{roots: roots})
	if before != nil && slices.EqualFunc(before.roots, roots, (*x509.Certificate).Equal) {
		if before.err != nil {
			r.options.Log.Info("the mesh's roots are good again")
		}
		return
	}
	r.options.Log.Info("the mesh's roots", "roots", describeRoots(roots))
	r.mu.Lock()
	handlers := slices.Clone(r.handlers)
	r.mu.Unlock()
	for _, handler := range handlers {
		handler()
	}
}

// storeError keeps the roots there were and says once what is wrong.
func (r *Roots) storeError(err error) {
	after := &rootState{err: err}
	before := r.state.Load()
	if before != nil {
		after.roots = before.roots
	}
	r.state.Store(after)
	switch {
	case before != nil && before.err != nil && before.err.Error() == err.Error():
	case len(after.roots) == 0:
		r.options.Log.Error(err, "the mesh's roots cannot be read and there are no earlier ones: no certificate can be checked")
	default:
		r.options.Log.Error(err, "the mesh's roots cannot be read, the last good ones are used")
	}
}

// parseRoots reads PEM, drops what is there twice and sorts, so that the same
// roots in another order are no change.
func parseRoots(text string) ([]*x509.Certificate, error) {
	roots, err := certs.ParseCertificates([]byte(text))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(roots, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	return slices.CompactFunc(roots, (*x509.Certificate).Equal), nil
}

func describeRoots(roots []*x509.Certificate) []string {
	var lines []string
	for _, c := range roots {
		lines = append(lines, fmt.Sprintf("%s, serial %s, until %s", c.Subject, certs.Serial(c), c.NotAfter.UTC().Format(time.RFC3339)))
	}
	return lines
}
