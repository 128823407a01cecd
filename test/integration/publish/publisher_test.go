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

// publish makes one attempt with the edge's account.
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

func TestSecretIsCreatedLeftUnchangedAndRepaired(t *testing.T) {
	e := newEdge(t)
	now := time.Now()
	first, second := e.bundle(now, 24*time.Hour), e.bundle(now, 48*time.Hour)

	out := e.mustPublish(first)
	assert.Equal(t, publish.Published, out.Result)
	assert.Equal(t, publish.CauseAbsent, out.Cause)
	created := e.secret()
	assert.True(t, e.assertComplete(created))
	assert.Equal(t, corev1.SecretTypeTLS, created.Type)

	out = e.mustPublish(second)
	assert.Equal(t, publish.Unchanged, out.Result)
	assert.Equal(t, created.ResourceVersion, e.secret().ResourceVersion, "nothing is written while it is good and not due")

	for name, change := range map[string]func(*corev1.Secret){
		"a key":             func(s *corev1.Secret) { s.Data["tls.key"] = e.bundle(now, time.Hour).Key() },
		"a certificate":     func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("none") },
		"the roots":         func(s *corev1.Secret) { s.Data["root-cert.pem"] = nil },
		"an annotation":     func(s *corev1.Secret) { s.Annotations[serialKey] = "1" },
		"an additional key": func(s *corev1.Secret) { s.Data["ca.crt"], s.Data["mine"] = nil, []byte("kept") },
	} {
		t.Run("is repaired after kubectl edit changed "+name, func(t *testing.T) {
			e.edit(change)
			out := e.mustPublish(second)
			assert.Equal(t, publish.Published, out.Result)
			assert.Equal(t, 1, out.Conflicts, "one conflict with the field manager of the edit")
			assert.True(t, e.assertComplete(e.secret()))
		})
	}
	assert.Equal(t, "kept", string(e.secret().Data["mine"]), "keys of others stay")

	e.remove()
	out = e.mustPublish(second)
	assert.Equal(t, publish.Published, out.Result)
	assert.True(t, e.assertComplete(e.secret()))
	assert.NotEqual(t, created.UID, e.secret().UID)
}

func TestSecretIsRefused(t *testing.T) {
	yes := true
	foreign := func(s *corev1.Secret) { s.Labels = map[string]string{"app.kubernetes.io/managed-by": "Helm"} }
	managed := func(s *corev1.Secret) { s.Labels = map[string]string{"app.kubernetes.io/managed-by": "isthmus"} }
	for name, test := range map[string]struct {
		change func(e *edge, s *corev1.Secret)
		result publish.Result
		err    string
	}{
		"if it is foreign, expect how to adopt it": {func(_ *edge, s *corev1.Secret) { foreign(s) }, publish.RefusedForeign,
			`/istio-certs (type Opaque) is not managed by Isthmus: app.kubernetes.io/managed-by is "Helm"; annotate it isthmus.dev/adopt: "true"`},
		"if it is immutable, expect that": {func(_ *edge, s *corev1.Secret) {
			managed(s)
			s.Immutable = &yes
		}, publish.RefusedImmutable, "/istio-certs is immutable"},
		"if it holds another edge's certificate, expect its identity": {func(e *edge, s *corev1.Secret) {
			managed(s)
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
			assert.Equal(t, before, e.secret(), "the Secret is unchanged")
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
	assert.True(t, e.assertComplete(adopted))
	assert.Equal(t, corev1.SecretTypeOpaque, adopted.Type, "the type of a Secret is immutable")
	assert.Equal(t, "x", string(adopted.Data["password"]))
}

// The publisher relies on this behaviour, which is not documented.
func TestApplyConflictsByUIDAndResourceVersion(t *testing.T) {
	e := newEdge(t)
	ctx, client := t.Context(), e.client()
	apply := func(uid, version string) error {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: secretName, ResourceVersion: version}}
		s.UID, s.Data = types.UID(uid), map[string][]byte{"n": []byte(time.Now().String())}
		_, err := client.Apply(ctx, s, true)
		return err
	}
	isConflict := apierrors.IsConflict

	assert.True(t, isConflict(apply("gone", "1")), "an apply with a UID does not create")
	require.NoError(t, apply("", "1"), "an apply with a resourceVersion creates, and needs access to this name only")
	assert.True(t, isConflict(apply("", "1")), "the second of two first applies conflicts")
	first := e.secret()
	require.NoError(t, apply(string(first.UID), first.ResourceVersion))
	assert.True(t, isConflict(apply(string(first.UID), first.ResourceVersion)), "an old resourceVersion conflicts, even when forced")
	last := e.secret()
	e.remove()
	require.NoError(t, apply("", "1"))
	assert.True(t, isConflict(apply(string(last.UID), last.ResourceVersion)), "another Secret of that name conflicts")

	other, err := kubernetes.NewForConfig(e.account)
	require.NoError(t, err)
	_, err = other.CoreV1().Secrets(e.namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretName}}, metav1.CreateOptions{})
	assert.True(t, apierrors.IsForbidden(err), "a POST has no name to authorize: %v", err)
	_, err = client.Apply(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: "another"}}, false)
	assert.True(t, apierrors.IsForbidden(err), "another name: %v", err)
}

func TestDeleteConflictsWithAChangedSecret(t *testing.T) {
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

// Fifty replicas publish at once when there is no Secret, and then rotate one after the
// other, ten times.
func TestFiftyPublishersWriteOncePerRotation(t *testing.T) {
	const replicas, rotations, day = 50, 10, 24 * time.Hour
	e := newEdge(t)
	h := e.watch()
	var now atomic.Pointer[time.Time]
	set := func(at time.Time) { now.Store(&at) }
	set(time.Now())
	p := &publish.Publisher{Secrets: e.client(), Now: func() time.Time { return *now.Load() }}
	bundles := make([]*certs.Bundle, replicas)
	var conflicts atomic.Int64
	publishAll := func() {
		var ended sync.WaitGroup
		for _, b := range bundles {
			ended.Go(func() {
				out, err := p.Publish(t.Context(), e.target(), b, publish.WhenDue)
				assert.NoError(t, err)
				conflicts.Add(int64(out.Conflicts))
			})
		}
		ended.Wait()
	}
	// Once the watch has the last version, it has all versions before it.
	serials := map[string]bool{}
	awaitHistory := func() {
		serial := e.secret().Annotations[serialKey]
		serials[serial] = true
		h.await(t, serial)
	}
	for i := range bundles {
		bundles[i] = e.bundle(*now.Load(), day+time.Duration(i)*time.Second)
	}
	publishAll()
	awaitHistory()
	require.Len(t, h.all(), 1, "fifty first publications make one write")
	for rotation := 1; rotation <= rotations; rotation++ {
		set(now.Load().Add(day / 2))
		publishAll()
		for i := range bundles {
			set(now.Load().Add(time.Second))
			bundles[i] = e.bundle(*now.Load(), day)
			if i%25 == 0 {
				publishAll() // some have the next one and some do not
			}
		}
		publishAll()
		awaitHistory()
		require.Len(t, h.all(), 1+rotation, "writes after %d rotations", rotation)
	}
	assert.Len(t, serials, 1+rotations)
	for _, version := range h.all() {
		e.assertComplete(version)
	}
	t.Logf("%d conflicts on the way", conflicts.Load())
}

func TestFailuresOfTheAPIServerLeaveTheSecretUnchanged(t *testing.T) {
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
	assert.Equal(t, publish.Unchanged, out.Result, "but the Secret is written once")
	h.await(t, next.Serial())
	assert.Len(t, h.all(), 1)
	assert.True(t, e.assertComplete(e.secret()))
}

// faults makes the requests with a method fail, before they are sent or after they were
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
	return nil, errors.New("connection lost")
}
