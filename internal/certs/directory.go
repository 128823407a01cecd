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

// The files of a certificate directory, in the order in which Istio's agent writes
// them: one after the other, each with a rename (OutputKeyCertToDir in
// security/pkg/nodeagent/util). So key and chain do not match for a short time during
// every rotation.
const (
	KeyFile   = "key.pem"
	ChainFile = "cert-chain.pem"
	RootFile  = "root-cert.pem"
)

const (
	// readTimeout is how long the files may be incomplete or torn before they are
	// rejected: on a node that is short of CPU the agent pauses between two files
	// for 100 ms and more.
	readTimeout = time.Second
	// firstReadBackoff is the time between a read that failed and the next. It
	// doubles.
	firstReadBackoff = 5 * time.Millisecond
	// minReadInterval is the least time between two reads, however often files
	// change.
	minReadInterval = 10 * time.Millisecond
	// unwatchedPoll is the poll interval while the kernel grants no watch.
	unwatchedPoll = time.Second
)

// DirectoryOptions configure a Directory.
type DirectoryOptions struct {
	// Path is the directory. It does not have to exist yet. Required.
	Path string
	// RootsFile holds the trust anchors of the mesh: root-cert.pem of ConfigMap
	// istio-ca-root-cert, mounted into the pod. It is followed like Path. While it
	// cannot be read, its last valid content counts. Default: only the directory's
	// own root-cert.pem counts.
	RootsFile string
	// ID is the identity that the certificate has to have. Required.
	ID spiffeid.ID
	// Poll is how often the files are read although no change was seen. Default
	// 30 s; at most one second while nothing can be watched, for example because the
	// node has no free inotify instance.
	Poll time.Duration
	// Now is the clock to check validity by. Default time.Now.
	Now func() time.Time
	// Rejected is called with the error when the files hold no valid bundle: once for each
	// content and Reason until there is a bundle again, and not while the files may
	// be in the middle of a change. It is called from Run and must not block.
	// Default: the error is logged.
	Rejected func(error)
	// Log receives everything but rejections: missing files, a failed watch.
	// Default: no logging.
	Log logr.Logger
}

// Directory is the source that follows a directory of certificate files, written by
// Istio's agent or mounted by the kubelet. It keeps the last valid bundle: invalid
// content does not replace it.
type Directory struct {
	options DirectoryOptions
	changed chan struct{}
	files   *files
	// reported has the reason and digest of every rejection since the last bundle.
	reported map[string]bool
	// Tests replace newWatcher and readTimeout.
	newWatcher  func() (*fsnotify.Watcher, error)
	readTimeout time.Duration

	mu      sync.Mutex
	latest  *Bundle
	problem error
}

// NewDirectory returns a Directory. It does nothing before Run.
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
		options:  o,
		changed:  make(chan struct{}, 1),
		files:    &files{path: o.Path, rootsFile: o.RootsFile},
		reported: map[string]bool{},

		newWatcher:  fsnotify.NewWatcher,
		readTimeout: readTimeout,
	}
}

// Latest is the last valid bundle, nil before the first. It may have expired since.
func (d *Directory) Latest() *Bundle {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.latest
}

// Problem says why Latest is not what the files hold, or why the mesh's anchors
// cannot be read. Nil when there is no problem.
func (d *Directory) Problem() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.problem
}

// Changed receives a value when Latest has changed. Changes that were not received
// yet are coalesced into one.
func (d *Directory) Changed() <-chan struct{} { return d.changed }

// Run follows the directory until ctx ends. It may be called once. An error means
// that the options are invalid.
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
	retry := readRetry{timeout: d.readTimeout}
	readSoon := func() { read.Reset(minReadInterval - time.Since(last)) }
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.events():
			if w.isRelevant(e) {
				readSoon()
			}
		case err := <-w.errors(): // for example an overflow, after which events are lost
			d.options.Log.V(1).Info("the watch of the certificate directory reports an error", "error", err.Error())
			readSoon()
		case <-poll.C:
			readSoon()
		case <-read.C:
			if w.update() { // before the read, so that no change is missed in between
				poll.Reset(d.options.Poll)
			} else {
				poll.Reset(min(d.options.Poll, unwatchedPoll))
			}
			last = time.Now()
			content, err := d.read()
			if err == nil {
				d.clearProblem()
				retry.reset()
				continue
			}
			if backoff, ok := retry.next(content.digest, last); ok {
				read.Reset(backoff)
				continue
			}
			d.reportProblem(content.digest, err)
		}
	}
}

// read reads and validates the files. The error says why they hold no valid bundle, or
// why the mesh's anchors could not be read.
func (d *Directory) read() (content, error) {
	c := d.files.read()
	if c.err != nil {
		return c, c.err
	}
	b, err := New(c.material, Want{ID: d.options.ID, Roots: c.roots, Now: d.options.Now()})
	if err != nil {
		return c, fmt.Errorf("%s: %w", d.options.Path, err)
	}
	d.setLatest(b)
	return c, c.rootsErr
}

func (d *Directory) setLatest(b *Bundle) {
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
	default: // a change was not received yet
	}
}

func (d *Directory) clearProblem() {
	clear(d.reported)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problem = nil
}

// reportProblem stores an error, and reports it unless it was reported before. A
// missing file is logged and not rejected.
func (d *Directory) reportProblem(digest string, err error) {
	d.mu.Lock()
	d.problem = err
	d.mu.Unlock()
	const maxReported = 64 // bounds the memory when the content keeps changing
	reason := ReasonOf(err)
	if key := string(reason) + " " + digest; !d.reported[key] {
		if len(d.reported) >= maxReported {
			clear(d.reported)
		}
		d.reported[key] = true
		if reason == "" {
			d.options.Log.Info("waiting for certificate files", "missing", err.Error())
			return
		}
		d.options.Rejected(err)
	}
}
