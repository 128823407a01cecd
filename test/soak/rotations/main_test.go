//go:build soak

// Package rotations tests many rotations of the controller and of the publisher beside the
// real agent, a rotation of the mesh's root, and faults that need no node. The faults that
// need a node are in test/e2e/chaos. `make soak` runs the package, which takes minutes.
package rotations

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

var (
	env *environment.Environment
	// oldRoot and newRoot are the two roots of the mesh.
	oldRoot, newRoot *certtest.Pair
)

// lifetime is the lifetime of every certificate here.
const lifetime = "60s"

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	if text := os.Getenv("ISTHMUS_ROTATIONS"); text != "" {
		var err error
		if rotations, err = strconv.Atoi(text); err != nil || rotations < 1 {
			fmt.Fprintf(os.Stderr, "ISTHMUS_ROTATIONS is %q, want a number of 1 or more\n", text)
			os.Exit(1)
		}
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	setup := &setupTB{}
	oldRoot, newRoot = setup.root("before"), setup.root("after")
	if setup.failed {
		return 1
	}
	o := istio.Options{
		Env: map[string]string{"DEFAULT_WORKLOAD_CERT_TTL": lifetime, "MAX_WORKLOAD_CERT_TTL": lifetime},
		CA:  istio.NewCA(oldRoot.Intermediate(setup), oldRoot),
	}
	return environment.Main(m, o, "{controller: {mirrorSecretNames: [istio.edge]}}", func(w *environment.Environment) { env = w })
}

// setupTB is a testing.TB for certificates that are made before the tests run.
type setupTB struct {
	testing.TB
	failed bool
}

func (s *setupTB) Helper()               {}
func (s *setupTB) Errorf(string, ...any) { s.failed = true }
func (s *setupTB) FailNow()              { panic("no certificate could be made") }

func (s *setupTB) root(name string) *certtest.Pair {
	return certtest.NewAuthority(s, certtest.CommonName(name))
}
