package serving

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestNoReviewFailsThroughRotations(t *testing.T) {
	for replicas := 1; replicas <= 3; replicas++ {
		t.Run(fmt.Sprintf("%d replicas", replicas), func(t *testing.T) {
			s := newSimulation(t, 1, replicas)
			issuers := map[string]bool{}
			require.NoError(t, s.run(4*caTTL, func(int) {
				if issuer := s.replicas[0].issuer(); issuer != nil {
					issuers[issuer.root.Subject.CommonName] = true
				}
			}))
			assert.GreaterOrEqual(t, len(issuers), 5, "the CA rotates at two thirds of its life")
			for _, r := range s.replicas {
				assert.True(t, r.issuer().equal(s.replicas[0].issuer()), "all replicas sign with one CA")
			}
			assert.Equal(t, "me", s.cluster.secret().Annotations["keep"])
			assert.Equal(t, corev1.SecretTypeOpaque, s.cluster.secret().Type)
		})
	}
}

func TestReviewsWouldFailWithoutTheWaits(t *testing.T) {
	s := newSimulation(t, 1, 2)
	s.rotators[0].options.PropagationDelay = 0
	assert.ErrorContains(t, s.run(2*caTTL, nil), "certificate signed by unknown authority", "the simulation detects refused reviews")
}

// A leader may not have noticed yet that it lost its lease.
func TestTwoRotatorsDoNoHarm(t *testing.T) {
	s := newSimulation(t, 7, 2)
	s.rotators = append(s.rotators, s.newRotator())
	issuers := map[string]bool{}
	require.NoError(t, s.run(4*caTTL, func(int) {
		if issuer := s.replicas[0].issuer(); issuer != nil {
			issuers[issuer.root.Subject.CommonName] = true
		}
	}))
	assert.GreaterOrEqual(t, len(issuers), 5)
}

func TestReplicasKeepServingWithoutARotator(t *testing.T) {
	s := newSimulation(t, 8, 2)
	require.NoError(t, s.run(3*delay, nil))
	s.rotators = nil
	before, writes := s.replicas[0].issuer(), s.cluster.writes.Load()
	// After two thirds of the CA's lifetime a rotation is due, and no rotator begins it.
	leaves := map[string]bool{}
	require.NoError(t, s.run(caTTL-3*delay-2*interval, func(step int) {
		if step%10 == 9 {
			s.replicas[1] = s.newReplica()
		}
		leaves[s.replicas[0].certificate().SerialNumber.String()] = true
	}))
	assert.Greater(t, len(leaves), 5, "leaves are renewed")
	assert.True(t, before.equal(s.replicas[0].issuer()))
	assert.True(t, before.equal(s.replicas[1].issuer()), "a new replica signs too")
	assert.Equal(t, writes, s.cluster.writes.Load(), "replicas write nothing")

	s.rotators = []*Rotator{s.newRotator()}
	s.step()
	s.step()
	assert.NotNil(t, parseSecret(s.cluster.secret(), s.clock.Now(), rotationState{}).next, "a rotator that starts begins the rotation")
}

func TestReplicasRenewLeavesWhileTheSecretCannotBeRead(t *testing.T) {
	s := newSimulation(t, 11, 2)
	require.NoError(t, s.run(3*delay, nil))
	before := s.replicas[0].issuer()
	s.cluster.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("etcd has no leader")
	})
	leaves := map[string]bool{}
	require.NoError(t, s.run(caTTL-3*delay-2*interval, func(int) {
		leaves[s.replicas[0].certificate().SerialNumber.String()] = true
	}))
	assert.Greater(t, len(leaves), 5, "leaves are renewed")
	assert.True(t, before.equal(s.replicas[0].issuer()))
	_, lastError := s.replicas[0].status()
	assert.ErrorContains(t, lastError, "read secret isthmus-system/isthmus-webhook-ca: etcd has no leader")
}

// A read may take as long as readTimeout.
func TestLeafThatFallsDueDuringAReadIsRenewedAtOnce(t *testing.T) {
	s := newSimulation(t, 12, 1)
	require.NoError(t, s.run(3*delay, nil))
	source := s.replicas[0].Source
	before := s.replicas[0].certificate()
	s.clock.SetTime(source.leaf.Load().renewAt().Add(-time.Second))
	s.cluster.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		s.clock.Step(2 * time.Second)
		return false, nil, nil
	})
	next := source.reconcile(t.Context())
	assert.NotEqual(t, before.SerialNumber, s.replicas[0].certificate().SerialNumber)
	assert.Greater(t, next, time.Second, "the new leaf is not due")
}

// steppingClock advances by a millisecond whenever it is read.
type steppingClock struct{ *clocktesting.FakeClock }

func (c steppingClock) Now() time.Time {
	c.Step(time.Millisecond)
	return c.FakeClock.Now()
}

func TestLeafThatFallsDueAfterTheDecisionIsRenewedSoon(t *testing.T) {
	s := newSimulation(t, 13, 1)
	require.NoError(t, s.run(3*delay, nil))
	options := s.options("replica")
	options.Clock = steppingClock{s.clock}
	for early := range 5 * time.Millisecond / time.Millisecond {
		source, err := NewSource(options)
		require.NoError(t, err)
		source.reconcile(t.Context())
		before := source.leaf.Load()
		s.clock.SetTime(before.renewAt().Add(-10*time.Millisecond - early*time.Millisecond))
		for source.leaf.Load() == before {
			next := source.reconcile(t.Context())
			require.True(t, next <= time.Second || source.leaf.Load() != before, "the next reconcile is in %s", next)
		}
	}
}

func TestRotationContinuesAfterRestarts(t *testing.T) {
	s := newSimulation(t, 2, 2)
	var promotions int
	previous := ""
	require.NoError(t, s.run(4*caTTL, func(step int) {
		if signing := string(s.cluster.secret().Data[corev1.TLSCertKey]); signing != previous {
			promotions++
			previous = signing
		}
		// No rotator and no replica lives as long as either wait.
		if step%4 == 3 {
			s.rotators[0] = s.newRotator()
			s.replicas[s.random.Intn(len(s.replicas))] = s.newReplica()
		}
	}))
	assert.GreaterOrEqual(t, promotions, 5)
}

func TestNoReviewFailsThroughDamage(t *testing.T) {
	for _, damage := range damages() {
		t.Run(damage.name, func(t *testing.T) {
			s := newSimulation(t, 3, 2)
			// Every 92 minutes hits every phase of some rotation.
			require.NoError(t, s.run(lifetimes*caTTL, func(step int) {
				if step%23 == 22 {
					s.cluster.editSecret(damage.apply)
				}
				if step%46 == 45 {
					s.rotators[0] = s.newRotator() // the new one remembers no state
				}
			}))
			require.NoError(t, s.run(3*delay, nil))
			repaired := parseSecret(s.cluster.secret(), s.clock.Now(), rotationState{})
			assert.Empty(t, repaired.problems)
			assert.NotNil(t, repaired.signing)
			for _, webhook := range s.cluster.mutatingConfiguration().Webhooks {
				assert.Equal(t, string(s.cluster.secret().Data[BundleKey]), string(webhook.ClientConfig.CABundle))
			}
			for _, webhook := range s.cluster.validatingConfiguration().Webhooks {
				assert.Equal(t, string(s.cluster.secret().Data[BundleKey]), string(webhook.ClientConfig.CABundle))
			}
		})
	}
	t.Run("any damage at any time, while rotators and replicas restart", func(t *testing.T) {
		all := damages()
		for seed := range int64(seeds) {
			s := newSimulation(t, seed, 3)
			s.log = logr.Discard()
			require.NoError(t, s.run(4*caTTL, func(int) {
				if s.random.Intn(30) == 0 {
					s.cluster.editSecret(all[s.random.Intn(len(all))].apply)
				}
				if s.random.Intn(30) == 0 {
					s.replicas[s.random.Intn(len(s.replicas))] = s.newReplica()
				}
				if s.random.Intn(30) == 0 {
					s.rotators[0] = s.newRotator()
				}
			}), "seed %d", seed)
		}
	})
}

func TestWrongCABundleIsRepaired(t *testing.T) {
	wrong, err := newAuthority(time.Now(), time.Hour)
	require.NoError(t, err)
	for name, bundle := range map[string][]byte{"nonsense": []byte("nonsense"), "another root": wrong.certPEM, "nothing": nil} {
		t.Run(name, func(t *testing.T) {
			s := newSimulation(t, 4, 2)
			require.NoError(t, s.run(3*delay, nil))
			before := s.cluster.mutatingConfiguration()
			s.cluster.editMutatingConfiguration(func(c *admissionregistrationv1.MutatingWebhookConfiguration) {
				c.Webhooks[1].ClientConfig.CABundle = bundle
			})
			secret := s.cluster.secret()
			s.step()
			after := s.cluster.mutatingConfiguration()
			before.ResourceVersion, after.ResourceVersion = "", ""
			before.ManagedFields, after.ManagedFields = nil, nil // the fake client writes them, with a time
			assert.Equal(t, before, after, "nothing but the caBundle changed")
			assert.Equal(t, secret, s.cluster.secret())
		})
	}
}

func TestWrongCABundleOfTheValidatingConfigurationIsRepaired(t *testing.T) {
	s := newSimulation(t, 4, 2)
	require.NoError(t, s.run(3*delay, nil))
	before := s.cluster.validatingConfiguration()
	s.cluster.editValidatingConfiguration(func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
		c.Webhooks[1].ClientConfig.CABundle = nil
	})
	s.step()
	after := s.cluster.validatingConfiguration()
	before.ResourceVersion, after.ResourceVersion = "", ""
	before.ManagedFields, after.ManagedFields = nil, nil // the fake client writes them, with a time
	assert.Equal(t, before, after, "nothing but the caBundle changed")
}

// The validating configuration is optional: rotation continues without it, and a
// new one gets the bundle.
func TestRotationNeedsNoValidatingConfiguration(t *testing.T) {
	s := newSimulation(t, 9, 2)
	require.NoError(t, s.run(3*delay, nil))
	before := s.replicas[0].issuer()
	configurations := s.cluster.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	require.NoError(t, configurations.Delete(t.Context(), testConfiguration, metav1.DeleteOptions{}))
	for range int(caTTL / interval) {
		s.clock.Step(interval)
		for _, r := range s.replicas {
			r.reconcile(t.Context())
		}
		s.rotators[0].reconcile(t.Context())
		s.rotators[0].reconcile(t.Context())
	}
	assert.False(t, before.equal(s.replicas[0].issuer()), "the CA was rotated")
	_, lastError := s.rotators[0].status()
	assert.NoError(t, lastError)

	_, err := configurations.Create(t.Context(), newValidatingConfiguration(), metav1.CreateOptions{})
	require.NoError(t, err)
	s.step()
	s.step()
	assert.Equal(t, string(s.cluster.secret().Data[BundleKey]), string(s.cluster.validatingConfiguration().Webhooks[0].ClientConfig.CABundle))
}

func TestNextCASignsOnlyWhenBothConfigurationsTrustIt(t *testing.T) {
	s := newSimulation(t, 10, 1)
	require.NoError(t, s.run(3*delay, nil))
	signing := func() string { return string(s.cluster.secret().Data[corev1.TLSCertKey]) }
	before := signing()
	s.cluster.PrependReactor("patch", "validatingwebhookconfigurations", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("refused by a policy")
	})
	require.NoError(t, s.run(caTTL-2*time.Hour, nil))
	assert.Equal(t, before, signing())
	_, lastError := s.rotators[0].status()
	assert.ErrorContains(t, lastError, `patch validatingwebhookconfiguration "isthmus-webhook": refused by a policy`)
}

func TestAnOlderBundleNeverReplacesANewerOne(t *testing.T) {
	s := newSimulation(t, 5, 1)
	require.NoError(t, s.run(3*delay, nil))
	older := mutatingView(s.cluster.mutatingConfiguration())
	newer, err := newAuthority(s.clock.Now(), caTTL)
	require.NoError(t, err)
	s.cluster.editMutatingConfiguration(func(c *admissionregistrationv1.MutatingWebhookConfiguration) {
		c.Webhooks[0].ClientConfig.CABundle, c.Webhooks[1].ClientConfig.CABundle = newer.certPEM, newer.certPEM
	})
	stale, err := newAuthority(s.clock.Now(), caTTL)
	require.NoError(t, err)

	err = s.rotators[0].patchCABundles(t.Context(), []configurationView{older, validatingView(s.cluster.validatingConfiguration())}, roots{stale.root})
	assert.ErrorIs(t, err, errConflict)
	assert.Equal(t, string(newer.certPEM), string(s.cluster.mutatingConfiguration().Webhooks[0].ClientConfig.CABundle))
}

func TestAnotherWriterCausesNoStormOfWrites(t *testing.T) {
	s := newSimulation(t, 6, 1)
	require.NoError(t, s.run(3*delay, nil))
	before := s.cluster.writes.Load()
	for range 200 {
		s.cluster.editMutatingConfiguration(func(c *admissionregistrationv1.MutatingWebhookConfiguration) {
			c.Webhooks[0].ClientConfig.CABundle = nil
		})
		s.rotators[0].reconcile(t.Context())
	}
	assert.LessOrEqual(t, s.cluster.writes.Load()-before, int64(200+20), "those of the other writer, and twenty of the rotator")
	_, lastError := s.rotators[0].status()
	assert.EqualError(t, lastError, `mutatingwebhookconfiguration "isthmus-webhook": another writer keeps changing its caBundle; exclude it from cainjector or from the tool that applies it`)
	require.NoError(t, s.run(delay, nil))
	assert.Equal(t, string(s.cluster.secret().Data[BundleKey]), string(s.cluster.mutatingConfiguration().Webhooks[0].ClientConfig.CABundle), "repaired when the other writer stops")
}
