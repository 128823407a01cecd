// Package controller tests against a real API server which objects the controller writes,
// which it does not change and which it deletes. The certificates come from an authority in
// the test; in test/mesh they come from istiod.
package controller

import (
	"os"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// admin is the administrator's client configuration. TestMain sets it.
var admin *rest.Config

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	os.Exit(controlplane.Main(m, func(config *rest.Config) { admin = config }))
}
