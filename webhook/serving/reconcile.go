package serving

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// fieldManager signs our writes.
	fieldManager = "isthmus-webhook"

	// lookAgain bounds how long a change that no watch told of goes unseen.
	lookAgain = time.Minute

	retryFirst = time.Second
	retryLast  = 30 * time.Second
)

// maxCollisions is how many refused writes in a row are another replica's doing;
// more than that is something else.
const maxCollisions = 10

var (
	// errWrote asks for another look at once.
	errWrote = errors.New("wrote")
	// errCollided asks for it too: what was decided on is no longer there.
	errCollided = errors.New("another replica was first")
)

// reconcile looks once, does at most one write, and says when to look again.
func (a *authority) reconcile(ctx context.Context) time.Duration {
	due, err := a.look(ctx)
	switch {
	case errors.Is(err, errWrote):
		a.collisions = 0
		return time.Millisecond
	case errors.Is(err, errCollided) && a.collisions < maxCollisions:
		a.collisions++
		// Replicas that collided once should not collide again.
		return wait.Jitter(time.Millisecond, float64(10*a.collisions))
	case ctx.Err() != nil:
		return 0
	case err != nil:
		a.report(err)
		a.failures = min(a.failures+1, 10)
		return wait.Jitter(min(retryFirst<<(a.failures-1), retryLast), 0.2)
	}
	a.report(nil)
	a.failures, a.collisions = 0, 0
	after := wait.Jitter(lookAgain, 0.2)
	if !due.IsZero() {
		// A due time that is past waits for a condition that a watch will tell of.
		if until := due.Sub(a.clock.Now()); until > 0 {
			after = min(after, until)
		}
	}
	return after
}

// look reads the configuration before the Secret: the patch is tied to the
// configuration's version, so a bundle that is older than it can never land in it.
func (a *authority) look(ctx context.Context) (time.Time, error) {
	published, err := a.readConfiguration(ctx)
	if err != nil {
		return time.Time{}, err
	}
	secret, err := a.secrets.Get(ctx, a.options.SecretName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		err = fmt.Errorf("secret %s/%s does not exist, and is not created here: create it empty (helm upgrade does); serving with what is in memory",
			a.options.Namespace, a.options.SecretName)
		if len(a.last.bundle) == 0 {
			return time.Time{}, err
		}
		return time.Time{}, errors.Join(err, a.inject(ctx, published, a.last.bundle))
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read secret %s/%s: %w", a.options.Namespace, a.options.SecretName, err)
	}

	now := a.clock.Now()
	o := observation{
		now: now, secret: readState(secret, now, a.last), published: published,
		publishedSince: a.publishedSince, active: a.signer(), known: a.last.bundle,
	}
	d, err := a.planner.decide(o)
	if err != nil {
		return time.Time{}, err
	}
	if d.reason != "" {
		return time.Time{}, a.store(ctx, secret, d)
	}

	a.last = d.state
	a.choose(o, d.state)
	return d.due, a.inject(ctx, published, d.state.bundle)
}

func (a *authority) readConfiguration(ctx context.Context) (view, error) {
	published := view{name: a.options.ConfigurationName}
	configuration, err := a.configurations.Get(ctx, a.options.ConfigurationName, metav1.GetOptions{})
	switch {
	case err == nil:
		published = viewOf(configuration)
	case !apierrors.IsNotFound(err):
		return view{}, fmt.Errorf("read mutatingwebhookconfiguration %q: %w", a.options.ConfigurationName, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.published = published
	return published, nil
}

// store writes a decision, if the Secret is still the one that it was made on.
func (a *authority) store(ctx context.Context, secret *corev1.Secret, d decision) error {
	if !a.writes.TryAccept() {
		return fmt.Errorf("secret %s/%s: something else keeps changing it: take it away from whatever applies it", a.options.Namespace, a.options.SecretName)
	}
	d.state.write(secret)
	_, err := a.secrets.Update(ctx, secret, metav1.UpdateOptions{FieldManager: fieldManager})
	switch {
	case apierrors.IsConflict(err):
		return fmt.Errorf("update secret %s/%s: %w: %w", a.options.Namespace, a.options.SecretName, errCollided, err)
	case err != nil:
		return fmt.Errorf("update secret %s/%s: %w", a.options.Namespace, a.options.SecretName, err)
	}
	a.log.Info("certificate authority: "+d.reason, "phase", d.state.phase,
		"signing", d.state.signing.String(), "next", d.state.next.String(), "bundle", d.state.bundle.String())
	return errWrote
}

// choose adopts what this replica should sign with.
func (a *authority) choose(o observation, s state) {
	candidate := s.signing
	if candidate == nil && o.active == nil && o.published.carriesAll(roots{s.next.root}) == nil {
		// A replica without a leaf has nothing to keep: it need not wait for the
		// promotion to be of use.
		candidate = s.next
	}
	if candidate == nil || candidate.is(o.active) {
		return
	}
	if o.active != nil && o.now.Before(o.active.root.NotAfter) && o.published.carriesAll(roots{candidate.root}) != nil {
		// Signing anew now would make reviews fail; the watch tells when it would not.
		return
	}
	a.adopt(candidate)
	a.wake() // what waits for this replica need not wait for the next look
}

// inject gives the configuration the bundle.
func (a *authority) inject(ctx context.Context, published view, bundle roots) error {
	if !published.found {
		a.publishedSince = a.clock.Now()
		return fmt.Errorf("mutatingwebhookconfiguration %q does not exist, waiting for it: nothing is sent here without it", published.name)
	}
	patch, err := published.patch(bundle.pem())
	if err != nil || patch == nil {
		return err
	}
	a.publishedSince = a.clock.Now()
	if !a.writes.TryAccept() {
		return fmt.Errorf("mutatingwebhookconfiguration %q: something else keeps changing its caBundle: take it away from cainjector or from whatever applies it",
			published.name)
	}
	patched, err := a.configurations.Patch(ctx, published.name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	switch {
	case apierrors.IsConflict(err), apierrors.IsInvalid(err), apierrors.IsNotFound(err):
		// Invalid is what a JSON patch's failed test comes back as.
		return fmt.Errorf("patch mutatingwebhookconfiguration %q: %w: %w", published.name, errCollided, err)
	case err != nil:
		return fmt.Errorf("patch mutatingwebhookconfiguration %q: %w", published.name, err)
	}
	a.log.Info("put the trust bundle into the configuration", "bundle", bundle.String(), "resourceVersion", patched.ResourceVersion)
	return errWrote
}

// report logs a problem when it is new, and its end.
func (a *authority) report(err error) {
	a.mu.Lock()
	a.problem = err
	a.mu.Unlock()
	switch {
	case err == nil && a.reported != "":
		a.log.Info("the certificate authority is well again", "was", a.reported)
		a.reported = ""
	case err != nil && err.Error() != a.reported:
		a.log.Error(err, "certificate authority: trying again")
		a.reported = err.Error()
	}
}
