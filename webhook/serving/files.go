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
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// FileSource is a serving certificate from two files, which another program such as
// cert-manager writes, or the kubelet from a mounted Secret. Another program, or the
// user, also writes the caBundle: a FileSource writes nothing in the cluster. It reads
// the configurations, to know when API servers can verify the certificate.
//
// It uses controller-runtime's certwatcher, which follows the symlinks that the
// kubelet swaps, also polls, and keeps the last good pair. cert-manager's own file
// source stops permanently after twelve read errors in total.
type FileSource struct {
	observer          *observer
	certFile, keyFile string
	log               logr.Logger
	interval          time.Duration

	mu      sync.Mutex
	watcher *certwatcher.CertWatcher
	loadErr error
	// views are the configurations when they were last read.
	views []configurationView
	// validated is true once the validating configuration trusted a certificate. From
	// then on it does not matter: its reviews may be missed, and must not keep the
	// replica from reviewing pods.
	validated bool
}

// FileOptions configure a FileSource.
type FileOptions struct {
	// CertFile holds the certificate and its intermediates, KeyFile the key, as PEM. They
	// may appear later: until then Ready says what is missing. Required.
	CertFile, KeyFile string
	// Client reads and watches the configurations, by name only. Required.
	Client kubernetes.Interface
	// ConfigurationName is the name of the MutatingWebhookConfiguration, and of the
	// ValidatingWebhookConfiguration if there is one. Required.
	ConfigurationName string
	// Log receives every error, and never key material. The zero value discards.
	Log logr.Logger
}

// NewFileSource checks the options and returns a FileSource. It reads nothing before
// Start.
func NewFileSource(o FileOptions) (*FileSource, error) {
	switch {
	case o.CertFile == "" || o.KeyFile == "":
		return nil, fmt.Errorf("serving certificate: want a certificate file and a key file, got %q and %q", o.CertFile, o.KeyFile)
	case o.Client == nil:
		return nil, errors.New("serving certificate: no client given")
	case o.ConfigurationName == "":
		return nil, errors.New("serving certificate: no configuration name given")
	}
	observed := Options{Client: o.Client, ConfigurationName: o.ConfigurationName, Log: o.Log}.withDefaults()
	return &FileSource{
		observer: newObserver(observed, mutatingConfiguration(o.Client, o.ConfigurationName), validatingConfiguration(o.Client, o.ConfigurationName)),
		certFile: o.CertFile, keyFile: o.KeyFile, interval: 2 * time.Second,
		log:     observed.Log.WithValues("certificate", o.CertFile, "key", o.KeyFile),
		loadErr: errors.New("the files have not been read yet"),
	}, nil
}

// Start loads the files, reloads them whenever they change, and follows the
// configurations, until ctx ends.
func (f *FileSource) Start(ctx context.Context) error {
	var observing sync.WaitGroup
	defer observing.Wait()
	observing.Go(func() { f.observer.run(ctx, f.reconcile) })
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
	f.watcher.RegisterCallback(func(tls.Certificate) { f.observer.requeue() })
	return f.watcher.Start(ctx)
}

// reconcile reads the configurations, logs what keeps API servers from verifying the
// certificate, and returns when to read again.
func (f *FileSource) reconcile(ctx context.Context) time.Duration {
	readCtx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	views, err := f.observer.readConfigurations(readCtx)
	if ctx.Err() != nil {
		return 0
	}
	if err == nil {
		f.mu.Lock()
		f.views = views
		f.mu.Unlock()
		if current, loadErr := f.GetCertificate(nil); loadErr == nil { // else Start logs it
			err = f.trustError(current)
		}
	}
	return f.observer.nextReconcile(time.Time{}, err)
}

// trustError says why API servers would refuse the certificate.
func (f *FileSource) trustError(current *tls.Certificate) error {
	_, readErr := f.observer.status()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.views == nil {
		return fmt.Errorf("not ready: %w", readErr)
	}
	t := decideTrust(f.views, chainOf(current), f.observer.clock.Now())
	f.validated = f.validated || (t.untrusted == nil && t.unvalidated == nil)
	switch {
	case t.untrusted != nil:
		return fmt.Errorf("not ready: %w", t.untrusted)
	case t.unvalidated != nil && !f.validated:
		return fmt.Errorf("not ready: %w", t.unvalidated)
	}
	return nil
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

// Ready returns nil when there is a certificate, it has not expired, and both
// configurations have a caBundle that verifies it: until then a review sent here fails.
func (f *FileSource) Ready() error {
	current, err := f.GetCertificate(nil)
	if err != nil {
		return err
	}
	if f.observer.clock.Now().After(current.Leaf.NotAfter) {
		return fmt.Errorf("the serving certificate in %s expired at %s", f.certFile, current.Leaf.NotAfter.Format(time.RFC3339))
	}
	return f.trustError(current)
}
