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

// fieldManager signs our writes.
const fieldManager = "isthmus-controller"

// maxCollisions is how many refused writes in a row are a former leader's doing;
// more than that is something else.
const maxCollisions = 10

var (
	// errWrote asks for another look at once.
	errWrote = errors.New("wrote")
	// errCollided asks for it too: what was decided on is no longer there.
	errCollided = errors.New("somebody else was first")
)

// Keeper keeps the authority in the Secret, and the trust bundle in both
// configurations. It is a controller-runtime Runnable for a leader: two at once do
// no harm, since every write carries the resourceVersion that it was decided on,
// but one is enough.
type Keeper struct {
	*objects
	planner planner
	writes  flowcontrol.PassiveRateLimiter

	// Only the goroutine of Start uses these.
	last           state // the last whole one
	publishedSince time.Time
	collisions     int
}

// NewKeeper checks the options and makes a Keeper. Nothing is read or written
// before Start.
func NewKeeper(options Options) (*Keeper, error) {
	options = options.withDefaults()
	if err := errors.Join(options.validate(), options.validateCA()); err != nil {
		return nil, fmt.Errorf("webhook's certificate authority: %w", err)
	}
	return &Keeper{
		objects: newObjects(options,
			mutatingConfiguration(options.Client, options.ConfigurationName),
			validatingConfiguration(options.Client, options.ConfigurationName)),
		planner: planner{
			delay: options.PropagationDelay,
			make:  func(now time.Time) (*pair, error) { return newPair(now, options.CATTL) },
		},
		// Twenty writes at once, then one a second: somebody else who insists on
		// another content must not turn into a storm.
		writes: flowcontrol.NewTokenBucketPassiveRateLimiterWithClock(1, 20, options.Clock),
	}, nil
}

// Start keeps the Secret and the configurations until ctx ends, and then returns
// nil. No problem of the cluster ends it: it logs and tries again.
func (k *Keeper) Start(ctx context.Context) error {
	k.follow(ctx, k.reconcile)
	return nil
}

// NeedLeaderElection says that one Keeper is enough.
func (k *Keeper) NeedLeaderElection() bool { return true }

// reconcile looks once, does at most one write, and says when to look again.
func (k *Keeper) reconcile(ctx context.Context) time.Duration {
	due, err := k.look(ctx)
	switch {
	case errors.Is(err, errWrote):
		k.collisions = 0
		return time.Millisecond
	case errors.Is(err, errCollided) && k.collisions < maxCollisions:
		k.collisions++
		// Those who collided once should not collide again.
		return wait.Jitter(time.Millisecond, float64(10*k.collisions))
	case ctx.Err() != nil:
		return 0
	}
	if err == nil {
		k.collisions = 0
	}
	return k.again(due, err)
}

// look reads the configurations before the Secret: a patch is tied to its
// configuration's version, so a bundle that is older than it can never land in it.
func (k *Keeper) look(ctx context.Context) (time.Time, error) {
	all, err := k.readConfigurations(ctx)
	if err != nil {
		return time.Time{}, err
	}
	secret, err := k.readSecret(ctx)
	if errors.Is(err, errNoSecret) && len(k.last.bundle) > 0 {
		// Leaves of it are in use.
		err = errors.Join(err, k.inject(ctx, all, k.last.bundle))
	}
	if err != nil {
		return time.Time{}, err
	}

	now := k.clock.Now()
	d, err := k.planner.decide(observation{
		now: now, secret: readState(secret, now, k.last), published: together(all),
		publishedSince: k.publishedSince, last: k.last,
	})
	if err != nil {
		return time.Time{}, err
	}
	if d.reason != "" {
		return time.Time{}, k.store(ctx, secret, d)
	}
	k.last = d.state
	return d.due, k.inject(ctx, all, d.state.bundle)
}

// store writes a decision, if the Secret is still the one that it was made on.
func (k *Keeper) store(ctx context.Context, secret *k8sv1.Secret, d decision) error {
	if !k.writes.TryAccept() {
		return fmt.Errorf("secret %s/%s: something else keeps changing it: take it away from whatever applies it", k.options.Namespace, k.options.SecretName)
	}
	d.state.write(secret)
	_, err := k.secrets.Update(ctx, secret, metav1.UpdateOptions{FieldManager: fieldManager})
	switch {
	case apierrors.IsConflict(err):
		return fmt.Errorf("update secret %s/%s: %w: %w", k.options.Namespace, k.options.SecretName, errCollided, err)
	case err != nil:
		return fmt.Errorf("update secret %s/%s: %w", k.options.Namespace, k.options.SecretName, err)
	}
	k.log.Info("certificate authority: "+d.reason, "phase", d.state.phase,
		"signing", d.state.signing.String(), "next", d.state.next.String(), "bundle", d.state.bundle.String())
	return errWrote
}

// inject gives every configuration the bundle. One that cannot be given it does
// not keep the others from it.
func (k *Keeper) inject(ctx context.Context, all []view, bundle roots) error {
	var errs []error
	for i, published := range all {
		errs = append(errs, k.injectInto(ctx, k.configurations[i], published, bundle))
	}
	return errors.Join(errs...)
}

func (k *Keeper) injectInto(ctx context.Context, c configuration, published view, bundle roots) error {
	if !published.found {
		if c.kind == validating {
			return nil // somebody does without
		}
		k.publishedSince = k.clock.Now()
		return fmt.Errorf("%s, waiting for it: no pod is sent to the webhook without it", published.missing())
	}
	patch, err := published.patch(bundle.pem())
	if err != nil || patch == nil {
		return err
	}
	k.publishedSince = k.clock.Now()
	if !k.writes.TryAccept() {
		return fmt.Errorf("%s %q: something else keeps changing its caBundle: take it away from cainjector or from whatever applies it",
			c.kind, c.name)
	}
	patched, err := c.patch(ctx, c.name, patch)
	switch {
	case apierrors.IsConflict(err), apierrors.IsInvalid(err), apierrors.IsNotFound(err):
		// Invalid is what a JSON patch's failed test comes back as.
		return fmt.Errorf("patch %s %q: %w: %w", c.kind, c.name, errCollided, err)
	case err != nil:
		return fmt.Errorf("patch %s %q: %w", c.kind, c.name, err)
	}
	k.log.Info("put the trust bundle into the configuration", "kind", c.kind, "bundle", bundle.String(), "resourceVersion", patched.GetResourceVersion())
	return errWrote
}
