package serving

import (
	"context"
	"errors"
	"fmt"
	"time"

	k8sv1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/flowcontrol"
)

// fieldManager is the field manager of all writes.
const fieldManager = "isthmus-controller"

// maxConflicts is how many conflicts in a row are retried immediately. A former leader
// that still runs causes fewer.
const maxConflicts = 10

var (
	// errWritten requeues immediately after a write, to read its result.
	errWritten = errors.New("written")
	// errConflict requeues immediately too: the object changed since it was read.
	errConflict = errors.New("the object changed since it was read")
)

// Rotator maintains the authority in the Secret, and the trust bundle in both
// configurations. It is a controller-runtime Runnable for a leader. One is enough, and
// two at the same time do no harm: every write carries the resourceVersion that was read.
type Rotator struct {
	*observer
	writes flowcontrol.PassiveRateLimiter

	// Only the goroutine of Start uses these.
	last         rotationState // the last undamaged state
	lastMismatch time.Time     // when a configuration last lacked the bundle
	conflicts    int
}

// NewRotator checks the options and returns a Rotator. It reads and writes nothing
// before Start.
func NewRotator(options Options) (*Rotator, error) {
	options = options.withDefaults()
	if err := errors.Join(options.validate(), options.validateCA()); err != nil {
		return nil, fmt.Errorf("webhook's certificate authority: %w", err)
	}
	return &Rotator{
		observer: newObserver(options,
			mutatingConfiguration(options.Client, options.ConfigurationName),
			validatingConfiguration(options.Client, options.ConfigurationName)),
		// A burst of twenty writes, then one a second: two writers that disagree about
		// the content must not flood the API server.
		writes: flowcontrol.NewTokenBucketPassiveRateLimiterWithClock(1, 20, options.Clock),
	}, nil
}

// Start maintains the Secret and the configurations until ctx ends, and then returns
// nil. It logs every error and retries.
func (r *Rotator) Start(ctx context.Context) error {
	r.run(ctx, r.reconcile)
	return nil
}

// NeedLeaderElection is true: one Rotator is enough.
func (r *Rotator) NeedLeaderElection() bool { return true }

// reconcile reads everything, does at most one round of writes, and returns when to
// reconcile again.
func (r *Rotator) reconcile(ctx context.Context) time.Duration {
	due, err := r.reconcileOnce(ctx)
	switch {
	case errors.Is(err, errWritten):
		r.conflicts = 0
		return time.Millisecond
	case errors.Is(err, errConflict) && r.conflicts < maxConflicts:
		r.conflicts++
		// Jitter keeps two writers from colliding again.
		return wait.Jitter(time.Millisecond, float64(10*r.conflicts))
	case ctx.Err() != nil:
		return 0
	}
	if err == nil {
		r.conflicts = 0
	}
	return r.nextReconcile(due, err)
}

// reconcileOnce reads the configurations before the Secret. A patch carries the
// version of its configuration, so a bundle older than that version never lands in it.
func (r *Rotator) reconcileOnce(ctx context.Context) (time.Time, error) {
	views, err := r.readConfigurations(ctx)
	if err != nil {
		return time.Time{}, err
	}
	secret, err := r.readSecret(ctx)
	if errors.Is(err, errSecretNotFound) && len(r.last.bundle) > 0 {
		// API servers verify the leaves in use with the last bundle.
		err = errors.Join(err, r.patchCABundles(ctx, views, r.last.bundle))
	}
	if err != nil {
		return time.Time{}, err
	}

	now := r.clock.Now()
	d, err := decide(observation{
		now: now, secret: parseSecret(secret, now, r.last), published: mergeViews(views),
		lastMismatch: r.lastMismatch, last: r.last,
	}, r.options.PropagationDelay, r.generate)
	if err != nil {
		return time.Time{}, err
	}
	if d.reason != "" {
		return time.Time{}, r.updateSecret(ctx, secret, d)
	}
	r.last = d.state
	return d.due, r.patchCABundles(ctx, views, d.state.bundle)
}

func (r *Rotator) generate(now time.Time) (*authority, error) {
	return newAuthority(now, r.options.CATTL)
}

// updateSecret writes a decision, unless the Secret changed since it was read.
func (r *Rotator) updateSecret(ctx context.Context, secret *k8sv1.Secret, d decision) error {
	if !r.writes.TryAccept() {
		return fmt.Errorf("secret %s/%s: another writer keeps changing it; exclude it from the tool that applies it", r.options.Namespace, r.options.SecretName)
	}
	d.state.writeTo(secret)
	_, err := r.secrets.Update(ctx, secret, metav1.UpdateOptions{FieldManager: fieldManager})
	switch {
	case apierrors.IsConflict(err):
		return fmt.Errorf("update secret %s/%s: %w: %w", r.options.Namespace, r.options.SecretName, errConflict, err)
	case err != nil:
		return fmt.Errorf("update secret %s/%s: %w", r.options.Namespace, r.options.SecretName, err)
	}
	r.log.Info("certificate authority: "+d.reason, "phase", d.state.phase,
		"signing", d.state.signing.String(), "next", d.state.next.String(), "bundle", d.state.bundle.String())
	return errWritten
}

// patchCABundles writes the bundle into every configuration. An error of one
// configuration does not affect the others.
func (r *Rotator) patchCABundles(ctx context.Context, views []configurationView, bundle roots) error {
	var errs []error
	for i, v := range views {
		errs = append(errs, r.patchCABundle(ctx, r.configurations[i], v, bundle))
	}
	return errors.Join(errs...)
}

func (r *Rotator) patchCABundle(ctx context.Context, c configuration, v configurationView, bundle roots) error {
	if !v.found {
		if c.kind == validating {
			return nil // it is optional
		}
		r.lastMismatch = r.clock.Now()
		return fmt.Errorf("%s: API servers send no pods to the webhook; run helm upgrade to create it again", v.notFound())
	}
	patch, err := v.caBundlePatch(bundle.encode())
	if err != nil || patch == nil {
		return err
	}
	r.lastMismatch = r.clock.Now()
	if !r.writes.TryAccept() {
		return fmt.Errorf("%s %q: another writer keeps changing its caBundle; exclude it from cainjector or from the tool that applies it",
			c.kind, c.name)
	}
	patched, err := c.patch(ctx, c.name, patch)
	switch {
	case apierrors.IsConflict(err), apierrors.IsInvalid(err), apierrors.IsNotFound(err):
		// The API server answers Invalid when a JSON patch's test fails.
		return fmt.Errorf("patch %s %q: %w: %w", c.kind, c.name, errConflict, err)
	case err != nil:
		return fmt.Errorf("patch %s %q: %w", c.kind, c.name, err)
	}
	r.log.Info("wrote the caBundle of the configuration", "kind", c.kind, "bundle", bundle.String(), "resourceVersion", patched.GetResourceVersion())
	return errWritten
}
