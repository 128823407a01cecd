package certs

import (
	"time"

	"github.com/fsnotify/fsnotify"
)

// Blind makes a directory's watch fail, as on a node without inotify instances,
// until there is no error any more.
func (d *Directory) Blind(err func() error) {
	d.newWatcher = func() (*fsnotify.Watcher, error) {
		if err := err(); err != nil {
			return nil, err
		}
		return fsnotify.NewWatcher()
	}
}

// Patient makes a directory wait for a day before it rejects anything.
func (d *Directory) Patient() { d.patience = 24 * time.Hour }

// ReadAll reads a file whose size says nothing.
var ReadAll = readAll
