package policy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestUnknownKeys(t *testing.T) {
	got, omitted := policy.UnknownKeys(
		map[string]string{"isthmus.dev/mode": "sidecar", "app": "edge"},
		map[string]string{"isthmus.dev/certdir": "/x", "isthmus.dev/secretname": "a", "isthmus.dev/tls-context": "b", "isthmus.dev/inject": "true", "isthmus.dev/restart-when-stale": "true"},
		policy.Namespace{Name: "shop", Labels: map[string]string{"isthmus.dev/inject": "true"}, Annotations: map[string]string{"isthmus.dev/sources": "agent", "isthmus.dev/restart-if-stale": "true", "isthmus.dev/restarted-for": "x"}},
	)
	assert.Equal(t, []policy.Warning{
		{Code: "misplaced-key", Text: "label isthmus.dev/mode has no effect there; use it as an annotation of a pod or an annotation of a namespace"},
		{Code: "unknown-key", Text: "annotation isthmus.dev/certdir is not known and has no effect; did you mean isthmus.dev/cert-dir?"},
		{Code: "misplaced-key", Text: "annotation isthmus.dev/restart-when-stale has no effect there; use it as an annotation of a workload itself (Deployment, StatefulSet, DaemonSet) or an annotation of a namespace"},
		{Code: "unknown-key", Text: "annotation isthmus.dev/secretname is not known and has no effect; did you mean isthmus.dev/secret-name?"},
		{Code: "misplaced-key", Text: "annotation isthmus.dev/tls-context has no effect there; use it as an annotation of a namespace"},
		{Code: "misplaced-key", Text: "namespace shop: label isthmus.dev/inject has no effect there; use it as an annotation of a pod or a label of a pod"},
		{Code: "unknown-key", Text: "namespace shop: annotation isthmus.dev/restart-if-stale is not known and has no effect; did you mean isthmus.dev/restart-when-stale?"},
		{Code: "misplaced-key", Text: "namespace shop: annotation isthmus.dev/restarted-for has no effect there; use it as an annotation of a workload itself (Deployment, StatefulSet, DaemonSet)"},
		{Code: "unknown-key", Text: "namespace shop: annotation isthmus.dev/sources is not known and has no effect; did you mean isthmus.dev/source?"},
	}, got)
	assert.Zero(t, omitted)
}
