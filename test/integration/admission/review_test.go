package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// review sends a review to the server, as the API server does: over a new connection that
// is verified with the caBundle.
func (e *environment) review(ctx context.Context, path string, request *admissionv1.AdmissionRequest) (status int, body []byte, err error) {
	transport, err := transportFor(e.caBundle(ctx))
	if err != nil {
		return 0, nil, err
	}
	defer transport.CloseIdleConnections()
	reviewResponse, err := postReview(ctx, transport, e.service.url(path), request)
	return reviewResponse.status, reviewResponse.body, err
}

// transportFor returns a transport that trusts a caBundle. It returns err if it is not nil.
func transportFor(bundle []byte, err error) (*http.Transport, error) {
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, errors.New("the configuration has no caBundle")
	}
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}, nil
}

// reviewResponse is the server's HTTP response to a review.
type reviewResponse struct {
	status      int
	body        []byte
	certificate *x509.Certificate
	// closed is true if the server asks the client to close the connection.
	closed bool
}

// postReview sends a review.
func postReview(ctx context.Context, transport *http.Transport, url string, request *admissionv1.AdmissionRequest) (reviewResponse, error) {
	data, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	if err != nil {
		return reviewResponse{}, err
	}
	httpRequest, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return reviewResponse{}, err
	}
	httpRequest.Header.Set("Content-Type", "application/json")
	response, err := transport.RoundTrip(httpRequest)
	if err != nil {
		return reviewResponse{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return reviewResponse{response.StatusCode, body, response.TLS.PeerCertificates[0], response.Close}, err
}

// podRequest returns the admission request for a pod.
func podRequest(namespace string, pod []byte) *admissionv1.AdmissionRequest {
	return &admissionv1.AdmissionRequest{
		UID:       types.UID("11111111-2222-3333-4444-555555555555"),
		Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Namespace: namespace,
		Operation: admissionv1.Create,
		Object:    runtime.RawExtension{Raw: pod},
	}
}

// A newer API server sends fields that this program does not know, and they must be
// preserved. The test sends the review itself, since the API server of the test would drop
// such fields.
func TestUnknownFieldsSurvive(t *testing.T) {
	s := newNamespace(t, enabled)
	before := []byte(`{
		"apiVersion": "v1", "kind": "Pod", "futureTop": {"a": [1, 2.5, null, true]},
		"metadata": {"name": "edge", "futureMeta": "m", "labels": {"app": "edge"}, "annotations": {"note": "n"}, "ownerReferences": [{"future": 1}]},
		"spec": {
			"futureSpec": [{"x": {"y": "z"}}],
			"futureNumber": 12345678901234567890,
			"securityContext": {"runAsUser": 8888, "futurePodSecurity": "p"},
			"volumes": [{"name": "v", "futureSource": {"size": "1Gi"}}],
			"initContainers": [{"name": "wait", "image": "busybox", "futureInit": {}}],
			"containers": [
				{"name": "helper", "image": "busybox", "futureNeighbour": []},
				{"name": "main", "image": "emissaryingress/emissary:4.1.0", "futureContainer": {"deep": [{"er": 1}]},
				 "env": [{"name": "A", "value": "a", "futureEnv": 1}, {"name": "B", "valueFrom": {"futureFrom": {"key": "k"}}}],
				 "volumeMounts": [{"name": "v", "mountPath": "/v", "futureMount": true}],
				 "securityContext": {"futureSecurity": {"level": 3}},
				 "livenessProbe": {"futureProbe": {"path": "/"}},
				 "resources": {"futureClaims": [{"name": "gpu"}]}}
			],
			"imagePullSecrets": [{"name": "s", "futureSecret": 1}],
			"tolerations": [{"futureToleration": 1}]
		},
		"status": {"futureStatus": "s"}
	}`)

	status, body, err := env.review(t.Context(), "/inject/namespace", podRequest(s.name, before))

	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, string(body))
	var review admissionv1.AdmissionReview
	require.NoError(t, json.Unmarshal(body, &review))
	require.NotEmpty(t, review.Response.Patch)
	patch, err := jsonpatch.DecodePatch(review.Response.Patch)
	require.NoError(t, err)
	after, err := patch.Apply(before)
	require.NoError(t, err)
	assert.Contains(t, string(after), `"istio-proxy"`)
	assertPreserved(t, "", parseJSON(t, before), parseJSON(t, after))
}

// assertPreserved checks that every value of before is in after, at the same path.
func assertPreserved(t *testing.T, at string, before, after any) {
	t.Helper()
	switch before := before.(type) {
	case map[string]any:
		object, ok := after.(map[string]any)
		require.True(t, ok, at)
		for key, value := range before {
			require.Contains(t, object, key, at)
			assertPreserved(t, at+"/"+key, value, object[key])
		}
	case []any:
		list, ok := after.([]any)
		require.True(t, ok, at)
		require.GreaterOrEqual(t, len(list), len(before), at)
		for i, value := range before {
			assertPreserved(t, fmt.Sprintf("%s/%d", at, i), value, list[i])
		}
	default:
		assert.Equal(t, before, after, at)
	}
}

func parseJSON(t *testing.T, data []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	require.NoError(t, decoder.Decode(&value))
	return value
}

func TestInternalErrorIsNoAnswer(t *testing.T) {
	counters := snapshotCounters(t)

	status, body, err := env.review(t.Context(), "/inject/namespace", podRequest("isthmus-test-nowhere", minimalPod(`{"name": "edge"}`)))

	require.NoError(t, err)
	assert.Equal(t, http.StatusInternalServerError, status)
	assert.Equal(t, "internal-error: read namespace isthmus-test-nowhere: namespaces \"isthmus-test-nowhere\" not found\n", string(body))
	counters.assertGrowth(map[string]float64{"internal-error": 1, "decided": 1})
}
