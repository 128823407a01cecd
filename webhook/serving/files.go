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

// FileSource is a serving certificate that somebody else keeps in two files, as
// cert-manager and a mounted Secret do. Who writes them also writes the caBundle:
// nothing in the cluster is read or written here.
//
// It stands on controller-runtime's certwatcher, which follows the symlinks that
// the kubelet swaps, polls too, and keeps the last good pair. cert-manager's own
// file source gives up for good after twelve read errors in its whole life.
type FileSource struct {
	certFile, keyFile string
	log               logr.Logger
	interval          time.Duration

	mu      sync.Mutex
	watcher *certwatcher.CertWatcher
	problem error
}

// NewFileSource serves the chain in certFile with the key in keyFile. The files may
// appear later: until then Ready says what is missing.
func NewFileSource(certFile, keyFile string, log logr.Logger) (*FileSource, error) {
	if certFile == "" || keyFile == "" {
		return nil, fmt.Errorf("serving certificate: both a certificate and a key file are needed, got %q and %q", certFile, keyFile)
	}
	if log.GetSink() == nil {
		log = logr.Discard()
	}
	return &FileSource{
		certFile: certFile, keyFile: keyFile, interval: 2 * time.Second,
		log:     log.WithValues("certificate", certFile, "key", keyFile),
		problem: errors.New("the files were not read yet"),
	}, nil
}

// Start loads the files, and reloads them whenever they change, until ctx ends.
func (f *FileSource) Start(ctx context.Context) error {
	var reported string
	err := wait.PollUntilContextCancel(ctx, f.interval, true, func(context.Context) (bool, error) {
		watcher, err := certwatcher.New(f.certFile, f.keyFile)
		f.mu.Lock()
		f.watcher, f.problem = watcher, err
		f.mu.Unlock()
		if err != nil && err.Error() != reported {
			f.log.Error(err, "waiting for a serving certificate")
			reported = err.Error()
		}
		return err == nil, nil
	})
	if err != nil {
		return nil // ctx ended
	}
	f.log.Info("loaded the serving certificate")
	return f.watcher.Start(ctx)
}

// NeedLeaderElection says that every replica runs a FileSource.
func (f *FileSource) NeedLeaderElection() bool { return false }

// GetCertificate returns the pair that the files held when they last were whole.
func (f *FileSource) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	watcher, problem := f.watcher, f.problem
	f.mu.Unlock()
	if watcher == nil {
		return nil, fmt.Errorf("no serving certificate yet: %w", problem)
	}
	return watcher.GetCertificate(hello)
}

// Ready is nil when there is a certificate and it is valid now.
func (f *FileSource) Ready() error {
	pair, err := f.GetCertificate(nil)
	if err != nil {
		return err
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) {
		return fmt.Errorf("the serving certificate in %s expired at %s", f.certFile, pair.Leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}
