package controller

import (
	"container/heap"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// simulation runs the decisions of the controller in virtual time. Decisions, backoff,
// spreading and publishing are the controller's own code. The queue, the workers, the
// API server and the certificate authority are models.
type simulation struct {
	tb     testing.TB
	model  model
	now    time.Time
	random func() float64
	// isSpread is false to show what happens without spreading.
	isSpread bool

	rules      rules
	mesh       map[string]meshSettings
	namespaces []*simulatedNamespace
	backoff    backoff
	// known is the number of Secrets that the present leader has checked, and started
	// that of its namespaces.
	known, started int

	agenda  agenda
	added   int
	ready   []*simulatedNamespace
	working int
	// clientNext and serverNext are when client and API server take the next request,
	// and calls when each of the authority's slots is free.
	clientNext, serverNext time.Time
	calls                  []time.Time

	signer      *certtest.Pair
	roots       []*x509.Certificate
	rootVersion int
	// outage is when the authority answers again; zero while it does.
	outage time.Time
	// issued are the certificates of one second.
	issued map[int64]*certs.Bundle
	count  counts
}

// simulatedNamespace is an edge namespace, and its place in the queue.
type simulatedNamespace struct {
	name    string
	secrets []*simulatedSecret
	events  events.Once
	scanned time.Time
	isKnown bool
	// waits is true after its last request to the authority failed.
	waits bool
	// queued, processing and dirty are as in client-go's queue; delayed is when it is
	// added again.
	queued, processing, dirty bool
	delayed                   time.Time
}

// simulatedSecret is a Secret in the API server, with what the leader remembers of it.
type simulatedSecret struct {
	name   string
	claims []claim
	state  secretState
	secret *corev1.Secret
	// writes are those of the present phase.
	writes int
	// seen is the last observation of a good Secret, for these roots.
	seen        publish.Observation
	seenVersion int
}

// newSimulation returns a simulation at noon, without any Secret. One of nudgedEvery
// namespaces has an edge that is nudged.
func newSimulation(tb testing.TB, m model, secrets, namespaces, nudgedEvery int, isSpread bool) *simulation {
	random := rand.New(rand.NewPCG(1, 2)).Float64
	root := certtest.NewAuthority(tb, certtest.Validity(noon.Add(-time.Hour), noon.Add(1000*time.Hour)))
	s := &simulation{
		tb: tb, rules: testRules(), mesh: defaultMesh(), model: m, now: noon, random: random, isSpread: isSpread, calls: make([]time.Time, m.Calls),
		signer: root, roots: []*x509.Certificate{root.Certificate}, issued: map[int64]*certs.Bundle{},
	}
	if !isSpread {
		s.random = middle
	}
	for i := range namespaces {
		ns := &simulatedNamespace{name: fmt.Sprintf("edge-%d", i)}
		for j := i * secrets / namespaces; j < (i+1)*secrets/namespaces; j++ {
			name := fmt.Sprintf("istio-certs-%d", len(ns.secrets))
			c := podClaim("front", "emissary", time.Hour)
			// All edges need a new certificate after new roots.
			c.options.SecretName, c.options.Delivery = name, policy.DeliverySecret
			c.secret = patches.SecretFacts{IgnoresRoots: true, MissesChanges: i%nudgedEvery == 0}
			ns.secrets = append(ns.secrets, &simulatedSecret{name: name, claims: []claim{c}})
		}
		s.namespaces = append(s.namespaces, ns)
	}
	s.lead()
	return s
}

// lead has a new leader begin, which remembers nothing.
func (s *simulation) lead() {
	s.backoff = newBackoff(func() time.Duration { return s.checkInterval() / 2 }, s.lifeLeft, s.random)
	s.known, s.started = 0, 0
	for _, ns := range s.namespaces {
		ns.isKnown, ns.scanned, ns.waits = false, time.Time{}, false
		ns.events = events.NewOnce(func(events.Event) { s.request(s.now, eventRequest) })
		for _, secret := range ns.secrets {
			secret.state = secretState{}
		}
	}
}

// requeueAll adds every namespace to the queue, as new roots and a new leader do.
func (s *simulation) requeueAll() {
	for _, ns := range s.namespaces {
		s.add(ns)
	}
}

func (s *simulation) checkInterval() time.Duration {
	return stretchInterval(DefaultCheckInterval, s.known)
}

func (s *simulation) scanInterval() time.Duration {
	return stretchInterval(DefaultScanInterval, s.started)
}

func (s *simulation) leafSpread() time.Duration {
	if !s.isSpread {
		return 0
	}
	return spreadLeaves(s.known)
}

func (s *simulation) lifeLeft(name string) time.Duration {
	i, err := strconv.Atoi(name[len("edge-"):])
	require.NoError(s.tb, err)
	first := time.Duration(0)
	for _, secret := range s.namespaces[i].secrets {
		if left := secret.state.lifeLeft(s.now); left > 0 && (first == 0 || left < first) {
			first = left
		}
	}
	return first
}

// reconcile reconciles a namespace from a time on. It returns when that ends, and the
// wait until the next time.
func (s *simulation) reconcile(ns *simulatedNamespace, at time.Time) (end time.Time, wait time.Duration) {
	w := &worker{simulation: s, at: at}
	if !ns.isKnown {
		ns.isKnown = true
		s.started++
	}
	if isScanDue(ns.scanned, s.scanInterval(), w.at) {
		w.call(listRequest)
		ns.scanned = scanTime(ns.scanned.IsZero(), s.scanInterval(), w.at, s.random)
	}
	var checks []time.Time
	var errs []error
	for _, secret := range ns.secrets {
		if !secret.state.isKnown() {
			s.known++
		}
		d := w.check(ns, secret)
		checks, errs = append(checks, d.next, w.nudge(secret)), append(errs, d.err)
	}
	request := ctrl.Request{NamespacedName: types.NamespacedName{Name: ns.name}}
	if errors.Join(errs...) != nil {
		return w.at, s.backoff.When(request)
	}
	s.backoff.Forget(request)
	return w.at, nextReconciliation(ns.scanned, s.scanInterval(), checks, w.at, s.random)
}

// worker is one of the controller's workers. It has its own time, since it waits for
// answers.
type worker struct {
	*simulation
	at time.Time
}

// call sends a request to the API server and waits for the answer.
func (w *worker) call(kind requestKind) { w.at = w.request(w.at, kind) }

func (w *worker) check(ns *simulatedNamespace, secret *simulatedSecret) secretDecision {
	w.call(getRequest)
	o := secretObservation{
		namespace: "edge", name: secret.name, secret: secret.secret, claims: secret.claims, roots: w.roots, mesh: w.mesh,
		interval: w.checkInterval(), leafSpread: w.leafSpread(),
		inspect: func(t publish.Target, now time.Time) publish.Observation { return w.inspect(secret, t, now) },
	}
	return takeSecretSteps(decideSecret(o, secret.state, w.rules, w.at, w.random), secretSteps{
		now: func() time.Time { return w.at }, random: w.random,
		apply: func(d secretDecision) {
			secret.state = d.state
			for _, change := range d.effects.events {
				if change.isResolved {
					ns.events.Resolve(change.Regarding, change.Reason)
				} else {
					ns.events.Record(change.Event)
				}
			}
		},
		issue: func(d secretDecision) (*certs.Bundle, error) {
			b, err := w.issue(d)
			ns.waits = err != nil
			return b, err
		},
		publish: func(d secretDecision) (publish.Outcome, error) {
			p := publish.Publisher{Secrets: &simulatedStore{w, secret}, Now: func() time.Time { return w.at }, RenewBy: d.renewBy}
			outcome, err := p.Publish(context.Background(), d.target, d.bundle, d.rule)
			if outcome.Result == publish.Published {
				secret.seen, secret.seenVersion = outcome.Observation, w.rootVersion
			}
			return outcome, err
		},
		remove: func(secretDecision) error { return nil },
	})
}

// nudge nudges a Secret when that is due, and returns the time of the next nudge.
func (w *worker) nudge(secret *simulatedSecret) time.Time {
	state := &secret.state
	if state.state != publish.Good || !needsNudges(state.account, secret.claims) {
		return time.Time{}
	}
	d := decideNudge(state.published, latest(state.nudged, state.nudgeTried), w.at)
	if d.isDue {
		state.nudgeTried = w.at
		w.call(getRequest)
		w.call(nudgeRequest)
		secret.seen.Nudged = w.at
	}
	return d.next
}

// inspect inspects a Secret whenever its content, the roots or its validity changed.
func (s *simulation) inspect(secret *simulatedSecret, t publish.Target, now time.Time) publish.Observation {
	if b := secret.seen.Bundle; b != nil && secret.seenVersion == s.rootVersion && now.Before(b.UsefulUntil()) {
		return secret.seen
	}
	o := publish.Inspect(secret.secret, t, now)
	if o.State == publish.Good {
		secret.seen, secret.seenVersion = o, s.rootVersion
	}
	return o
}

var errOutage = errors.New("unavailable: the authority does not answer")

// issue requests a certificate. Without a connection the source makes neither token nor
// call.
func (w *worker) issue(d secretDecision) (*certs.Bundle, error) {
	if w.at.Before(w.outage) {
		return nil, errOutage
	}
	w.call(tokenRequest)
	w.at = w.sign(w.at)
	// The certificates of one second are the same: the controller knows nothing of keys.
	second := w.at.Unix()
	if b, ok := w.issued[second]; ok {
		return b, nil
	}
	from := time.Unix(second, 0)
	leaf := w.signer.SPIFFELeaf(w.tb, d.request.Want.ID.String(), certtest.Validity(from.Add(-2*time.Minute), from.Add(d.request.TTL)))
	want := d.request.Want
	want.Now = w.at
	b, err := certs.New(certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM}, want)
	if err == nil {
		w.issued[second] = b
	}
	return b, err
}

// simulatedStore is the API server for the publisher of one Secret.
type simulatedStore struct {
	*worker
	*simulatedSecret
}

func (s *simulatedStore) Get(context.Context, string, string) (*corev1.Secret, error) {
	if s.secret == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), s.name)
	}
	return s.secret, nil // the one that was read
}

func (s *simulatedStore) Apply(_ context.Context, secret *corev1.Secret, _ bool) (*corev1.Secret, error) {
	s.call(applyRequest)
	applied := secret.DeepCopy()
	applied.UID, applied.ResourceVersion = "1", strconv.Itoa(s.writes)
	if b := s.seen.Bundle; b != nil {
		s.count.noteReplacement(b, applied, s.at)
	}
	s.secret = applied
	s.writes++
	return applied, nil
}

// run runs the simulation until a time.
func (s *simulation) run(until time.Time) {
	for len(s.agenda) > 0 && s.agenda[0].at.Before(until) {
		next, ok := heap.Pop(&s.agenda).(appointment)
		require.True(s.tb, ok)
		s.now = next.at
		next.do()
	}
	s.now = until
}

// schedule has something done at a time.
func (s *simulation) schedule(at time.Time, do func()) {
	s.added++
	heap.Push(&s.agenda, appointment{at, s.added, do})
}

// add adds a namespace to the queue.
func (s *simulation) add(ns *simulatedNamespace) {
	switch {
	case ns.processing:
		ns.dirty = true
	case !ns.queued:
		ns.queued = true
		s.ready = append(s.ready, ns)
		s.work()
	}
}

// addAfter adds it later, or earlier than planned.
func (s *simulation) addAfter(ns *simulatedNamespace, at time.Time) {
	if !ns.delayed.IsZero() && !at.Before(ns.delayed) {
		return
	}
	ns.delayed = at
	s.schedule(at, func() {
		if ns.delayed.Equal(at) {
			ns.delayed = time.Time{}
			s.add(ns)
		}
	})
}

// work has idle workers take namespaces from the queue.
func (s *simulation) work() {
	for s.working < concurrency && len(s.ready) > 0 {
		ns := s.ready[0]
		s.ready = s.ready[1:]
		ns.queued, ns.processing = false, true
		s.working++
		end, wait := s.reconcile(ns, s.now)
		s.schedule(end, func() {
			s.working--
			ns.processing = false
			s.addAfter(ns, end.Add(wait))
			if ns.dirty {
				ns.dirty = false
				s.add(ns)
			}
			s.work()
		})
	}
}

// appointment is something that happens at a time; of several, the first that was made.
type appointment struct {
	at    time.Time
	order int
	do    func()
}

type agenda []appointment

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at.Before(a[j].at) || a[i].at.Equal(a[j].at) && a[i].order < a[j].order
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(appointment)) }
func (a *agenda) Pop() any {
	old := *a
	last := old[len(old)-1]
	*a = old[:len(old)-1]
	return last
}
