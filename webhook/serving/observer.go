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
	// lookAgain bounds how long a change that no watch told of goes unseen. It is
	// shorter than the default of a rotation's waits: within one, a replica looks.
	lookAgain = time.Minute

	retryFirst = time.Second
	retryLast  = 30 * time.Second
)

// errNoSecret is a Secret that is not there.
var errNoSecret = errors.New("it is created empty by the chart, and by nothing else: helm upgrade brings it back")

// objects are the Secret and the configurations, read by name and followed.
type objects struct {
	secrets        corev1.SecretInterface
	configurations []configuration
	options        Options
	log            logr.Logger
	clock          clock.Clock
	changed        chan struct{}

	// Only the goroutine of follow uses these.
	failures int
	reported string

	mu        sync.Mutex
	published view
	problem   error
}

func newObjects(o Options, configurations ...configuration) *objects {
	return &objects{
		secrets:        o.Client.CoreV1().Secrets(o.Namespace),
		configurations: configurations,
		options:        o,
		log:            o.Log.WithValues("secret", o.Namespace+"/"+o.SecretName, "configuration", o.ConfigurationName),
		clock:          o.Clock,
		changed:        make(chan struct{}, 1),
		published:      view{kind: mutating, name: o.ConfigurationName},
		problem:        errors.New("nothing was looked at yet"),
	}
}

// follow calls look until ctx ends: whenever one of them may have changed, and
// after the time that look returns.
func (o *objects) follow(ctx context.Context, look func(context.Context) time.Duration) {
	var watches sync.WaitGroup
	defer watches.Wait()
	alarms := []alarm{{log: o.log, name: o.options.SecretName, open: o.secrets.Watch, wake: o.wake}}
	for _, c := range o.configurations {
		alarms = append(alarms, alarm{log: o.log, name: c.name, open: c.open, wake: o.wake})
	}
	for _, watched := range alarms {
		watches.Go(func() { watched.run(ctx) })
	}
	for {
		timer := o.clock.NewTimer(look(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-o.changed:
			timer.Stop()
		case <-timer.C():
		}
	}
}

func (o *objects) wake() {
	select {
	case o.changed <- struct{}{}:
	default: // a look is due already, and it will see this change too
	}
}

// readConfigurations returns what each of the configurations tells.
func (o *objects) readConfigurations(ctx context.Context) ([]view, error) {
	var all []view
	for _, c := range o.configurations {
		v, err := c.read(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.published = together(all)
	return all, nil
}

func (o *objects) readSecret(ctx context.Context) (*k8sv1.Secret, error) {
	secret, err := o.secrets.Get(ctx, o.options.SecretName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("secret %s/%s does not exist; %w", o.options.Namespace, o.options.SecretName, errNoSecret)
	case err != nil:
		return nil, fmt.Errorf("read secret %s/%s: %w", o.options.Namespace, o.options.SecretName, err)
	}
	return secret, nil
}

// again is when to look again after a look that ended with err; due is when it is
// time by the clock, zero when only a change can bring something new.
func (o *objects) again(due time.Time, err error) time.Duration {
	o.report(err)
	after := wait.Jitter(lookAgain, 0.2)
	if err != nil {
		o.failures = min(o.failures+1, 10)
		after = wait.Jitter(min(retryFirst<<(o.failures-1), retryLast), 0.2)
	} else {
		o.failures = 0
	}
	if !due.IsZero() {
		// A due time that is past waits for a condition that a watch will tell of.
		if until := due.Sub(o.clock.Now()); until > 0 {
			after = min(after, until)
		}
	}
	return after
}

// report logs a problem when it is new, and its end.
func (o *objects) report(err error) {
	o.mu.Lock()
	o.problem = err
	o.mu.Unlock()
	switch {
	case err == nil && o.reported != "":
		o.log.Info("the certificate authority is well again", "was", o.reported)
		o.reported = ""
	case err != nil && err.Error() != o.reported:
		o.log.Error(err, "certificate authority: trying again")
		o.reported = err.Error()
	}
}

// status is what the last look saw, and its problem.
func (o *objects) status() (view, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.published, o.problem
}
