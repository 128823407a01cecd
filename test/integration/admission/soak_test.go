//go:build soak

package admission

import "testing"

// It takes most of a minute: make soak runs it.
func TestNoReviewFailsWhileCertificatesRotateAndReplicasRestart(t *testing.T) { noReviewFails(t) }
