package mesh

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// rootWatcher watches the object that holds the roots. It moves to another object
// when the mesh settings name another.
type rootWatcher struct {
	*Roots
	object       rootObject
	watch        *objectWatch
	stopInformer func()
	retryAfter   time.Time
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

// readRoots stores the roots that the watched object holds now.
func (w *rootWatcher) readRoots() {
	if w.watch == nil || !w.watch.isAnswered() {
		return
	}
	roots, err := w.object.parseFrom(w.watch)
	if err != nil {
		w.storeError(err)
		return
	}
	w.storeRoots(roots)
}
