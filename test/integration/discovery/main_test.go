// Package discovery tests against a real API server that the permissions in the chart are
// enough to discover Istio's settings.
package discovery

import (
	"os"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// admin connects to the API server as an administrator. TestMain sets it.
var admin *rest.Config

func TestMain(m *testing.M) {
	os.Exit(controlplane.Main(m, func(config *rest.Config) { admin = config }))
}
