package servingcert

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/webhook/serving"
)

const workers = 16

// load creates pods, and what the validating configuration sends, until stop, and
// remembers every error.
type load struct {
	created atomic.Int64
	mu      sync.Mutex
	errors  []string
	cancel  context.CancelFunc
	ended   sync.WaitGroup
}

func (i *installation) load() *load {
	ctx, cancel := context.WithCancel(i.t.Context())
	l := &load{cancel: cancel}
	for n := range workers {
		create := i.createPod
		if n%4 == 3 {
			create = i.createConfigMap
		}
		l.ended.Go(func() {
			for ctx.Err() == nil {
				if err := create(); err != nil {
					l.mu.Lock()
					l.errors = append(l.errors, time.Now().Format("15:04:05.000 ")+err.Error())
					l.mu.Unlock()
					continue
				}
				l.created.Add(1)
			}
		})
	}
	return l
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.ended.Wait()
	if !assert.Empty(t, l.errors, "creates that failed") {
		t.Logf("%d of %d creates failed", len(l.errors), int64(len(l.errors))+l.created.Load())
	}
}

// rotationFailsNoReview goes through four authorities, keepers and replicas
// coming and going, while pods are created.
func rotationFailsNoReview(t *testing.T) {
	s := newService(t)
	i := install(t, s.listener.Addr().String())
	short := lifetimes{ca: 24 * time.Second, leaf: 6 * time.Second, delay: 2 * time.Second}
	leave := i.keep(t, short)
	first, second := i.start(t, short), i.start(t, short)
	s.set(first, second)
	requireReady(t, first, second)
	i.eventuallyCarriesBundle()

	l := i.load()
	authorities := map[string]bool{}
	phases := map[string]bool{}
	i.follow(time.Minute, func(secret *corev1.Secret) bool {
		authorities[string(secret.Data[corev1.TLSCertKey])] = true
		phases[secret.Annotations[serving.PhaseAnnotation]] = true
		return len(authorities) >= 4 && secret.Annotations[serving.PhaseAnnotation] == "stable"
	})

	// A replica restarts while the next CA is announced, and another leads.
	i.follow(time.Minute, func(secret *corev1.Secret) bool {
		return secret.Annotations[serving.PhaseAnnotation] == "announced"
	})
	leave()
	i.keep(t, short)
	s.set(second)
	first.stop()
	third := i.start(t, short)
	requireReady(t, third)
	s.set(second, third)

	// Somebody empties the Secret.
	before := i.secret().Data[corev1.TLSCertKey]
	_, err := i.admin.CoreV1().Secrets(i.namespace).Patch(t.Context(), secretName, types.JSONPatchType,
		[]byte(`[{"op":"remove","path":"/data"}]`), metav1.PatchOptions{})
	require.NoError(t, err)
	i.follow(time.Minute, func(secret *corev1.Secret) bool {
		signing := secret.Data[corev1.TLSCertKey]
		return len(signing) > 0 && !bytes.Equal(signing, before) && secret.Annotations[serving.PhaseAnnotation] == "stable"
	})
	l.stop(t)

	assert.Greater(t, l.created.Load(), int64(1000))
	for _, phase := range []string{"stable", "announced", "promoted"} { // announcing takes milliseconds
		assert.True(t, phases[phase], "phase %s was seen", phase)
	}
	for name, r := range map[string]*replica{"first": first, "second": second, "third": third} {
		leaves := 0
		r.leaves.Range(func(any, any) bool { leaves++; return true })
		assert.GreaterOrEqual(t, leaves, 2, "leaves of the %s replica", name)
		assert.Positive(t, r.reviews.Load(), "reviews of the %s replica", name)
		t.Logf("%s replica: %d reviews, %d leaves", name, r.reviews.Load(), leaves)
	}
	t.Logf("%d creates, %d authorities before the restart", l.created.Load(), len(authorities))
}

func TestCABundleIsKept(t *testing.T) {
	s := newService(t)
	i := install(t, s.listener.Addr().String())
	leave := i.keep(t, lifetimes{})
	r := i.start(t, lifetimes{})
	s.set(r)
	requireReady(t, r)
	installed := i.webhooks()
	require.NoError(t, i.createPod())

	t.Run("set right when somebody changes it", func(t *testing.T) {
		_, err := i.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), i.configuration, types.JSONPatchType,
			[]byte(`[{"op":"replace","path":"/webhooks/1/clientConfig/caBundle","value":""}]`), metav1.PatchOptions{})
		require.NoError(t, err)
		i.eventuallyCarriesBundle()
		assert.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, i.createPod()) }, 10*time.Second, 20*time.Millisecond)
		now := i.webhooks()
		assert.Equal(t, installed.Labels, now.Labels)
		for n := range now.Webhooks {
			now.Webhooks[n].ClientConfig.CABundle = installed.Webhooks[n].ClientConfig.CABundle
		}
		assert.Equal(t, installed.Webhooks, now.Webhooks, "nothing else was touched")
	})

	t.Run("set right in the validating configuration", func(t *testing.T) {
		before := i.validation()
		_, err := i.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(t.Context(), i.configuration, types.JSONPatchType,
			[]byte(`[{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":""}]`), metav1.PatchOptions{})
		require.NoError(t, err)
		i.eventuallyCarriesBundle()
		now := i.validation()
		assert.Equal(t, before.Labels, now.Labels)
		assert.Equal(t, before.Webhooks, now.Webhooks, "nothing else was touched")
		assert.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, i.createConfigMap()) }, 10*time.Second, 20*time.Millisecond)
	})

	t.Run("put in again when the validating configuration comes back, and not missed meanwhile", func(t *testing.T) {
		require.NoError(t, i.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(t.Context(), i.configuration, metav1.DeleteOptions{}))
		assert.NoError(t, i.createPod())
		assert.NoError(t, r.source.Ready())
		i.configureValidation(s.listener.Addr().String())
		i.eventuallyCarriesBundle()
	})

	t.Run("put in again when the configuration comes back", func(t *testing.T) {
		require.NoError(t, i.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(t.Context(), i.configuration, metav1.DeleteOptions{}))
		require.Eventually(t, func() bool { return r.source.Ready() != nil }, 10*time.Second, 20*time.Millisecond)
		assert.EqualError(t, r.source.Ready(), `mutatingwebhookconfiguration "`+i.configuration+`" does not exist`)
		i.configure(s.listener.Addr().String())
		i.eventuallyCarriesBundle()
		requireReady(t, r)
	})

	t.Run("not written when it is right", func(t *testing.T) {
		i.eventuallyCarriesBundle()
		first, validation, second := i.webhooks(), i.validation(), i.start(t, lifetimes{})
		i.keep(t, lifetimes{})
		s.set(r, second)
		requireReady(t, second)
		assert.Equal(t, first.ResourceVersion, i.webhooks().ResourceVersion, "a replica and a keeper that start find nothing to do")
		assert.Equal(t, validation.ResourceVersion, i.validation().ResourceVersion)
	})

	t.Run("served on while nobody keeps it", func(t *testing.T) {
		leave()
		third := i.start(t, lifetimes{})
		s.set(third)
		requireReady(t, third)
		assert.NoError(t, i.createPod())
	})
}

func requireReady(t *testing.T, replicas ...*replica) {
	t.Helper()
	for _, r := range replicas {
		require.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, r.source.Ready()) }, 30*time.Second, 20*time.Millisecond)
	}
}

// follow looks at the Secret until seen says that it saw enough.
func (i *installation) follow(patience time.Duration, seen func(*corev1.Secret) bool) {
	i.t.Helper()
	require.Eventually(i.t, func() bool { return seen(i.secret()) }, patience, 50*time.Millisecond)
}

func (i *installation) eventuallyCarriesBundle() {
	i.t.Helper()
	require.EventuallyWithT(i.t, func(c *assert.CollectT) {
		bundle := i.secret().Data[serving.BundleKey]
		require.NotEmpty(c, bundle)
		for _, webhook := range i.webhooks().Webhooks {
			assert.Equal(c, string(bundle), string(webhook.ClientConfig.CABundle))
		}
		for _, webhook := range i.validation().Webhooks {
			assert.Equal(c, string(bundle), string(webhook.ClientConfig.CABundle))
		}
	}, 10*time.Second, 20*time.Millisecond)
}
