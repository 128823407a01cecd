// Package publish proves against a real API server that Secrets are published
// whole, once and only where they are ours: by the package internal/publish and by
// the process isthmus-publish.
package publish

import (
	"fmt"
	"os"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// TestMain sets them.
var (
	// admin is how to reach the API server as its administrator.
	admin *rest.Config
	// folder is for what is built, and removed at the end.
	folder string
)

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "isthmus-publish-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := controlplane.Main(m, func(config *rest.Config) { admin = config })
	_ = os.RemoveAll(folder)
	os.Exit(status)
}
