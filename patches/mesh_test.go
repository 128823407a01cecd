package patches_test

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/patches"
)

// TestOverlayCoversEveryField guards the fields of Mesh that are added later.
func TestOverlayCoversEveryField(t *testing.T) {
	over := patches.Mesh{MaxCertTTL: patches.Duration(1)}
	for _, f := range patches.MeshTextFields() {
		*f.In(&over) = f.Name
	}
	for f, v := range reflect.ValueOf(over).Fields() {
		assert.False(t, v.IsZero(), f.Name)
	}
	assert.Equal(t, "x.example", over.Overlay(patches.Mesh{TrustDomain: "x.example"}).TrustDomain)
	assert.Equal(t, over, patches.Mesh{TrustDomain: "x.example", ProxyImage: "x"}.Overlay(over))
	assert.Equal(t, over, over.Overlay(patches.Mesh{}))
}
