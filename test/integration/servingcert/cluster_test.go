// Package servingcert proves against a real API server that the certificate of the
// admission server rotates without one failed review.
package servingcert

import (
	"os"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// admin is the client configuration of an administrator. TestMain sets it.
var admin *rest.Config

func TestMain(m *testing.M) {
	os.Exit(controlplane.Main(m, func(config *rest.Config) { admin = config }))
}
