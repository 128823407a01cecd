// Package security attacks Isthmus as it is deployed: the chart's own manifests on a real
// API server, the programs of Isthmus as processes with the chart's flags and accounts, and
// the real istiod. docs/security.md lists every attack with its result and the test that
// shows it; TestList compares the list with the tests.
package security

import (
	"os"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// lifetime is the lifetime of certificates from istiod: short, so that they rotate during
// the tests.
const lifetime = "30s"

var env *environment.Environment

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	o := istio.Options{Env: map[string]string{"DEFAULT_WORKLOAD_CERT_TTL": lifetime, "MAX_WORKLOAD_CERT_TTL": lifetime}}
	os.Exit(environment.Main(m, o, "{}", func(w *environment.Environment) { env = w }))
}

// servers are the chart's two servers, at their highest log level.
type servers struct {
	controller, webhook *environment.Server
}

var startServers = sync.OnceValues(func() (d servers, err error) {
	ctx := packageContext()
	if d.controller, err = env.StartController(ctx, "--look-interval=1s", "--log-level=debug"); err != nil {
		return d, err
	}
	d.webhook, err = env.StartWebhook(ctx, "--log-level=debug")
	return d, err
})

// sharedServers returns the servers that the tests of this package share.
func sharedServers(t testing.TB) servers {
	t.Helper()
	d, err := startServers()
	require.NoError(t, err)
	return d
}
