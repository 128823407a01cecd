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

// load creates pods and ConfigMaps, which the two configurations send to the replicas,
// until stop, and records every error.
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

// rotationFailsNoReview rotates through four authorities, and restarts a rotator and a
// replica, while pods are created.
func rotationFailsNoReview(t *testing.T) {
	s := newService(t)
	i := install(t, s.listener.Addr().String())
	short := lifetimes{ca: 24 * time.Second, leaf: 6 * time.Second, delay: 2 * time.Second}
	stopRotator := i.startRotator(t, short)
	first, second := i.startReplica(t, short), i.startReplica(t, short)
	s.setEndpoints(first, second)
	requireReady(t, first, second)
	i.requireBundleInWebhooks()

	l := i.load()
	authorities := map[string]bool{}
	phases := map[string]bool{}
	i.waitForSecret(time.Minute, func(secret *corev1.Secret) bool {
		authorities[string(secret.Data[corev1.TLSCertKey])] = true
		phases[secret.Annotations[serving.PhaseAnnotation]] = true
		return len(authorities) >= 4 && secret.Annotations[serving.PhaseAnnotation] == "stable"
	})

	// A replica and the rotator restart while the next CA is announced.
	i.waitForSecret(time.Minute, func(secret *corev1.Secret) bool {
		return secret.Annotations[serving.PhaseAnnotation] == "announced"
	})
	stopRotator()
	i.startRotator(t, short)
	s.setEndpoints(second)
	first.stop()
	third := i.startReplica(t, short)
	requireReady(t, third)
	s.setEndpoints(second, third)

	// The Secret is emptied.
	before := i.secret().Data[corev1.TLSCertKey]
	_, err := i.admin.CoreV1().Secrets(i.namespace).Patch(t.Context(), secretName, types.JSONPatchType,
		[]byte(`[{"op":"remove","path":"/data"}]`), metav1.PatchOptions{})
	require.NoError(t, err)
	i.waitForSecret(time.Minute, func(secret *corev1.Secret) bool {
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
	stopRotator := i.startRotator(t, lifetimes{})
	r := i.startReplica(t, lifetimes{})
	s.setEndpoints(r)
	requireReady(t, r)
	installed := i.mutatingConfiguration()
	require.NoError(t, i.createPod())

	t.Run("repaired after a change", func(t *testing.T) {
		_, err := i.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), i.configuration, types.JSONPatchType,
			[]byte(`[{"op":"replace","path":"/webhooks/1/clientConfig/caBundle","value":""}]`), metav1.PatchOptions{})
		require.NoError(t, err)
		i.requireBundleInWebhooks()
		assert.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, i.createPod()) }, 10*time.Second, 20*time.Millisecond)
		now := i.mutatingConfiguration()
		assert.Equal(t, installed.Labels, now.Labels)
		for n := range now.Webhooks {
			now.Webhooks[n].ClientConfig.CABundle = installed.Webhooks[n].ClientConfig.CABundle
		}
		assert.Equal(t, installed.Webhooks, now.Webhooks, "nothing else changed")
	})

	t.Run("repaired in the validating configuration", func(t *testing.T) {
		before := i.validatingConfiguration()
		_, err := i.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(t.Context(), i.configuration, types.JSONPatchType,
			[]byte(`[{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":""}]`), metav1.PatchOptions{})
		require.NoError(t, err)
		i.requireBundleInWebhooks()
		now := i.validatingConfiguration()
		assert.Equal(t, before.Labels, now.Labels)
		assert.Equal(t, before.Webhooks, now.Webhooks, "nothing else changed")
		assert.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, i.createConfigMap()) }, 10*time.Second, 20*time.Millisecond)
	})

	t.Run("written when the validating configuration is created again, and not needed meanwhile", func(t *testing.T) {
		require.NoError(t, i.admin.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(t.Context(), i.configuration, metav1.DeleteOptions{}))
		assert.NoError(t, i.createPod())
		assert.NoError(t, r.source.Ready())
		i.createValidatingConfiguration(s.listener.Addr().String())
		i.requireBundleInWebhooks()
	})

	t.Run("written when the configuration is created again", func(t *testing.T) {
		require.NoError(t, i.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(t.Context(), i.configuration, metav1.DeleteOptions{}))
		require.Eventually(t, func() bool { return r.source.Ready() != nil }, 10*time.Second, 20*time.Millisecond)
		assert.EqualError(t, r.source.Ready(), `mutatingwebhookconfiguration "`+i.configuration+`" does not exist`)
		i.createMutatingConfiguration(s.listener.Addr().String())
		i.requireBundleInWebhooks()
		requireReady(t, r)
	})

	t.Run("not written when it is correct", func(t *testing.T) {
		i.requireBundleInWebhooks()
		mutating, validating, second := i.mutatingConfiguration(), i.validatingConfiguration(), i.startReplica(t, lifetimes{})
		i.startRotator(t, lifetimes{})
		s.setEndpoints(r, second)
		requireReady(t, second)
		assert.Equal(t, mutating.ResourceVersion, i.mutatingConfiguration().ResourceVersion, "a replica and a rotator that start write nothing")
		assert.Equal(t, validating.ResourceVersion, i.validatingConfiguration().ResourceVersion)
	})

	t.Run("used without a rotator", func(t *testing.T) {
		stopRotator()
		third := i.startReplica(t, lifetimes{})
		s.setEndpoints(third)
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

// waitForSecret reads the Secret until done returns true.
func (i *installation) waitForSecret(timeout time.Duration, done func(*corev1.Secret) bool) {
	i.t.Helper()
	require.Eventually(i.t, func() bool { return done(i.secret()) }, timeout, 50*time.Millisecond)
}

func (i *installation) requireBundleInWebhooks() {
	i.t.Helper()
	require.EventuallyWithT(i.t, func(c *assert.CollectT) {
		bundle := i.secret().Data[serving.BundleKey]
		require.NotEmpty(c, bundle)
		for _, webhook := range i.mutatingConfiguration().Webhooks {
			assert.Equal(c, string(bundle), string(webhook.ClientConfig.CABundle))
		}
		for _, webhook := range i.validatingConfiguration().Webhooks {
			assert.Equal(c, string(bundle), string(webhook.ClientConfig.CABundle))
		}
	}, 10*time.Second, 20*time.Millisecond)
}
