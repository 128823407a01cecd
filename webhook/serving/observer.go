package serving

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	k8sv1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/clock"
)

const (
	// resyncInterval bounds how long a change that no watch reported goes unseen. It
	// is shorter than the default of a rotation's waits: a replica reconciles within one.
	resyncInterval = time.Minute

	minBackoff = time.Second
	maxBackoff = 30 * time.Second
)

// errSecretNotFound says how to create the Secret again.
var errSecretNotFound = errors.New("only the chart creates it, empty: run helm upgrade to create it again")

// observer reads the Secret, if one is named, and the configurations by name, watches
// them, and calls a reconciler when they may have changed.
type observer struct {
	secrets        corev1.SecretInterface
	configurations []configuration
	options        Options
	log            logr.Logger
	subject        string // what the log is about
	clock          clock.Clock
	queue          chan struct{} // of length one: a pending reconcile sees every change before it

	// Only the goroutine of run uses these.
	failures    int
	loggedError string

	mu        sync.Mutex
	published configurationView
	lastError error
}

func newObserver(o Options, configurations ...configuration) *observer {
	log, subject, unread := o.Log.WithValues("configuration", o.ConfigurationName), "serving certificate", "the configurations have not been read yet"
	if o.SecretName != "" {
		log, subject, unread = log.WithValues("secret", o.Namespace+"/"+o.SecretName), "certificate authority", "the Secret has not been read yet"
	}
	return &observer{
		secrets:        o.Client.CoreV1().Secrets(o.Namespace),
		configurations: configurations,
		options:        o,
		log:            log,
		subject:        subject,
		clock:          o.Clock,
		queue:          make(chan struct{}, 1),
		published:      configurationView{kind: mutating, name: o.ConfigurationName},
		lastError:      errors.New(unread),
	}
}

// run calls reconcile until ctx ends: whenever an object may have changed, and after
// the time that reconcile returned.
func (o *observer) run(ctx context.Context, reconcile func(context.Context) time.Duration) {
	var running sync.WaitGroup
	defer running.Wait()
	var watches []objectWatch
	if o.options.SecretName != "" {
		watches = append(watches, objectWatch{log: o.log, name: o.options.SecretName, watch: o.secrets.Watch, requeue: o.requeue})
	}
	for _, c := range o.configurations {
		watches = append(watches, objectWatch{log: o.log, name: c.name, watch: c.watch, requeue: o.requeue})
	}
	for _, w := range watches {
		running.Go(func() { w.run(ctx) })
	}
	for {
		timer := o.clock.NewTimer(reconcile(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-o.queue:
			timer.Stop()
		case <-timer.C():
		}
	}
}

// requeue makes run reconcile immediately.
func (o *observer) requeue() {
	select {
	case o.queue <- struct{}{}:
	default: // a reconcile is pending
	}
}

// readConfigurations returns a view of each configuration.
func (o *observer) readConfigurations(ctx context.Context) ([]configurationView, error) {
	var views []configurationView
	for _, c := range o.configurations {
		v, err := c.read(ctx)
		if err != nil {
			return nil, err
		}
		views = append(views, v)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.published = mergeViews(views)
	return views, nil
}

func (o *observer) readSecret(ctx context.Context) (*k8sv1.Secret, error) {
	secret, err := o.secrets.Get(ctx, o.options.SecretName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("secret %s/%s does not exist; %w", o.options.Namespace, o.options.SecretName, errSecretNotFound)
	case err != nil:
		return nil, fmt.Errorf("read secret %s/%s: %w", o.options.Namespace, o.options.SecretName, err)
	}
	return secret, nil
}

// nextReconcile records the result of a reconcile and returns how long to wait for
// the next: until due, at most resyncInterval, and less after an error. Due is zero
// when nothing is due without a change.
func (o *observer) nextReconcile(due time.Time, err error) time.Duration {
	o.recordError(err)
	after := wait.Jitter(resyncInterval, 0.2)
	if err != nil {
		o.failures = min(o.failures+1, 10)
		after = wait.Jitter(min(minBackoff<<(o.failures-1), maxBackoff), 0.2)
	} else {
		o.failures = 0
	}
	if !due.IsZero() {
		// A due time in the past waits for a change, which a watch reports.
		if until := due.Sub(o.clock.Now()); until > 0 {
			after = min(after, until)
		}
	}
	return after
}

// recordError keeps the error for status, and logs a new one and its end once.
func (o *observer) recordError(err error) {
	o.mu.Lock()
	o.lastError = err
	o.mu.Unlock()
	switch {
	case err == nil && o.loggedError != "":
		o.log.Info(o.subject+": the error is resolved", "was", o.loggedError)
		o.loggedError = ""
	case err != nil && err.Error() != o.loggedError:
		o.log.Error(err, o.subject+": retrying")
		o.loggedError = err.Error()
	}
}

// status returns what the configurations trusted when they were last read, and the
// error of the last reconcile.
func (o *observer) status() (configurationView, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.published, o.lastError
}
