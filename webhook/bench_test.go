package webhook_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	kjson "sigs.k8s.io/json"

	"github.com/isthmus-mesh/isthmus/webhook"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// BenchmarkFloor measures the minimum of every admission server: decoding the review
// and its pod, with the decoder that the API server uses.
func BenchmarkFloor(b *testing.B) {
	for _, size := range []string{"4KB", "10KB"} {
		body := reviewOf(b, edgePod(b, size))
		b.Run(size, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var review admissionv1.AdmissionReview
				if err := kjson.UnmarshalCaseSensitivePreserveInts(body, &review); err != nil {
					b.Fatal(err)
				}
				var pod corev1.Pod
				if err := kjson.UnmarshalCaseSensitivePreserveInts(review.Request.Object.Raw, &pod); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkHandler measures a complete request, with a real log encoder and metrics.
func BenchmarkHandler(b *testing.B) {
	unmatched := edgePod(b, "4KB")
	unmatched.Labels = map[string]string{"app": "frontend"}
	for i := range unmatched.Spec.Containers {
		unmatched.Spec.Containers[i].Image = "registry.corp.example/shop/frontend:1.4"
		unmatched.Spec.Containers[i].Env = nil
		unmatched.Spec.Containers[i].ReadinessProbe = nil
		unmatched.Spec.Containers[i].LivenessProbe = nil
		unmatched.Spec.Containers[i].StartupProbe = nil
	}
	invalid := edgePod(b, "4KB")
	invalid.Annotations[policy.DeliveryKey] = "pigeon"
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"inject/4KB", edgePod(b, "4KB"), `"patchType":"JSONPatch"`},
		{"inject/10KB", edgePod(b, "10KB"), `"patchType":"JSONPatch"`},
		{"skip", unmatched, `"reason":"no-profile"`},
		{"deny", invalid, `"allowed":false`},
	} {
		body := reviewOf(b, c.pod)
		b.Run(c.name, func(b *testing.B) {
			metrics, err := webhook.NewMetrics(prometheus.NewRegistry())
			if err != nil {
				b.Fatal(err)
			}
			handler := newHandler(b, metrics, zap.New(zap.WriteTo(io.Discard)))
			w := post(handler, body)
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), c.want) {
				b.Fatalf("%d %s", w.Code, w.Body)
			}
			want, reader := w.Body.Len(), bytes.NewReader(nil)
			r := httptest.NewRequest(http.MethodPost, webhook.NamespacePath, reader)
			r.Header.Set("Content-Type", "application/json")
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(body)
				w.Body.Reset()
				handler.ServeHTTP(w, r)
				if w.Body.Len() != want {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
			}
		})
	}
}

func post(h http.Handler, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, webhook.NamespacePath, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
