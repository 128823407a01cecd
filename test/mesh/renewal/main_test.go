// Package renewal proves the controller on the real istiod: the chart's own flags and
// permissions, short certificates, and calls in mutual TLS that use only the Secret.
package renewal

import (
	"os"
	"testing"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

var env *environment.Environment

// lifetime is the lifetime that istiod grants; it refuses the day that the controller
// requests first.
const lifetime = "30s"

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	o := istio.Options{Env: map[string]string{"DEFAULT_WORKLOAD_CERT_TTL": lifetime, "MAX_WORKLOAD_CERT_TTL": lifetime}}
	os.Exit(environment.Main(m, o, "{}", func(w *environment.Environment) { env = w }))
}
