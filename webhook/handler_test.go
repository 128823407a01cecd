package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// responseOf decodes the response to a review.
func responseOf(t testing.TB, w *httptest.ResponseRecorder) *admissionv1.AdmissionResponse {
	t.Helper()
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var review admissionv1.AdmissionReview
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &review), w.Body.String())
	assert.Equal(t, "admission.k8s.io/v1", review.APIVersion)
	assert.Equal(t, "AdmissionReview", review.Kind)
	require.NotNil(t, review.Response)
	assert.EqualValues(t, "705ab4f5-6393-11e8-b7cc-42010a800002", review.Response.UID)
	return review.Response
}

// applyPatch applies the patch of a response to a pod.
func applyPatch(t testing.TB, pod []byte, r *admissionv1.AdmissionResponse) []byte {
	t.Helper()
	require.True(t, r.Allowed)
	require.NotNil(t, r.PatchType)
	assert.Equal(t, admissionv1.PatchTypeJSONPatch, *r.PatchType)
	patch, err := jsonpatch.DecodePatch(r.Patch)
	require.NoError(t, err, string(r.Patch))
	out, err := patch.Apply(pod)
	require.NoError(t, err, string(r.Patch))
	return out
}

func TestEdgePodIsPatchedOnce(t *testing.T) {
	for _, size := range []string{"4KB", "10KB"} {
		t.Run(size, func(t *testing.T) {
			pod := edgePod(t, size)
			raw, err := json.Marshal(pod)
			require.NoError(t, err)
			r := responseOf(t, post(newHandler(t, nil, logr.Discard()), reviewOfRaw(t, raw)))
			assert.Equal(t, map[string]string{"reason": "injected", "profile": "emissary", "mode": "sidecar"}, r.AuditAnnotations)
			require.Len(t, r.Warnings, 1)
			assert.True(t, strings.HasPrefix(r.Warnings[0], "isthmus: emissary in this version"), r.Warnings[0])

			var after corev1.Pod
			require.NoError(t, json.Unmarshal(applyPatch(t, raw, r), &after))
			last := after.Spec.InitContainers[len(after.Spec.InitContainers)-1]
			assert.Equal(t, "istio-proxy", last.Name)
			assert.Equal(t, "sidecar", after.Labels[policy.InjectedLabel])

			second := responseOf(t, post(newHandler(t, nil, logr.Discard()), reviewOf(t, &after)))
			assert.True(t, second.Allowed)
			assert.Empty(t, second.Patch)
			assert.Empty(t, second.AuditAnnotations, "the API server rejects a second value")
		})
	}
}

// Fields of an API version newer than ours are preserved at every level that is
// edited.
func TestUnknownFieldsSurvive(t *testing.T) {
	raw := []byte(`{"apiVersion":"v1","kind":"Pod","future":{"a":1},
		"metadata":{"name":"edge","labels":{"app":"edge"},"future":[1]},
		"spec":{"future":"x","initContainers":[{"name":"first","image":"busybox","future":1e30}],
			"containers":[{"name":"emissary","image":"emissaryingress/emissary:4.1.0","future":{"b":null},
				"env":[{"name":"A","value":"b","future":true}],
				"volumeMounts":[{"name":"v","mountPath":"/v","future":12345678901234567890}]}],
			"volumes":[{"name":"v","emptyDir":{"future":{}}}]}}`)
	r := responseOf(t, post(newHandler(t, nil, logr.Discard()), reviewOfRaw(t, raw)))
	after := applyPatch(t, raw, r)
	assertContains(t, raw, after)
	assert.Contains(t, string(after), "12345678901234567890", "numbers are not rounded")
}

// assertContains asserts that after has every value of before, and that list items
// are only appended.
func assertContains(t testing.TB, before, after []byte) {
	t.Helper()
	var b, a any
	require.NoError(t, json.Unmarshal(before, &b))
	require.NoError(t, json.Unmarshal(after, &a))
	requireContained(t, "", b, a)
}

func requireContained(t testing.TB, path string, before, after any) {
	t.Helper()
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		require.True(t, ok, "%s: %v became %v", path, before, after)
		for key, value := range b {
			require.Contains(t, a, key, path)
			requireContained(t, path+"/"+key, value, a[key])
		}
	case []any:
		a, ok := after.([]any)
		require.True(t, ok, "%s: %v became %v", path, before, after)
		require.GreaterOrEqual(t, len(a), len(b), path)
		for i := range b {
			requireContained(t, path, b[i], a[i])
		}
	case nil: // absent, as far as Kubernetes is concerned
	default:
		require.Equal(t, before, after, path)
	}
}

func TestInvalidValueIsDenied(t *testing.T) {
	pod := edgePod(t, "4KB")
	pod.Annotations[policy.DeliveryKey] = "pigeon"
	r := responseOf(t, post(newHandler(t, nil, logr.Discard()), reviewOf(t, pod)))
	assert.False(t, r.Allowed)
	assert.Empty(t, r.Patch)
	require.NotNil(t, r.Result)
	assert.Equal(t, `invalid-override: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret`, r.Result.Message)
	assert.EqualValues(t, http.StatusForbidden, r.Result.Code)
	assert.Equal(t, "invalid-override", r.AuditAnnotations["reason"])
}

// A review without a decision is an HTTP error, so that the failurePolicy decides.
func TestErrorsAreHTTP(t *testing.T) {
	good := reviewOf(t, edgePod(t, "4KB"))
	request := func(method, contentType, body string) *http.Request {
		r := httptest.NewRequest(method, webhook.PodPath, strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		return r
	}
	unreadable := fixedNamespaces{err: errors.New("connection refused")}
	for name, c := range map[string]struct {
		request *http.Request
		edit    func(*webhook.Handler)
		code    int
		want    string
	}{
		"GET":                  {request: request(http.MethodGet, "application/json", ""), code: 405, want: "method GET: want POST of an AdmissionReview"},
		"content type":         {request: request(http.MethodPost, "text/plain", string(good)), code: 415, want: `content type "text/plain": want application/json`},
		"no content type":      {request: request(http.MethodPost, "", string(good)), code: 415, want: `content type "": want application/json`},
		"empty":                {request: request(http.MethodPost, "application/json", ""), code: 400, want: "decode AdmissionReview: jsontext: unexpected EOF"},
		"no JSON":              {request: request(http.MethodPost, "application/json", "{"), code: 400, want: "decode AdmissionReview: jsontext: unexpected EOF"},
		"other kind":           {request: request(http.MethodPost, "application/json", `{"kind":"Pod"}`), code: 400, want: `got kind "Pod": want an AdmissionReview with a request`},
		"no request":           {request: request(http.MethodPost, "application/json", `{"kind":"AdmissionReview"}`), code: 400, want: "want an AdmissionReview with a request"},
		"too large":            {request: request(http.MethodPost, "application/json", strings.Repeat(" ", 8<<20)), code: 413, want: "review is larger than 7340032 bytes"},
		"deeply nested":        {request: request(http.MethodPost, "application/json", `{"a":`+strings.Repeat("[", 10_001)), code: 400, want: "exceeded max depth"},
		"too many objects":     {request: request(http.MethodPost, "application/json", strings.Repeat("[", 1<<20)), code: 413, want: "review holds too many objects and lists"},
		"no pod":               {request: request(http.MethodPost, "application/json", string(reviewOfRaw(t, []byte(`{"spec":{"containers":"x"}}`)))), code: 500, want: "internal-error: decode AdmissionReview: /request/object/spec/containers: unexpected string"},
		"no object at all":     {request: request(http.MethodPost, "application/json", `[]`), code: 400, want: "decode AdmissionReview: /: unexpected ["},
		"other type":           {request: request(http.MethodPost, "application/json", `{"kind":["AdmissionReview"]}`), code: 400, want: "decode AdmissionReview: /kind: unexpected ["},
		"no pod in it":         {request: request(http.MethodPost, "application/json", string(reviewOfRaw(t, []byte("null")))), code: 500, want: "internal-error: review of pod emissary/: it holds no object"},
		"update":               {request: request(http.MethodPost, "application/json", strings.Replace(string(good), `"operation":"CREATE"`, `"operation":"UPDATE"`, 1)), code: 500, want: "internal-error: review of UPDATE pods/: the webhook configuration must send CREATE of pods only"},
		"namespace unreadable": {request: request(http.MethodPost, "application/json", string(good)), edit: func(h *webhook.Handler) { h.Namespaces = unreadable }, code: 500, want: "internal-error: read namespace emissary: connection refused"},
		"panic":                {request: request(http.MethodPost, "application/json", string(good)), edit: func(h *webhook.Handler) { h.Engine = nil }, code: 500, want: "internal-error: panic: "},
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			metrics, err := webhook.NewMetrics(registry)
			require.NoError(t, err)
			h := newHandler(t, metrics, logr.Discard())
			if c.edit != nil {
				c.edit(h)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, c.request)
			assert.Equal(t, c.code, w.Code)
			assert.Contains(t, w.Body.String(), c.want)
			if c.code == http.StatusInternalServerError {
				assert.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
					# HELP isthmus_admission_total Reviews of pods, by profile (none when no profile matched), mode, outcome (patched, allowed, denied, error) and reason.
					# TYPE isthmus_admission_total counter
					isthmus_admission_total{mode="none",outcome="error",profile="none",reason="internal-error"} 1
				`), "isthmus_admission_total"))
			}
		})
	}
}

// Metric and log record every decision once, with the same words.
func TestDecisionsAreRecorded(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics, err := webhook.NewMetrics(registry)
	require.NoError(t, err)
	var lines []string
	log := funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{Verbosity: 1})
	h := newHandler(t, metrics, log)

	pod := edgePod(t, "4KB")
	raw, err := json.Marshal(pod)
	require.NoError(t, err)
	after := applyPatch(t, raw, responseOf(t, post(h, reviewOfRaw(t, raw))))
	post(h, reviewOfRaw(t, after)) // reinvoked
	app := edgePod(t, "4KB")
	app.Spec.Containers = []corev1.Container{{Name: "app", Image: "corp/app"}}
	post(h, reviewOf(t, app))
	wrong := edgePod(t, "4KB")
	wrong.Annotations[policy.ModeKey] = "sidcar"
	post(h, reviewOf(t, wrong))

	assert.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
		# HELP isthmus_admission_total Reviews of pods, by profile (none when no profile matched), mode, outcome (patched, allowed, denied, error) and reason.
		# TYPE isthmus_admission_total counter
		isthmus_admission_total{mode="sidecar",outcome="patched",profile="emissary",reason="injected"} 1
		isthmus_admission_total{mode="none",outcome="allowed",profile="none",reason="no-profile"} 1
		isthmus_admission_total{mode="none",outcome="denied",profile="emissary",reason="invalid-override"} 1
	`), "isthmus_admission_total"))
	require.Len(t, lines, 4)
	assert.Contains(t, lines[0], `"msg"="reviewed pod" "namespace"="emissary" "pod"="emissary-ingress-7c9d8f6b54-"`)
	assert.Contains(t, lines[0], `"outcome"="patched" "reason"="injected" "profile"="emissary" "mode"="sidecar"`)
	assert.Contains(t, lines[0], `"warnings"=["files-not-reloaded"]`)
	assert.Contains(t, lines[1], `"reason"="already-injected"`)
	assert.Contains(t, lines[2], `"reason"="no-profile"`)
	assert.Contains(t, lines[3], `"outcome"="denied" "reason"="invalid-override"`)
}

// A server that stops cancels the contexts of its requests, but the requests in flight
// are still answered.
func TestRequestInFlightIsAnsweredDuringShutdown(t *testing.T) {
	h := newHandler(t, nil, logr.Discard())
	h.Namespaces = failingAfterCancel{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest(http.MethodPost, webhook.PodPath, strings.NewReader(string(reviewOf(t, edgePod(t, "4KB"))))).WithContext(ctx)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	assert.True(t, responseOf(t, w).Allowed)
}

// failingAfterCancel returns an error when the context has ended.
type failingAfterCancel struct{}

func (failingAfterCancel) Namespace(ctx context.Context, name string, _ bool) (policy.Namespace, error) {
	if ctx.Err() != nil {
		return policy.Namespace{}, ctx.Err()
	}
	return policy.Namespace{Name: name}, nil
}

// A client that does not send its review must not occupy the server for longer than
// the API server would wait.
func TestSlowClientIsSentAway(t *testing.T) {
	h := newHandler(t, nil, logr.Discard())
	h.Timeout = 100 * time.Millisecond
	server := httptest.NewServer(h)
	defer server.Close()
	connection, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = connection.Close() }()
	_, err = connection.Write([]byte("POST /inject/pod HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"))
	require.NoError(t, err)
	require.NoError(t, connection.SetReadDeadline(time.Now().Add(30*time.Second)))
	answer, err := io.ReadAll(connection)
	require.NoError(t, err, "the server must answer and close")
	assert.Contains(t, string(answer), "HTTP/1.1 400 Bad Request")
	assert.Contains(t, string(answer), "read review: ")
}

// Every pod gets a response. A patch applies, only adds to the pod, and is not made
// second.
func FuzzHandler(f *testing.F) {
	for _, size := range []string{"4KB", "10KB"} {
		raw, err := json.Marshal(edgePod(f, size))
		require.NoError(f, err)
		f.Add(raw)
	}
	f.Add([]byte(`{"metadata":{"annotations":{"isthmus.dev/status":"{}","isthmus.dev/inject":"true"}},"spec":{"containers":[{"image":"aes","env":null}]}}`))
	f.Add([]byte(`{"metadata":{"labels":{"isthmus.dev/inject":"true"}},"spec":{"hostNetwork":true,"volumes":[{"name":"istio-certs","emptyDir":{}}],"containers":[{"name":"x","image":"datawire/aes","volumeMounts":[{"name":"istio-certs","mountPath":"//a/../b/"}]}]}}`))
	h := newHandler(f, nil, logr.Discard())
	f.Fuzz(func(t *testing.T, raw []byte) {
		// The API server sends what it encoded itself: a pod with metadata, no
		// field twice.
		var pod map[string]any
		if err := json.Unmarshal(raw, &pod); err != nil {
			return
		}
		if _, ok := pod["metadata"].(map[string]any); !ok {
			return
		}
		raw, err := json.Marshal(pod)
		require.NoError(t, err)
		w := post(h, reviewOfRaw(t, raw))
		if w.Code != http.StatusOK {
			require.NotContains(t, w.Body.String(), "panic")
			return
		}
		r := responseOf(t, w)
		if !r.Allowed || len(r.Patch) == 0 {
			return
		}
		after := applyPatch(t, raw, r)
		assertContains(t, raw, after)
		second := responseOf(t, post(h, reviewOfRaw(t, after)))
		require.True(t, second.Allowed)
		require.Empty(t, second.Patch)
	})
}
