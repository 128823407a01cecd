//go:build soak

// Package rotations holds the trials that take minutes: rotations of the controller and of
// the publisher beside the real agent, a rotation of the mesh's root, and what breaks in
// between and needs no node; the rest is in test/e2e/chaos. `make soak` runs it.
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
	world *environment.Environment
	// before and after are the two roots of the mesh's life.
	before, after *certtest.Pair
)

// lifetime is that of every certificate here.
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
	authorities := &certificates{}
	before, after = authorities.root("before"), authorities.root("after")
	if authorities.failed {
		return 1
	}
	o := istio.Options{
		Env: map[string]string{"DEFAULT_WORKLOAD_CERT_TTL": lifetime, "MAX_WORKLOAD_CERT_TTL": lifetime},
		CA:  istio.NewCA(before.Intermediate(authorities), before),
	}
	return environment.Main(m, o, "{controller: {mirrorSecretNames: [istio.edge]}}", func(w *environment.Environment) { world = w })
}

// certificates stands in for a test where there is none yet.
type certificates struct {
	testing.TB
	failed bool
}

func (c *certificates) Helper()               {}
func (c *certificates) Errorf(string, ...any) { c.failed = true }
func (c *certificates) FailNow()              { panic("no certificate could be made") }

func (c *certificates) root(name string) *certtest.Pair {
	return certtest.NewAuthority(c, certtest.CommonName(name))
}
