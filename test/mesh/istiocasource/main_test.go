// Package istiocasource proves the source istio-ca against a real istiod and a real API
// server.
package istiocasource_test

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
	options := istio.Options{Env: map[string]string{
		"DEFAULT_WORKLOAD_CERT_TTL": "10m",
		"MAX_WORKLOAD_CERT_TTL":     "1h",
	}}
	os.Exit(istio.Main(m, options, func(config *rest.Config, i *istio.Istiod) { admin, istiod = config, i }))
}
