package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestLeftOverFromBeforeIsTakenAway(t *testing.T) {
	w := start(t)
	w.define()
	ns := w.namespace(map[string]string{policy.TLSContextKey: "true"}, "edge")
	w.edge(ns, plain("front", "edge", nil))
	w.tlsContext(ns)

	w.stop()
	w.annotate(ns, policy.TLSContextKey, "")
	w.run()
	require.Eventually(t, func() bool {
		_, err := w.objects.Resource(contexts).Namespace(ns).Get(t.Context(), "istio-upstream", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	}, patience, tick, "a new leader finds what nobody asks for any more")
}
