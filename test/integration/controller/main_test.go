// Package controller proves against a real API server what the controller keeps,
// what it leaves alone and what it takes back. The certificates come from an
// authority in the test; test/mesh has them from istiod.
package controller

import (
	"os"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// admin is how to reach the API server as its administrator. TestMain sets it.
var admin *rest.Config

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	os.Exit(controlplane.Main(m, func(config *rest.Config) { admin = config }))
}
