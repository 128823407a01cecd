package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestLeftoversAreDeleted(t *testing.T) {
	env := newEnvironment(t)
	env.createTLSContextCRD()
	ns := env.createNamespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
	env.createEdge(ns, edgePod("front", "edge", nil))
	env.awaitTLSContext(ns)

	env.stop()
	env.annotate(ns, policy.TLSContextKey, "")
	env.startController()
	require.Eventually(t, func() bool {
		_, err := env.dynamic.Resource(tlsContexts).Namespace(ns).Get(t.Context(), "istio-upstream", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}, waitTimeout, pollInterval, "a new leader finds what is no longer asked for")
}
