package mesh

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// rootWatcher watches the object that holds the roots. It moves to another object
// when the mesh settings name another.
type rootWatcher struct {
	*Roots
	object       rootObject
	watch        *objectWatch
	stopInformer func()
	retryAfter   time.Time
	// extra are the last good extra roots, and extraErr says what of them could not be
	// read when they were read last.
	extra    []*x509.Certificate
	extraErr error
}

// ensureWatch watches the object that the mesh settings name. It does nothing if
// that object is watched already.
func (w *rootWatcher) ensureWatch(ctx context.Context) {
	mesh, err := w.options.Mesh()
	if err != nil {
		// Settings that have not been read yet are not an error.
		if w.watch == nil && !errors.Is(err, errSettingsNotRead) {
			w.storeError(fmt.Errorf("cannot find the mesh's roots: %w", err))
		}
		return
	}
	mesh = mesh.WithDefaults()
	object := rootObject{namespace: w.options.Namespace, configMap: mesh.RootConfigMap}
	if mesh.RootClusterTrustBundle != "" {
		object = rootObject{bundle: mesh.RootClusterTrustBundle}
	}
	if object == w.object && (w.watch != nil || time.Now().Before(w.retryAfter)) {
		return
	}
	w.stopWatch()
	w.object = object
	watch, err := object.newWatch(ctx, w.options.Client, w.queueUpdate)
	if err != nil {
		w.retryAfter = time.Now().Add(retryInterval)
		w.storeError(err)
		return
	}
	w.watch = watch
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	workers.Go(func() { watch.informer.RunWithContext(ctx) })
	workers.Go(func() {
		select {
		case <-watch.informer.HasSyncedChecker().Done():
			w.queueUpdate() // an empty list causes no event
		case <-ctx.Done():
		}
	})
	w.stopInformer = func() { cancel(); workers.Wait() }
}

// stopWatch stops the informer, if one runs.
func (w *rootWatcher) stopWatch() {
	if w.stopInformer != nil {
		w.stopInformer()
	}
	w.watch, w.stopInformer = nil, nil
}

// readRoots stores the roots that the watched object and the mesh settings hold now.
func (w *rootWatcher) readRoots() {
	w.readExtra()
	if w.watch == nil || !w.watch.isAnswered() {
		return
	}
	published, err := w.object.parseFrom(w.watch)
	if before := w.state.Load(); err != nil && before != nil {
		// An earlier root may be the one that cannot be read now.
		published = certs.MergeRoots(before.published, published)
	}
	after := rootState{published: published, err: errors.Join(err, w.extraErr)}
	if len(published) > 0 {
		after.roots = certs.MergeRoots(published, w.extra)
	}
	w.storeState(after)
}

// readExtra reads the extra roots and reports whether they changed.
func (w *rootWatcher) readExtra() (changed bool) {
	extra, err := w.options.Extra()
	if err != nil {
		extra = certs.MergeRoots(w.extra, extra)
	}
	changed = !slices.EqualFunc(w.extra, extra, (*x509.Certificate).Equal) || fmt.Sprint(w.extraErr) != fmt.Sprint(err)
	w.extra, w.extraErr = extra, err
	return changed
}

// storeError stores why the roots cannot be read. The last good roots stay in use.
func (w *rootWatcher) storeError(err error) {
	after := rootState{err: err}
	if before := w.state.Load(); before != nil {
		after.published, after.roots = before.published, before.roots
	}
	w.storeState(after)
}
