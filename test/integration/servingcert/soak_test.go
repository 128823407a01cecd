//go:build soak

package servingcert

import "testing"

// The test takes a minute: make soak runs it.
func TestNoReviewFailsThroughRotation(t *testing.T) { rotationFailsNoReview(t) }
