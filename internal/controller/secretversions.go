package controller

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// repairBurst is how often a Secret that somebody keeps changing is checked at
	// once. After that it is checked once per repairPause: two controllers that
	// overwrite each other must not ask for a certificate a hundred times a second.
	repairBurst = 120
	repairPause = 10 * time.Second
)

// secretVersions tells changes of Secrets by others from those that the controller
// made itself. It knows the version of each Secret that the controller last read or
// wrote, and compares it with the versions that the watches announce. Secrets that
// the controller has not read are ignored. It is safe for concurrent use.
type secretVersions struct {
	now func() time.Time
	// observeRepair is called with the time from a change to the write that follows it.
	observeRepair func(time.Duration)

	mu sync.Mutex
	// requeue requeues a namespace after a delay. It is nil until the watches start.
	requeue func(namespace string, delay time.Duration)
	// byNamespace holds a version for each namespace and name.
	byNamespace map[string]map[string]*secretVersion
}

// secretVersion is what is known of one Secret.
type secretVersion struct {
	// current is the resourceVersion that was last read or written. It is empty when
	// there is no Secret.
	current string
	isKnown bool
	// requests counts the requests without an answer so far. The version that the
	// watch announces meanwhile may be that of the answer.
	requests  int
	announced *string
	// changed is when the first change was announced that no check has dealt with, and
	// latest when the last one was.
	changed, latest time.Time
	// limiter is nil until the first change.
	limiter *rate.Limiter
}

func newSecretVersions(now func() time.Time, observeRepair func(time.Duration)) *secretVersions {
	return &secretVersions{now: now, observeRepair: observeRepair, byNamespace: map[string]map[string]*secretVersion{}}
}

// start sets what requeues a namespace from now on.
func (v *secretVersions) start(requeue func(namespace string, delay time.Duration)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.requeue = requeue
}

// begin notes that a request about a Secret is on its way.
func (v *secretVersions) begin(namespace, name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	names, ok := v.byNamespace[namespace]
	if !ok {
		names = map[string]*secretVersion{}
		v.byNamespace[namespace] = names
	}
	if names[name] == nil {
		names[name] = &secretVersion{}
	}
	names[name].requests++
}

// answer is the end of a request about a Secret.
type answer struct {
	// resourceVersion is that of the Secret; empty when there is none.
	resourceVersion string
	// isKnown is false when the request failed.
	isKnown bool
	// isWrite is true when the request changed the Secret.
	isWrite bool
}

// end notes the answer to a request.
func (v *secretVersions) end(namespace, name string, a answer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.byNamespace[namespace][name]
	if s == nil { // forgotten meanwhile
		return
	}
	s.requests--
	if a.isKnown {
		s.current, s.isKnown = a.resourceVersion, true
	}
	if a.isKnown && a.isWrite && !s.changed.IsZero() {
		v.observeRepair(v.now().Sub(s.changed))
		s.changed = time.Time{}
	}
	if s.requests > 0 {
		return
	}
	announced := s.announced
	s.announced = nil
	if !s.isKnown {
		delete(v.byNamespace[namespace], name) // the caller tries again
		return
	}
	if announced != nil {
		v.compare(namespace, s, *announced)
	}
}

// announce notes the version of a Secret that a watch delivered; empty when the
// Secret was deleted.
func (v *secretVersions) announce(namespace, name, resourceVersion string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch s := v.byNamespace[namespace][name]; {
	case s == nil:
	case s.requests > 0:
		s.announced = &resourceVersion
	default:
		v.compare(namespace, s, resourceVersion)
	}
}

// replace notes the versions of all Secrets of one name that a list delivered, by
// namespace. Those of other namespaces are deleted, as far as the list covers them.
func (v *secretVersions) replace(name string, covers func(namespace string) bool, versions map[string]string) {
	v.mu.Lock()
	var namespaces []string
	for namespace, names := range v.byNamespace {
		if names[name] != nil && covers(namespace) {
			namespaces = append(namespaces, namespace)
		}
	}
	v.mu.Unlock()
	for _, namespace := range namespaces {
		v.announce(namespace, name, versions[namespace])
	}
}

// compare requeues the namespace of a Secret whose announced version is not the one
// that the controller read or wrote. The caller holds the mutex.
func (v *secretVersions) compare(namespace string, s *secretVersion, announced string) {
	if announced == s.current {
		return
	}
	now := v.now()
	if s.changed.IsZero() {
		s.changed = now
	}
	s.latest = now
	if v.requeue == nil {
		return
	}
	if s.limiter == nil {
		s.limiter = rate.NewLimiter(rate.Every(repairPause), repairBurst)
	}
	v.requeue(namespace, s.limiter.ReserveN(now, 1).DelayFrom(now))
}

// changed lists the Secrets of a namespace with a change that no check has dealt with.
func (v *secretVersions) changed(namespace string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var names []string
	for name, s := range v.byNamespace[namespace] {
		if !s.changed.IsZero() {
			names = append(names, name)
		}
	}
	return names
}

// settle notes that a check which began at a time found nothing to repair. A change
// that was announced after that waits for the next check.
func (v *secretVersions) settle(namespace, name string, began time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch s := v.byNamespace[namespace][name]; {
	case s == nil || s.changed.IsZero():
	case s.latest.After(began):
		s.changed = s.latest
	default:
		s.changed = time.Time{}
	}
}

// forget forgets a Secret, which is no longer checked.
func (v *secretVersions) forget(namespace, name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.byNamespace[namespace], name)
}

// forgetNamespace forgets the Secrets of a namespace.
func (v *secretVersions) forgetNamespace(namespace string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.byNamespace, namespace)
}

// trackedSecrets reads and writes Secrets, and notes their versions.
type trackedSecrets struct {
	Secrets
	versions *secretVersions
}

// Get implements publish.Secrets.
func (t trackedSecrets) Get(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	t.versions.begin(namespace, name)
	secret, err := t.Secrets.Get(ctx, namespace, name)
	a := answer{isKnown: err == nil || apierrors.IsNotFound(err)}
	if err == nil {
		a.resourceVersion = secret.ResourceVersion
	}
	t.versions.end(namespace, name, a)
	return secret, err
}

// Apply implements publish.Secrets.
func (t trackedSecrets) Apply(ctx context.Context, secret *corev1.Secret, force bool) (*corev1.Secret, error) {
	t.versions.begin(secret.Namespace, secret.Name)
	applied, err := t.Secrets.Apply(ctx, secret, force)
	a := answer{isKnown: err == nil, isWrite: true}
	if err == nil {
		a.resourceVersion = applied.ResourceVersion
	}
	t.versions.end(secret.Namespace, secret.Name, a)
	return applied, err
}

// Annotate implements Secrets.
func (t trackedSecrets) Annotate(ctx context.Context, secret *corev1.Secret, key, value string) (*corev1.Secret, error) {
	t.versions.begin(secret.Namespace, secret.Name)
	annotated, err := t.Secrets.Annotate(ctx, secret, key, value)
	a := answer{isKnown: err == nil}
	if err == nil {
		a.resourceVersion = annotated.ResourceVersion
	}
	t.versions.end(secret.Namespace, secret.Name, a)
	return annotated, err
}

// Delete implements Secrets.
func (t trackedSecrets) Delete(ctx context.Context, namespace, name string, uid types.UID, resourceVersion string) error {
	t.versions.begin(namespace, name)
	err := t.Secrets.Delete(ctx, namespace, name, uid, resourceVersion)
	t.versions.end(namespace, name, answer{isKnown: err == nil || apierrors.IsNotFound(err)})
	return err
}
