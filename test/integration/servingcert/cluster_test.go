// Package servingcert proves against a real API server that the certificate of the
// admission server rotates without one failed review.
package servingcert

import (
	"context"
	"fmt"
	"os"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/plane"
)

// admin is how to reach the API server as its administrator. TestMain sets it.
var admin *rest.Config

func TestMain(m *testing.M) {
	os.Exit(func() int {
		p, err := plane.Start(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, "servingcert:", err)
			return 1
		}
		defer func() { _ = p.Stop() }()
		if admin, err = p.Admin(); err != nil {
			fmt.Fprintln(os.Stderr, "servingcert:", err)
			return 1
		}
		return m.Run()
	}())
}
