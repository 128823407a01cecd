package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/internal/controller"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// skewed is a clock that is wrong.
type skewed time.Duration

func (s skewed) Now() time.Time                  { return time.Now().Add(time.Duration(s)) }
func (s skewed) Since(t time.Time) time.Duration { return s.Now().Sub(t) }

func at(skew time.Duration) func(*controller.Options) {
	return func(o *controller.Options) { o.Clock = skewed(skew) }
}

// What stands is good until a controller with the fault looks at it: it rejects
// what it is given, says why, and leaves the Secret alone until it is right again.
func TestWhatIsRejectedLeavesTheOldOne(t *testing.T) {
	for name, c := range map[string]struct {
		fault  func(*world) []func(*controller.Options)
		reason string
	}{
		"if the clock is ahead, expect it to be expired": {
			func(*world) []func(*controller.Options) { return []func(*controller.Options){at(48 * time.Hour)} }, "expired",
		},
		"if the clock is behind, expect it to be in the future": {
			func(*world) []func(*controller.Options) { return []func(*controller.Options){at(-2 * time.Hour)} }, "not-yet-valid",
		},
		"if the root expired, expect nothing to be trusted": {
			func(w *world) []func(*controller.Options) {
				w.mesh.trust(certtest.NewAuthority(t, certtest.Validity(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))))
				return nil
			}, "untrusted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			good := w.mesh.pair()
			ns := w.namespace(nil, "edge")
			w.edge(ns, plain("front", "edge", nil))
			before := w.secret(ns, "istio-certs", anything)
			w.stop()

			w.run(c.fault(w)...)
			assert.Contains(t, w.event(ns, "Secret", "istio-certs", "Rejected"), c.reason)
			rejected, _ := w.metric("isthmus_bundle_rejected_total", map[string]string{"reason": c.reason})
			assert.Positive(t, rejected)
			assert.Equal(t, before.Data, w.secret(ns, "istio-certs", anything).Data, "the old one stays")
			w.stop()

			w.mesh.trust(good)
			w.run()
			w.reaches("isthmus_certificate_not_after_timestamp_seconds", map[string]string{"namespace": ns},
				float64(w.mesh.holds(t, w.secret(ns, "istio-certs", anything).Data, idOf(ns, "edge")).NotAfter().Unix()))
		})
	}
}
