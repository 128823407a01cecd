package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/internal/controller"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// skewedClock is a clock with an offset.
type skewedClock time.Duration

func (s skewedClock) Now() time.Time                  { return time.Now().Add(time.Duration(s)) }
func (s skewedClock) Since(t time.Time) time.Duration { return s.Now().Sub(t) }

func withClockSkew(skew time.Duration) func(*controller.Options) {
	return func(o *controller.Options) { o.Clock = skewedClock(skew) }
}

// The Secret is good until a controller with the fault checks it: that controller
// rejects each bundle, says why, and leaves the Secret alone until the fault is gone.
func TestRejectedBundleLeavesTheSecret(t *testing.T) {
	for name, c := range map[string]struct {
		fault  func(*environment) []func(*controller.Options)
		reason string
	}{
		"if the clock is ahead, expect an expired bundle": {
			func(*environment) []func(*controller.Options) {
				return []func(*controller.Options){withClockSkew(48 * time.Hour)}
			}, "expired",
		},
		"if the clock is behind, expect a bundle that is not yet valid": {
			func(*environment) []func(*controller.Options) {
				return []func(*controller.Options){withClockSkew(-2 * time.Hour)}
			}, "not-yet-valid",
		},
		"if the root has expired, expect an untrusted bundle": {
			func(env *environment) []func(*controller.Options) {
				env.mesh.setRoots(certtest.NewAuthority(t, certtest.Validity(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))))
				return nil
			}, "untrusted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnvironment(t)
			good := env.mesh.currentSigner()
			ns := env.createNamespace(nil, "edge")
			env.createEdge(ns, edgePod("front", "edge", nil))
			before := env.awaitSecret(ns, "istio-certs", anySecret)
			env.stop()

			env.startController(c.fault(env)...)
			assert.Contains(t, env.awaitEvent(ns, "Secret", "istio-certs", "Rejected"), c.reason)
			rejected, _ := env.metric("isthmus_bundle_rejected_total", map[string]string{"reason": c.reason})
			assert.Positive(t, rejected)
			assert.Equal(t, before.Data, env.awaitSecret(ns, "istio-certs", anySecret).Data, "the Secret is not changed")
			env.stop()

			env.mesh.setRoots(good)
			env.startController()
			env.awaitMetric("isthmus_certificate_not_after_timestamp_seconds", map[string]string{"namespace": ns},
				float64(env.mesh.requireBundle(t, env.awaitSecret(ns, "istio-certs", anySecret).Data, spiffeID(ns, "edge")).NotAfter().Unix()))
		})
	}
}
