package certs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"
)

// watch tells of changes in the directories that hold files. It watches
// directories, never files: a rename puts another file into the place of the one
// that was watched. Where a directory does not exist, the nearest one above it
// that does is watched, for the way to appear.
type watch struct {
	wanted []string // directories
	names  []string // in any of them, or on the way to them
	log    logr.Logger
	create func() (*fsnotify.Watcher, error)

	watcher *fsnotify.Watcher // nil where the kernel gave none
	armed   map[string]fs.FileInfo
	failed  string // the error that was logged last
}

func newWatch(o DirectoryOptions, create func() (*fsnotify.Watcher, error)) *watch {
	w := &watch{
		wanted: []string{filepath.Clean(o.Path)},
		// The kubelet's files are links through ..data, which is a link that it
		// swaps (AtomicWriter in pkg/volume/util of Kubernetes).
		names:  []string{KeyFile, ChainFile, RootFile, "..data"},
		log:    o.Log,
		create: create,
		armed:  map[string]fs.FileInfo{},
	}
	if o.RootsFile != "" {
		w.names = append(w.names, filepath.Base(o.RootsFile))
		if dir := filepath.Dir(o.RootsFile); dir != w.wanted[0] {
			w.wanted = append(w.wanted, dir)
		}
	}
	for _, dir := range w.wanted {
		for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			w.names = append(w.names, filepath.Base(dir))
		}
	}
	return w
}

// concerns says whether an event may have changed what the files hold. The
// temporary names of agents, editors and the kubelet do not.
func (w *watch) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod { // of one that is unlinked, too
		return false
	}
	return slices.Contains(w.names, filepath.Base(e.Name))
}

// arm makes the watch be on the directories as they are now, and says whether it
// is. It is cheap where nothing changed.
func (w *watch) arm() bool {
	err := w.rearm()
	if err == nil {
		w.failed = ""
		return true
	}
	if err.Error() != w.failed {
		w.failed = err.Error()
		w.log.Info("cannot watch the certificate directory, reading it every second", "error", w.failed)
	}
	return false
}

func (w *watch) rearm() error {
	if w.watcher == nil {
		watcher, err := w.create()
		if err != nil {
			return err
		}
		w.watcher = watcher
	}
	want := make([]string, 0, len(w.wanted))
	for _, dir := range w.wanted {
		at, err := w.on(dir)
		if err != nil {
			return err
		}
		want = append(want, at)
	}
	for dir := range w.armed {
		if !slices.Contains(want, dir) {
			w.remove(dir)
		}
	}
	return nil
}

// on watches dir, or what is nearest above it. It may appear or vanish between
// the look and the watch, so it looks again until both agree.
func (w *watch) on(dir string) (string, error) {
	var err error
	for range 5 {
		var at string
		var info fs.FileInfo
		if at, info, err = nearest(dir); err != nil {
			return "", err
		}
		if err = w.add(at, info); os.IsNotExist(err) {
			continue
		} else if err != nil {
			return "", err
		}
		if again, _, _ := nearest(dir); again == at {
			return at, nil
		}
		err = fmt.Errorf("%s comes and goes", dir)
	}
	return "", err
}

// add watches a directory, unless this very one is watched already.
func (w *watch) add(dir string, info fs.FileInfo) error {
	if before, ok := w.armed[dir]; ok {
		if os.SameFile(before, info) && slices.Contains(w.watcher.WatchList(), dir) {
			return nil
		}
		w.remove(dir)
	}
	if err := w.watcher.Add(dir); err != nil {
		return err
	}
	w.armed[dir] = info
	return nil
}

func (w *watch) remove(dir string) {
	delete(w.armed, dir)
	_ = w.watcher.Remove(dir) // the kernel removes the watch of a directory that is gone itself
}

// nearest is dir, or what is above it and exists.
func nearest(dir string) (string, fs.FileInfo, error) {
	for {
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() {
			return dir, info, nil
		}
		above := filepath.Dir(dir)
		if above == dir {
			return "", nil, err
		}
		dir = above
	}
}

func (w *watch) events() <-chan fsnotify.Event {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Events
}

func (w *watch) errors() <-chan error {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Errors
}

func (w *watch) close() {
	if w.watcher != nil {
		_ = w.watcher.Close() // waits for its goroutine
	}
}
