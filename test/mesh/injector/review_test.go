package injector

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// injector is one of the two injectors, called over HTTPS as the API server calls it.
type injector struct {
	name  string
	url   string
	roots []byte
}

func ourInjector(t *testing.T) injector {
	t.Helper()
	c, err := env.Kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "isthmus-injector", metav1.GetOptions{})
	require.NoError(t, err)
	return injector{"isthmus", env.webhook.ReviewURL + "/inject/namespace", c.Webhooks[0].ClientConfig.CABundle}
}

func istioInjector(t *testing.T) injector {
	t.Helper()
	roots, err := env.Istiod.Roots(t.Context(), istio.Namespace)
	require.NoError(t, err)
	return injector{"istio", env.Istiod.InjectURL(), roots}
}

// edit returns the pod after the injector, and whether the injector returned a patch.
func (i injector) edit(t *testing.T, namespace string, pod *corev1.Pod) (*corev1.Pod, bool) {
	t.Helper()
	document, err := json.Marshal(pod)
	require.NoError(t, err)
	response := i.review(t, &admissionv1.AdmissionRequest{
		UID:       types.UID("11111111-2222-3333-4444-555555555555"),
		Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
		Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Namespace: namespace, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: document},
	})
	require.True(t, response.Allowed, "%s: %v", i.name, response.Result)
	if len(response.Patch) == 0 {
		return pod.DeepCopy(), false
	}
	patch, err := jsonpatch.DecodePatch(response.Patch)
	require.NoError(t, err)
	document, err = patch.Apply(document)
	require.NoError(t, err)
	edited := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(document, edited))
	return edited, len(patch) > 0
}

func (i injector) review(t *testing.T, request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: request,
	})
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(i.roots))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	httpRequest, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.url, bytes.NewReader(body))
	require.NoError(t, err)
	httpRequest.Header.Set("Content-Type", "application/json")
	httpResponse, err := transport.RoundTrip(httpRequest)
	require.NoError(t, err)
	defer func() { assert.NoError(t, httpResponse.Body.Close()) }()
	responseBody, err := io.ReadAll(httpResponse.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, httpResponse.StatusCode, "%s: %s", i.name, responseBody)
	var review admissionv1.AdmissionReview
	require.NoError(t, json.Unmarshal(responseBody, &review))
	require.NotNil(t, review.Response)
	return review.Response
}

// withDefaults returns the pod with the API server's defaults, which an injector that
// rewrites a container leaves out. It creates the pod, in a dry run, in a namespace for
// which no webhook is called.
func withDefaults(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	got, err := env.Kube.CoreV1().Pods(excludedNamespace).Create(t.Context(), asNewPod(pod), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	require.NoError(t, err)
	return got
}

// asNewPod returns a stored pod as a user would submit it again.
func asNewPod(pod *corev1.Pod) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Labels: pod.Labels, Annotations: pod.Annotations},
		Spec:       *pod.Spec.DeepCopy(),
	}
}

// assertSamePod checks that nothing differs that a user can write.
func assertSamePod(t *testing.T, want, got *corev1.Pod, httpRequest string) {
	t.Helper()
	text := func(pod *corev1.Pod) string {
		data, err := json.MarshalIndent(asNewPod(pod), "", " ")
		require.NoError(t, err)
		return string(data)
	}
	assert.Equal(t, text(want), text(got), httpRequest)
}
