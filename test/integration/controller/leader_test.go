package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestLeftoversAreDeleted(t *testing.T) {
	w := start(t)
	w.define()
	ns := w.namespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
	w.edge(ns, edgePod("front", "edge", nil))
	w.tlsContext(ns)

	w.stop()
	w.annotate(ns, policy.TLSContextKey, "")
	w.run()
	require.Eventually(t, func() bool {
		_, err := w.dynamic.Resource(contexts).Namespace(ns).Get(t.Context(), "istio-upstream", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}, patience, tick, "a new leader finds what is no longer asked for")
}
