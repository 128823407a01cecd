// Package discovery proves against a real API server that Istio's settings are
// discovered with the rights that the chart gives, and no more.
package discovery

import (
	"os"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// admin is how to reach the API server as its administrator. TestMain sets it.
var admin *rest.Config

func TestMain(m *testing.M) {
	os.Exit(controlplane.Main(m, func(config *rest.Config) { admin = config }))
}
