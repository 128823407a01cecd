// Package roots proves against a real API server and a real istiod that the mesh's roots are
// followed, with no more permissions than to get and watch one ConfigMap.
package roots_test

import (
	"os"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// admin reaches the API server as its administrator; all tests share istiod. TestMain sets
// them.
var (
	admin  *rest.Config
	istiod *istio.Istiod
)

func TestMain(m *testing.M) {
	os.Exit(istio.Main(m, istio.Options{}, func(config *rest.Config, i *istio.Istiod) { admin, istiod = config, i }))
}
