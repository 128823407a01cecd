package injector

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
	"github.com/isthmus-mesh/isthmus/webhook"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	costRounds = 20
	// costReviews is how many reviews one injector gets in a round. The injectors take
	// turns, so that both see the same machine.
	costReviews = 50
)

// BenchmarkReviewCost sends the same reviews to the real istiod and to Isthmus' webhook,
// and prints how many times more Istio's injector costs: as CPU time of the processes, with
// HTTPS, and as the time that its handler measures (sidecar_injection_time_seconds), which
// does not include decoding, against the time of Isthmus' handler, which does.
func BenchmarkReviewCost(b *testing.B) {
	ctx := context.Background()
	namespace, err := createNamespace(ctx, "", keyValues{"isthmus.dev/injection": "enabled", "istio-injection": "enabled"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = env.Kube.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}) })
	for _, size := range []string{"4k", "10k"} {
		b.Run(size, func(b *testing.B) {
			body := costReview(b, namespace, "../../../webhook/testdata/emissary-"+size+".json")
			ours, theirs := costClients(ctx, b)
			handler := costHandler(b)
			for range costReviews { // fill caches and open connections
				ours.send(ctx, b, body)
				theirs.send(ctx, b, body)
			}
			for b.Loop() {
				injectionsBefore, secondsBefore := injectionTime(ctx, b)
				var handlerTimes []time.Duration
				for range costRounds {
					ours.sendRound(ctx, b, body)
					theirs.sendRound(ctx, b, body)
					for range costReviews {
						handlerTimes = append(handlerTimes, timeHandler(b, handler, body))
					}
				}
				injections, seconds := injectionTime(ctx, b)
				istioHandler := (seconds - secondsBefore) / (injections - injectionsBefore) * 1000
				isthmusHandler := mean(handlerTimes)
				reviews := float64(costRounds * costReviews)
				b.ReportMetric(theirs.cpu.Seconds()*1000/reviews, "istio-cpu-ms")
				b.ReportMetric(ours.cpu.Seconds()*1000/reviews, "isthmus-cpu-ms")
				b.ReportMetric(theirs.cpu.Seconds()/ours.cpu.Seconds(), "cpu-ratio")
				b.ReportMetric(istioHandler, "istio-handler-ms")
				b.ReportMetric(isthmusHandler, "isthmus-handler-ms")
				b.ReportMetric(istioHandler/isthmusHandler, "handler-ratio")
			}
		})
	}
}

// costReview returns the review of a pod that both injectors edit: without the key with
// which Emissary's manifests opt out of Istio's injector.
func costReview(b *testing.B, namespace, file string) []byte {
	b.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(data, pod); err != nil {
		b.Fatal(err)
	}
	delete(pod.Labels, policy.IstioInjectKey)
	delete(pod.Annotations, policy.IstioInjectKey)
	pod.Namespace = namespace
	if data, err = json.Marshal(pod); err != nil {
		b.Fatal(err)
	}
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "11111111-2222-3333-4444-555555555555", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Namespace: namespace, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: data},
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	return body
}

// costClient sends reviews to one injector, over one connection.
type costClient struct {
	url       string
	transport *http.Transport
	pid       int
	// cpu is what the injector's process has used in all rounds.
	cpu time.Duration
}

func costClients(ctx context.Context, b *testing.B) (ours, theirs *costClient) {
	b.Helper()
	configuration, err := env.Kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, "isthmus-injector", metav1.GetOptions{})
	if err != nil {
		b.Fatal(err)
	}
	roots, err := env.Istiod.Roots(ctx, istio.Namespace)
	if err != nil {
		b.Fatal(err)
	}
	client := func(url string, roots []byte, pid int) *costClient {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(roots) {
			b.Fatalf("no roots for %s", url)
		}
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
		b.Cleanup(transport.CloseIdleConnections)
		return &costClient{url: url, transport: transport, pid: pid}
	}
	return client(env.webhook.ReviewURL+"/inject/namespace", configuration.Webhooks[0].ClientConfig.CABundle, env.webhook.PID()),
		client(env.Istiod.InjectURL(), roots, env.Istiod.PID())
}

func (c *costClient) sendRound(ctx context.Context, b *testing.B, body []byte) {
	b.Helper()
	before := processCPU(b, c.pid)
	for range costReviews {
		c.send(ctx, b, body)
	}
	c.cpu += processCPU(b, c.pid) - before
}

func (c *costClient) send(ctx context.Context, b *testing.B, body []byte) {
	b.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil || !bytes.Contains(answer, []byte(`"patchType":"JSONPatch"`)) {
		b.Fatalf("%s: %v, %d: %.300s", c.url, err, response.StatusCode, answer)
	}
}

// processCPU returns the CPU time of a process, from /proc.
func processCPU(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	ticks := 0
	for _, field := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// injectionTime returns how many reviews istiod has answered and how many seconds its
// handler took.
func injectionTime(ctx context.Context, b *testing.B) (count, seconds float64) {
	b.Helper()
	text, err := scrape.Get(ctx, "http://"+env.Istiod.MonitoringAddress+"/metrics")
	if err != nil {
		b.Fatal(err)
	}
	for name, value := range map[string]*float64{"sidecar_injection_time_seconds_count": &count, "sidecar_injection_time_seconds_sum": &seconds} {
		if *value, err = scrape.Sum(text, name); err != nil {
			b.Fatal(err)
		}
	}
	return count, seconds
}

// costHandler returns Isthmus' handler in this process.
func costHandler(b *testing.B) http.Handler {
	b.Helper()
	engine, err := inject.New(inject.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return &webhook.Handler{Engine: engine, Namespaces: labelledNamespaces{}, Memory: webhook.NewMemoryBudget(), Log: logr.Discard(), Labelled: true}
}

type labelledNamespaces struct{}

func (labelledNamespaces) Namespace(_ context.Context, name string, _ bool) (policy.Namespace, error) {
	return policy.Namespace{Name: name, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}, nil
}

func timeHandler(b *testing.B, h http.Handler, body []byte) time.Duration {
	b.Helper()
	r := httptest.NewRequest(http.MethodPost, webhook.NamespacePath, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	start := time.Now()
	h.ServeHTTP(w, r)
	duration := time.Since(start)
	if !bytes.Contains(w.Body.Bytes(), []byte(`"patchType":"JSONPatch"`)) {
		b.Fatalf("%d: %.300s", w.Code, w.Body)
	}
	return duration
}

// mean returns the mean in milliseconds, as Istio's metric has it.
func mean(durations []time.Duration) float64 {
	sum := time.Duration(0)
	for _, d := range durations {
		sum += d
	}
	return sum.Seconds() * 1000 / float64(len(durations))
}
