//go:build soak

package admission

import "testing"

// This test takes almost a minute: make soak runs it.
func TestNoReviewFailsWhileCertificatesRotateAndReplicasRestart(t *testing.T) { testNoReviewFails(t) }
