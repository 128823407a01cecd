package serving

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// FileSource is a serving certificate from two files, which another program such as
// cert-manager writes, or the kubelet from a mounted Secret. That program also writes
// the caBundle: a FileSource reads and writes nothing in the cluster.
//
// It uses controller-runtime's certwatcher, which follows the symlinks that the
// kubelet swaps, also polls, and keeps the last good pair. cert-manager's own file
// source stops permanently after twelve read errors in total.
type FileSource struct {
	certFile, keyFile string
	log               logr.Logger
	interval          time.Duration

	mu      sync.Mutex
	watcher *certwatcher.CertWatcher
	loadErr error
}

// NewFileSource returns a source of the chain in certFile with the key in keyFile. The
// files may appear later: until then Ready says what is missing.
func NewFileSource(certFile, keyFile string, log logr.Logger) (*FileSource, error) {
	if certFile == "" || keyFile == "" {
		return nil, fmt.Errorf("serving certificate: want a certificate file and a key file, got %q and %q", certFile, keyFile)
	}
	if log.GetSink() == nil {
		log = logr.Discard()
	}
	return &FileSource{
		certFile: certFile, keyFile: keyFile, interval: 2 * time.Second,
		log:     log.WithValues("certificate", certFile, "key", keyFile),
		loadErr: errors.New("the files have not been read yet"),
	}, nil
}

// Start loads the files, and reloads them whenever they change, until ctx ends.
func (f *FileSource) Start(ctx context.Context) error {
	var logged string
	err := wait.PollUntilContextCancel(ctx, f.interval, true, func(context.Context) (bool, error) {
		watcher, err := certwatcher.New(f.certFile, f.keyFile)
		f.mu.Lock()
		f.watcher, f.loadErr = watcher, err
		f.mu.Unlock()
		if err != nil && err.Error() != logged {
			f.log.Error(err, "cannot load the serving certificate yet: retrying")
			logged = err.Error()
		}
		return err == nil, nil
	})
	if err != nil {
		return nil // ctx ended
	}
	f.log.Info("loaded the serving certificate")
	return f.watcher.Start(ctx)
}

// NeedLeaderElection is false: every replica runs a FileSource.
func (f *FileSource) NeedLeaderElection() bool { return false }

// GetCertificate returns the last certificate and key in the files that belong together.
func (f *FileSource) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	watcher, loadErr := f.watcher, f.loadErr
	f.mu.Unlock()
	if watcher == nil {
		return nil, fmt.Errorf("no serving certificate yet: %w", loadErr)
	}
	return watcher.GetCertificate(hello)
}

// Ready returns nil when there is a certificate and it has not expired.
func (f *FileSource) Ready() error {
	current, err := f.GetCertificate(nil)
	if err != nil {
		return err
	}
	if now := time.Now(); now.After(current.Leaf.NotAfter) {
		return fmt.Errorf("the serving certificate in %s expired at %s", f.certFile, current.Leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}
