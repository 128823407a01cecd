package publish

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
)

func reasonOf(err error) metav1.StatusReason { return apierrors.ReasonForError(err) }

// publish makes one attempt with the rights of the edge's account.
func (e *edge) publish(b *certs.Bundle) (publish.Outcome, error) {
	e.t.Helper()
	p := &publish.Publisher{Secrets: e.client()}
	return p.Publish(e.t.Context(), e.target(), b, publish.WhenDue)
}

func (e *edge) mustPublish(b *certs.Bundle) publish.Outcome {
	e.t.Helper()
	out, err := e.publish(b)
	require.NoError(e.t, err)
	return out
}

func TestSecretIsCreatedKeptAndHealed(t *testing.T) {
	e := newEdge(t)
	now := time.Now()
	first, second := e.bundle(now, 24*time.Hour), e.bundle(now, 48*time.Hour)

	out := e.mustPublish(first)
	assert.Equal(t, publish.Published, out.Result)
	assert.Equal(t, publish.CauseAbsent, out.Cause)
	created := e.secret()
	assert.True(t, e.whole(created))
	assert.Equal(t, corev1.SecretTypeTLS, created.Type)

	out = e.mustPublish(second)
	assert.Equal(t, publish.Unchanged, out.Result)
	assert.Equal(t, created.ResourceVersion, e.secret().ResourceVersion, "good and not due: nothing is written")

	for name, change := range map[string]func(*corev1.Secret){
		"a key":         func(s *corev1.Secret) { s.Data["tls.key"] = e.bundle(now, time.Hour).Key() },
		"a certificate": func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("none") },
		"the roots":     func(s *corev1.Secret) { s.Data["root-cert.pem"] = nil },
		"an annotation": func(s *corev1.Secret) { s.Annotations[serialKey] = "1" },
		"a file more":   func(s *corev1.Secret) { s.Data["ca.crt"], s.Data["mine"] = nil, []byte("kept") },
	} {
		t.Run("heals after kubectl edit changed "+name, func(t *testing.T) {
			e.edit(change)
			out := e.mustPublish(second)
			assert.Equal(t, publish.Published, out.Result)
			assert.Equal(t, 1, out.Conflicts, "the field manager of the edit is in the way once")
			assert.True(t, e.whole(e.secret()))
		})
	}
	assert.Equal(t, "kept", string(e.secret().Data["mine"]), "what is someone else's stays")

	e.remove()
	out = e.mustPublish(second)
	assert.Equal(t, publish.Published, out.Result)
	assert.True(t, e.whole(e.secret()))
	assert.NotEqual(t, created.UID, e.secret().UID)
}

func TestSecretIsRefused(t *testing.T) {
	yes := true
	foreign := func(s *corev1.Secret) { s.Labels = map[string]string{"app.kubernetes.io/managed-by": "Helm"} }
	ours := func(s *corev1.Secret) { s.Labels = map[string]string{"app.kubernetes.io/managed-by": "isthmus"} }
	for name, test := range map[string]struct {
		change func(e *edge, s *corev1.Secret)
		result publish.Result
		err    string
	}{
		"if it is foreign, expect how to adopt it": {func(_ *edge, s *corev1.Secret) { foreign(s) }, publish.RefusedForeign,
			`/istio-certs (type Opaque) is not managed by Isthmus: app.kubernetes.io/managed-by is "Helm"; annotate it isthmus.dev/adopt: "true"`},
		"if it is immutable, expect that": {func(_ *edge, s *corev1.Secret) {
			ours(s)
			s.Immutable = &yes
		}, publish.RefusedImmutable, "/istio-certs is immutable"},
		"if another edge's is in it, expect its identity": {func(e *edge, s *corev1.Secret) {
			ours(s)
			id, err := certs.Identity(trustDomain, e.namespace, "other")
			require.NoError(e.t, err)
			b := e.bundleFor(id, time.Now(), time.Hour)
			s.Data = map[string][]byte{"tls.crt": b.Chain(), "tls.key": b.Key()}
		}, publish.RefusedIdentity, "/sa/other that is valid until "},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t)
			before := e.create(func(s *corev1.Secret) { test.change(e, s) })
			for range 2 {
				out, err := e.publish(e.bundle(time.Now(), time.Hour))
				assert.Equal(t, test.result, out.Result)
				assert.ErrorContains(t, err, "secret "+e.namespace)
				assert.ErrorContains(t, err, test.err)
			}
			assert.Equal(t, before, e.secret(), "nothing of it has changed")
		})
	}
}

func TestForeignSecretIsAdopted(t *testing.T) {
	e := newEdge(t)
	e.create(func(s *corev1.Secret) { s.Labels = map[string]string{"app.kubernetes.io/managed-by": "Helm"} })
	e.edit(func(s *corev1.Secret) { s.Annotations = map[string]string{adoptKey: "true"} })
	out := e.mustPublish(e.bundle(time.Now(), time.Hour))
	assert.Equal(t, publish.Published, out.Result)
	adopted := e.secret()
	assert.True(t, e.whole(adopted))
	assert.Equal(t, corev1.SecretTypeOpaque, adopted.Type, "nobody can change it")
	assert.Equal(t, "x", string(adopted.Data["password"]))
}

// What the publisher relies on and no document says.
func TestApplyOfTheAPIServer(t *testing.T) {
	e := newEdge(t)
	ctx, client := t.Context(), e.client()
	apply := func(uid, version string) error {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: secretName, ResourceVersion: version}}
		s.UID, s.Data = types.UID(uid), map[string][]byte{"n": []byte(time.Now().String())}
		_, err := client.Apply(ctx, s, true)
		return err
	}
	conflicts := apierrors.IsConflict

	assert.True(t, conflicts(apply("gone", "1")), "a UID keeps an apply from creating")
	require.NoError(t, apply("", "1"), "a version does not, and the account needs no more than its name")
	assert.True(t, conflicts(apply("", "1")), "so the second of two first applies conflicts")
	first := e.secret()
	require.NoError(t, apply(string(first.UID), first.ResourceVersion))
	assert.True(t, conflicts(apply(string(first.UID), first.ResourceVersion)), "a version that is over conflicts, forced or not")
	last := e.secret()
	e.remove()
	require.NoError(t, apply("", "1"))
	assert.True(t, conflicts(apply(string(last.UID), last.ResourceVersion)), "another Secret of the name conflicts")

	other, err := kubernetes.NewForConfig(e.account)
	require.NoError(t, err)
	_, err = other.CoreV1().Secrets(e.namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretName}}, metav1.CreateOptions{})
	assert.True(t, apierrors.IsForbidden(err), "a POST has no name to be authorised by: %v", err)
	_, err = client.Apply(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: "another"}}, false)
	assert.True(t, apierrors.IsForbidden(err), "another name: %v", err)
}

func TestDeleteTakesOnlyWhatItSaw(t *testing.T) {
	e := newEdge(t)
	e.mustPublish(e.bundle(time.Now(), time.Hour))
	client, err := publish.NewClient(admin)
	require.NoError(t, err)
	seen := e.secret()
	e.edit(func(s *corev1.Secret) { s.Annotations["note"] = "changed since" })
	assert.True(t, apierrors.IsConflict(client.Delete(t.Context(), e.namespace, secretName, seen.UID, seen.ResourceVersion)))
	changed := e.secret()
	assert.True(t, apierrors.IsConflict(client.Delete(t.Context(), e.namespace, secretName, "another", changed.ResourceVersion)))
	require.NoError(t, client.Delete(t.Context(), e.namespace, secretName, changed.UID, changed.ResourceVersion))
	assert.True(t, apierrors.IsNotFound(client.Delete(t.Context(), e.namespace, secretName, changed.UID, changed.ResourceVersion)))
}

// Fifty replicas find no Secret at once, and rotate one after the other ten times.
func TestFiftyPublishersWriteOncePerRotation(t *testing.T) {
	const replicas, rotations, day = 50, 10, 24 * time.Hour
	e := newEdge(t)
	h := e.watch()
	var now atomic.Pointer[time.Time]
	set := func(at time.Time) { now.Store(&at) }
	set(time.Now())
	p := &publish.Publisher{Secrets: e.client(), Now: func() time.Time { return *now.Load() }}
	held := make([]*certs.Bundle, replicas)
	var conflicts atomic.Int64
	all := func() {
		var ended sync.WaitGroup
		for _, b := range held {
			ended.Go(func() {
				out, err := p.Publish(t.Context(), e.target(), b, publish.WhenDue)
				assert.NoError(t, err)
				conflicts.Add(int64(out.Conflicts))
			})
		}
		ended.Wait()
	}
	// The last version shows that the watch has seen all before it.
	serials := map[string]bool{}
	sync := func() {
		serial := e.secret().Annotations[serialKey]
		serials[serial] = true
		h.await(t, serial)
	}
	for i := range held {
		held[i] = e.bundle(*now.Load(), day+time.Duration(i)*time.Second)
	}
	all()
	sync()
	require.Len(t, h.all(), 1, "fifty first publications are one")
	for rotation := 1; rotation <= rotations; rotation++ {
		set(now.Load().Add(day / 2))
		all()
		for i := range held {
			set(now.Load().Add(time.Second))
			held[i] = e.bundle(*now.Load(), day)
			if i%25 == 0 {
				all() // some have the next one and some do not
			}
		}
		all()
		sync()
		require.Len(t, h.all(), 1+rotation, "writes after %d rotations", rotation)
	}
	assert.Len(t, serials, 1+rotations)
	for _, version := range h.all() {
		e.whole(version)
	}
	t.Logf("%d conflicts on the way", conflicts.Load())
}

func TestFailuresOfTheAPIServerLeaveTheOldOne(t *testing.T) {
	e := newEdge(t)
	now := time.Now()
	e.mustPublish(e.bundle(now, 24*time.Hour))
	before := e.secret()
	h := e.watch()
	next := e.bundle(now.Add(12*time.Hour), 24*time.Hour)
	attempt := func(f *faults) (publish.Outcome, error) {
		client, err := publish.NewClient(f.config(e.account))
		require.NoError(t, err)
		p := &publish.Publisher{Secrets: client, Now: func() time.Time { return now.Add(12 * time.Hour) }}
		return p.Publish(t.Context(), e.target(), next, publish.WhenDue)
	}
	for name, f := range map[string]*faults{
		"read": {method: http.MethodGet}, "write": {method: http.MethodPatch}, "write 500": {method: http.MethodPatch, status: http.StatusInternalServerError},
	} {
		out, err := attempt(f)
		assert.ErrorContains(t, err, " secret "+e.namespace+"/istio-certs: ", name)
		assert.Equal(t, publish.Failed, out.Result, name)
		assert.Equal(t, before, e.secret(), name)
	}

	out, err := attempt(&faults{method: http.MethodPatch, after: true})
	assert.ErrorContains(t, err, "write secret ", "the answer to the write was lost")
	assert.Equal(t, publish.Failed, out.Result)
	out, err = attempt(&faults{})
	require.NoError(t, err)
	assert.Equal(t, publish.Unchanged, out.Result, "and yet it is written once")
	h.await(t, next.Serial())
	assert.Len(t, h.all(), 1)
	assert.True(t, e.whole(e.secret()))
}

// faults fails the requests of a method, before they are sent or after they were
// answered.
type faults struct {
	method string
	status int
	after  bool
	base   http.RoundTripper
}

func (f *faults) config(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.Wrap(func(base http.RoundTripper) http.RoundTripper {
		f.base = base
		return f
	})
	return c
}

func (f *faults) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != f.method {
		return f.base.RoundTrip(r)
	}
	if f.status != 0 {
		return &http.Response{StatusCode: f.status, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
	}
	if f.after {
		response, err := f.base.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		_ = response.Body.Close()
	}
	return nil, errors.New("the line is cut")
}
