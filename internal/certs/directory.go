package certs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// The files of a certificate directory, as Istio's agent names and orders them:
// it writes key.pem, cert-chain.pem and root-cert.pem one after the other, each
// by a rename (OutputKeyCertToDir in security/pkg/nodeagent/util), so that key
// and chain do not match for a moment in every rotation.
const (
	KeyFile   = "key.pem"
	ChainFile = "cert-chain.pem"
	RootFile  = "root-cert.pem"
)

const (
	// patience is how long what the directory holds may be incomplete or torn
	// before that is a rejection: a node that is short of CPU stops the agent
	// between two files for 100 ms and more.
	patience = time.Second
	// firstWait is between a reading that failed and the next; it doubles.
	firstWait = 5 * time.Millisecond
	// spacing is between two readings at least, however often files change.
	spacing = 10 * time.Millisecond
	// blindPoll is the poll where the kernel gives no watch.
	blindPoll = time.Second
)

// DirectoryOptions are the settings of a Directory.
type DirectoryOptions struct {
	// Path is the directory. It need not exist yet.
	Path string
	// RootsFile holds the trust anchors of the mesh: root-cert.pem of ConfigMap
	// istio-ca-root-cert, mounted into the pod. It is followed like Path; while
	// it cannot be read, the anchors that it held last count. Without the
	// option the directory's own root-cert.pem counts alone.
	RootsFile string
	// ID is the identity that the certificate has to have.
	ID spiffeid.ID
	// Poll is how often the files are read although nothing seems to have
	// changed. Default 30 s; every second at least while nothing can be watched,
	// as when the node is out of inotify instances.
	Poll time.Duration
	// Now is the clock to judge validity by. Default time.Now.
	Now func() time.Time
	// Rejected hears why what lies in the directory is no bundle, once for each
	// content and Reason until there is a bundle again, and not while the files
	// may just be in the middle of a change. It is called from Run and must not
	// block. Default: it is logged.
	Rejected func(error)
	// Log gets what is no rejection: files that are missing, a watch that failed.
	// Default: nothing.
	Log logr.Logger
}

// Directory is the source that follows a directory of certificate files, whether
// Istio's agent writes them or the kubelet mounts them. It has the last good
// bundle: what cannot be one does not replace it.
type Directory struct {
	options DirectoryOptions
	changed chan struct{}
	files   *files
	seen    map[string]bool
	// newWatcher and patience are what they are but for tests.
	newWatcher func() (*fsnotify.Watcher, error)
	patience   time.Duration

	mu      sync.Mutex
	latest  *Bundle
	problem error
}

// NewDirectory makes a Directory, which does nothing before Run.
func NewDirectory(o DirectoryOptions) *Directory {
	if o.Poll <= 0 {
		o.Poll = 30 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	if o.Rejected == nil {
		log := o.Log
		o.Rejected = func(err error) { log.Error(err, "rejected a certificate") }
	}
	return &Directory{
		options: o,
		changed: make(chan struct{}, 1),
		files:   &files{path: o.Path, rootsFile: o.RootsFile},
		seen:    map[string]bool{},

		newWatcher: fsnotify.NewWatcher,
		patience:   patience,
	}
}

// Latest is the last good bundle, nil before the first. It may have expired in
// the meantime.
func (d *Directory) Latest() *Bundle {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.latest
}

// Problem says why Latest is not what lies in the directory, or what keeps the
// anchors of the mesh from being read; nil when all is well.
func (d *Directory) Problem() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.problem
}

// Changed receives when Latest changed. Changes that nobody received yet are one.
func (d *Directory) Changed() <-chan struct{} { return d.changed }

// Run follows the directory until ctx ends, and is called once. An error means
// that the options are of no use.
func (d *Directory) Run(ctx context.Context) error {
	switch {
	case d.options.Path == "":
		return errors.New("certificate directory: no path")
	case d.options.ID.IsZero():
		return fmt.Errorf("certificate directory %s: no identity", d.options.Path)
	}
	w := newWatch(d.options, d.newWatcher)
	defer w.close()
	read, poll := time.NewTimer(0), time.NewTimer(d.options.Poll)
	defer read.Stop()
	defer poll.Stop()

	var last time.Time
	settling := settling{patience: d.patience}
	soon := func() { read.Reset(spacing - time.Since(last)) }
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.events():
			if w.concerns(e) {
				soon()
			}
		case err := <-w.errors(): // an overflow too: something was missed
			d.options.Log.V(1).Info("the watch of the certificate directory reports an error", "error", err.Error())
			soon()
		case <-poll.C:
			soon()
		case <-read.C:
			if w.arm() { // before the reading, so that no change falls between
				poll.Reset(d.options.Poll)
			} else {
				poll.Reset(min(d.options.Poll, blindPoll))
			}
			last = time.Now()
			content, err := d.read()
			if err == nil {
				d.well()
				settling.end()
				continue
			}
			if wait, ok := settling.next(content.digest, last); ok {
				read.Reset(wait)
				continue
			}
			d.ill(content.digest, err)
		}
	}
}

// read reads and judges the files. The error is why they are no bundle, or why
// the anchors of the mesh are those of before.
func (d *Directory) read() (content, error) {
	c := d.files.read()
	if c.err != nil {
		return c, c.err
	}
	b, err := New(c.material, Want{ID: d.options.ID, Roots: c.roots, Now: d.options.Now()})
	if err != nil {
		return c, fmt.Errorf("%s: %w", d.options.Path, err)
	}
	d.accept(b)
	return c, c.rootsErr
}

func (d *Directory) accept(b *Bundle) {
	d.mu.Lock()
	same := b.Equal(d.latest)
	if !same {
		d.latest = b
	}
	d.mu.Unlock()
	if same {
		return
	}
	d.options.Log.V(1).Info("the certificate directory holds another certificate", "certificate", b.String())
	select {
	case d.changed <- struct{}{}:
	default: // one is waiting already
	}
}

func (d *Directory) well() {
	clear(d.seen)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problem = nil
}

// ill reports an error unless it was. A file that is not there is none to reject.
func (d *Directory) ill(digest string, err error) {
	d.mu.Lock()
	d.problem = err
	d.mu.Unlock()
	const most = 64 // contents that take turns, in a directory that somebody plays with
	reason := ReasonOf(err)
	if key := string(reason) + " " + digest; !d.seen[key] {
		if len(d.seen) >= most {
			clear(d.seen)
		}
		d.seen[key] = true
		if reason == "" {
			d.options.Log.Info("waiting for certificate files", "missing", err.Error())
			return
		}
		d.options.Rejected(err)
	}
}

// settling says how long to wait for a change to be complete.
type settling struct {
	patience time.Duration
	since    time.Time // zero while there is nothing to wait for
	wait     time.Duration
	givenUp  bool
	lastSeen string
}

func (s *settling) end() { *s = settling{patience: s.patience} }

// next returns the time until the next reading, and false when patience is over.
// Another content begins a new patience only after that: a directory that is
// never at rest must not be waited for without end.
func (s *settling) next(digest string, now time.Time) (time.Duration, bool) {
	if s.givenUp && s.lastSeen == digest {
		return 0, false
	}
	if s.since.IsZero() || s.givenUp {
		*s = settling{patience: s.patience, since: now, wait: firstWait}
	}
	s.lastSeen = digest
	left := s.patience - now.Sub(s.since)
	if left <= 0 {
		s.givenUp = true
		return 0, false
	}
	wait := min(s.wait, left)
	s.wait *= 2
	return wait, true
}
