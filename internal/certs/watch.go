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

// watch reports changes in the directories that hold the files. It watches
// directories, never files: a rename replaces the file that was watched. While a
// directory does not exist, its nearest existing ancestor is watched, so that its
// creation is seen.
type watch struct {
	directories []string
	names       []string // of files in the directories, and of their ancestors
	log         logr.Logger
	newWatcher  func() (*fsnotify.Watcher, error)

	watcher   *fsnotify.Watcher // nil until the kernel grants one
	watched   map[string]fs.FileInfo
	lastError string // the last error that was logged
}

func newWatch(o DirectoryOptions, newWatcher func() (*fsnotify.Watcher, error)) *watch {
	w := &watch{
		directories: []string{filepath.Clean(o.Path)},
		// The kubelet's files are links through ..data, a link that it replaces
		// (AtomicWriter in pkg/volume/util of Kubernetes).
		names:      []string{KeyFile, ChainFile, RootFile, "..data"},
		log:        o.Log,
		newWatcher: newWatcher,
		watched:    map[string]fs.FileInfo{},
	}
	if o.RootsFile != "" {
		w.names = append(w.names, filepath.Base(o.RootsFile))
		if dir := filepath.Dir(o.RootsFile); dir != w.directories[0] {
			w.directories = append(w.directories, dir)
		}
	}
	for _, dir := range w.directories {
		for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			w.names = append(w.names, filepath.Base(dir))
		}
	}
	return w
}

// isRelevant reports whether an event may have changed the files. Events on temporary
// names of agents, editors and the kubelet have not.
func (w *watch) isRelevant(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod { // an unlinked file causes one, too
		return false
	}
	return slices.Contains(w.names, filepath.Base(e.Name))
}

// update watches the directories that exist now, and reports whether it succeeded. It
// is cheap when nothing has changed.
func (w *watch) update() bool {
	err := w.tryUpdate()
	if err == nil {
		w.lastError = ""
		return true
	}
	if err.Error() != w.lastError {
		w.lastError = err.Error()
		w.log.Info("cannot watch the certificate directory, reading it every second", "error", w.lastError)
	}
	return false
}

func (w *watch) tryUpdate() error {
	if w.watcher == nil {
		watcher, err := w.newWatcher()
		if err != nil {
			return err
		}
		w.watcher = watcher
	}
	want := make([]string, 0, len(w.directories))
	for _, dir := range w.directories {
		at, err := w.watchNearest(dir)
		if err != nil {
			return err
		}
		want = append(want, at)
	}
	for dir := range w.watched {
		if !slices.Contains(want, dir) {
			w.remove(dir)
		}
	}
	return nil
}

// watchNearest watches dir or its nearest existing ancestor. A directory may appear
// or vanish between the lookup and the watch, so the lookup is repeated until it
// agrees with the watch.
func (w *watch) watchNearest(dir string) (string, error) {
	var err error
	for range 5 {
		var at string
		var info fs.FileInfo
		if at, info, err = nearestDirectory(dir); err != nil {
			return "", err
		}
		if err = w.add(at, info); os.IsNotExist(err) {
			continue
		} else if err != nil {
			return "", err
		}
		if now, _, _ := nearestDirectory(dir); now == at {
			return at, nil
		}
		err = fmt.Errorf("%s keeps appearing and vanishing", dir)
	}
	return "", err
}

// add watches a directory unless it is watched already.
func (w *watch) add(dir string, info fs.FileInfo) error {
	if before, ok := w.watched[dir]; ok {
		if os.SameFile(before, info) && slices.Contains(w.watcher.WatchList(), dir) {
			return nil
		}
		w.remove(dir)
	}
	if err := w.watcher.Add(dir); err != nil {
		return err
	}
	w.watched[dir] = info
	return nil
}

func (w *watch) remove(dir string) {
	delete(w.watched, dir)
	_ = w.watcher.Remove(dir) // the kernel has removed the watch of a directory that is gone
}

// nearestDirectory returns dir or its nearest existing ancestor.
func nearestDirectory(dir string) (string, fs.FileInfo, error) {
	for {
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() {
			return dir, info, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", nil, err
		}
		dir = parent
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
