package admission

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	memoryNamespaces = 100
	memoryReviews    = 100_000
)

// BenchmarkMemory prints the resident memory of a webhook in a cluster with 100 opted-in
// namespaces, idle and after 100,000 reviews of a pod of Emissary. Without the race
// detector it is the process of the chart's Deployment.
func BenchmarkMemory(b *testing.B) {
	ctx := context.Background()
	pod, err := os.ReadFile("../../../webhook/testdata/emissary-4k.json")
	if err != nil {
		b.Fatal(err)
	}
	for i := range memoryNamespaces {
		name := fmt.Sprintf("memory-%d", i)
		_, err := env.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"isthmus.dev/injection": "enabled"},
		}}, metav1.CreateOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = env.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}) })
	}
	for b.Loop() {
		r, err := env.startReplica(ctx, "--log-level=info")
		if err != nil {
			b.Fatal(err)
		}
		idle := residentMiB(b, r)
		if err := sendReviews(ctx, r, pod, memoryReviews); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(idle, "MiB-idle")
		b.ReportMetric(residentMiB(b, r), "MiB-after")
		if err := r.stop(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

// sendReviews sends reviews to one replica, 16 at a time.
func sendReviews(ctx context.Context, r *replica, pod []byte, reviews int64) error {
	transport, err := transportFor(env.caBundle(ctx))
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	transport.MaxIdleConnsPerHost = loadClients
	url := fmt.Sprintf("https://127.0.0.1:%d/inject/namespace", r.port)
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var clients sync.WaitGroup
	var sent atomic.Int64
	for range loadClients {
		clients.Go(func() {
			for n := sent.Add(1); n <= reviews && ctx.Err() == nil; n = sent.Add(1) {
				response, err := postReview(ctx, transport, url, podRequest(fmt.Sprintf("memory-%d", n%memoryNamespaces), pod))
				if err == nil && (response.status != http.StatusOK || !bytes.Contains(response.body, []byte(`"patch"`))) {
					err = fmt.Errorf("HTTP %d: %s", response.status, response.body)
				}
				if err != nil {
					fail(err)
				}
			}
		})
	}
	clients.Wait()
	return context.Cause(ctx)
}

// residentMiB is VmRSS in MiB, which is at least as much as a container's working set.
func residentMiB(b *testing.B, r *replica) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.command.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	text, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kib, err := strconv.ParseFloat(text, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
