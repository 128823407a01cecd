// Package publish tests internal/publish and the process isthmus-publish against a real
// API server: Secrets are written completely, once, and only if Isthmus manages them.
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
	// admin is the configuration of an administrator.
	admin *rest.Config
	// folder has the binaries. It is removed at the end.
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
