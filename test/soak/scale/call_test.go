package scale

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The limit of no list of Secrets depends on parseCall.
func TestCallsAreRecognised(t *testing.T) {
	for _, test := range []struct{ method, url, call, namespace string }{
		{"GET", "/api/v1/secrets", "list secrets", ""},
		{"GET", "/api/v1/secrets?watch=true&fieldSelector=metadata.name%3Distio-certs", "watch secrets", ""},
		{"GET", "/api/v1/namespaces/edge/secrets?limit=500", "list secrets", "edge"},
		{"GET", "/api/v1/namespaces/edge/secrets?watch=1&fieldSelector=metadata.name%3Distio-certs", "watch secrets", "edge"},
		{"GET", "/api/v1/namespaces/isthmus-system/secrets?watch=1&fieldSelector=metadata.name%3Dca", "watch secrets (one, its own)", "isthmus-system"},
		{"GET", "/api/v1/namespaces/isthmus-system/secrets?watch=1", "watch secrets", "isthmus-system"},
		{"GET", "/api/v1/namespaces/edge/secrets/istio-certs", "get secrets", "edge"},
		{"PATCH", "/api/v1/namespaces/edge/secrets/istio-certs?fieldManager=isthmus", "patch secrets", "edge"},
		{"POST", "/api/v1/namespaces/edge/serviceaccounts/edge/token", "create serviceaccounts/token", "edge"},
		{"POST", "/apis/events.k8s.io/v1/namespaces/edge/events", "create events", "edge"},
		{"GET", "/api/v1/namespaces?limit=500", "list namespaces", ""},
		{"GET", "/api/v1/namespaces/edge", "get namespaces", ""},
		{"PUT", "/apis/coordination.k8s.io/v1/namespaces/isthmus-system/leases/isthmus-controller", "update leases", "isthmus-system"},
		{"DELETE", "/apis/getambassador.io/v3alpha1/namespaces/edge/tlscontexts/istio-upstream", "delete tlscontexts", "edge"},
		{"GET", "/api", "get (api)", ""},
		{"GET", "/apis/apps/v1", "get (apis)", ""},
	} {
		observed, namespace := parseCall(httptest.NewRequestWithContext(t.Context(), test.method, test.url, nil))
		assert.Equal(t, test.call, observed.String(), "%s %s", test.method, test.url)
		assert.Equal(t, test.namespace, namespace, "%s %s", test.method, test.url)
	}
}
