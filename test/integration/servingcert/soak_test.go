//go:build soak

package servingcert

import "testing"

// It takes a minute: make soak runs it.
func TestNoReviewFailsThroughRotation(t *testing.T) { rotationFailsNoReview(t) }
