package certs

import (
	"time"

	"github.com/fsnotify/fsnotify"
)

// FailWatch makes a directory's watch fail, as on a node without inotify instances,
// until err returns nil.
func (d *Directory) FailWatch(err func() error) {
	d.newWatcher = func() (*fsnotify.Watcher, error) {
		if err := err(); err != nil {
			return nil, err
		}
		return fsnotify.NewWatcher()
	}
}

// NeverReject makes a directory wait for a day before it rejects anything.
func (d *Directory) NeverReject() { d.readTimeout = 24 * time.Hour }

// ReadAll is readAll.
var ReadAll = readAll
