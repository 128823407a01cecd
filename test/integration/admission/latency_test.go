package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// latencyPairs is how many pods each number of clients creates with the webhook, and as
// many without.
const latencyPairs = 1_000

// BenchmarkCreate prints what the webhook adds to the creation of an edge pod through the
// API server. Each client creates the same pod in a labelled namespace and in one for
// which no webhook is called, in turn, so that both see the same machine.
func BenchmarkCreate(b *testing.B) {
	ctx := context.Background()
	config := rest.CopyConfig(env.config)
	config.QPS = -1 // the client must not wait for itself
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	pod := latencyPod(b)
	for _, clients := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			reviewed, removeReviewed := latencyNamespace(ctx, b, enabled)
			defer removeReviewed()
			plain, removePlain := latencyNamespace(ctx, b)
			defer removePlain()
			for b.Loop() {
				with, without := createPairs(ctx, b, client, pod, reviewed, plain, clients)
				for _, p := range []struct {
					name string
					of   func([]time.Duration) time.Duration
				}{{"p50", percentile(0.50)}, {"p99", percentile(0.99)}} {
					b.ReportMetric(milliseconds(p.of(without)), p.name+"-without-ms")
					b.ReportMetric(milliseconds(p.of(with)), p.name+"-with-ms")
					b.ReportMetric(milliseconds(p.of(with)-p.of(without)), p.name+"-added-ms")
				}
			}
		})
	}
}

// latencyPod is the fixture of 4 KB as a user would create it.
func latencyPod(b *testing.B) *corev1.Pod {
	b.Helper()
	data, err := os.ReadFile("../../../webhook/testdata/emissary-4k.json")
	if err != nil {
		b.Fatal(err)
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(data, pod); err != nil {
		b.Fatal(err)
	}
	pod.ObjectMeta = metav1.ObjectMeta{GenerateName: "edge-", Labels: pod.Labels, Annotations: pod.Annotations}
	pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = "default", ""
	pod.Status = corev1.PodStatus{}
	return pod
}

func latencyNamespace(ctx context.Context, b *testing.B, changes ...change) (name string, remove func()) {
	b.Helper()
	name, removeNamespace, err := env.createNamespace(ctx, changes...)
	if err != nil {
		b.Fatal(err)
	}
	return name, func() {
		if err := removeNamespace(ctx); err != nil {
			b.Error(err)
		}
	}
}

// createPairs creates pods in both namespaces and returns how long each took.
func createPairs(ctx context.Context, b *testing.B, client kubernetes.Interface, pod *corev1.Pod, reviewed, plain string, clients int) (with, without []time.Duration) {
	b.Helper()
	create := func(namespace string, wantInjected bool) (time.Duration, error) {
		start := time.Now()
		created, err := client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
		duration := time.Since(start)
		if err == nil && isInjected(created) != wantInjected {
			err = fmt.Errorf("pod %s/%s: injected %t", namespace, created.Name, !wantInjected)
		}
		return duration, err
	}
	var mu sync.Mutex
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for i := range latencyPairs / clients {
				var took [2]time.Duration
				for j := range 2 {
					n := (i + j) % 2 // each is first in every other pair
					var err error
					if took[n], err = create([]string{plain, reviewed}[n], n == 1); err != nil {
						b.Error(err)
						return
					}
				}
				mu.Lock()
				without, with = append(without, took[0]), append(with, took[1])
				mu.Unlock()
			}
		})
	}
	running.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return with, without
}

func percentile(p float64) func([]time.Duration) time.Duration {
	return func(durations []time.Duration) time.Duration {
		sorted := slices.Sorted(slices.Values(durations))
		return sorted[int(p*float64(len(sorted)-1))]
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
