// Package roots proves against a real API server and a real istiod that the
// mesh's roots are followed, with no more rights than to get and watch one name.
package roots_test

import (
	"os"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// admin is how to reach the API server as its administrator, istiod the one
// that all tests share. TestMain sets them.
var (
	admin  *rest.Config
	istiod *istio.Istiod
)

func TestMain(m *testing.M) {
	os.Exit(istio.Main(m, istio.Options{}, func(config *rest.Config, i *istio.Istiod) { admin, istiod = config, i }))
}
