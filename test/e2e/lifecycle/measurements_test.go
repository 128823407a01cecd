//go:build e2e

package lifecycle

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// measurements are printed at the end.
var measurements table

// table has a row for each measurement, with the limit that is set for it.
type table struct {
	mu   sync.Mutex
	rows [][3]string
}

func (t *table) add(name, bar, format string, arguments ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, [3]string{name, bar, fmt.Sprintf(format, arguments...)})
}

func (t *table) print(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(columns, "measured on the node\tbar\there")
	for _, row := range t.rows {
		_, _ = fmt.Fprintln(columns, strings.Join(row[:], "\t"))
	}
	_ = columns.Flush()
}

// memoryUse is the working set of a container, as a kubelet measured it.
type memoryUse struct {
	namespace, pod, container string
	bytes                     float64
	at                        time.Time
}

var workingSet = regexp.MustCompile(`(?m)^container_memory_working_set_bytes\{container="([^"]+)",namespace="([^"]+)",pod="([^"]+)"\} (\S+) (\d+)$`)

// memoryUses reads the metrics of all kubelets.
func memoryUses(ctx context.Context) ([]memoryUse, error) {
	nodes, err := cluster.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var found []memoryUse
	for i := range nodes.Items {
		text, err := cluster.Client.CoreV1().RESTClient().Get().Resource("nodes").Name(nodes.Items[i].Name).SubResource("proxy").Suffix("metrics/resource").DoRaw(ctx)
		if err != nil {
			return nil, err
		}
		for _, m := range workingSet.FindAllStringSubmatch(string(text), -1) {
			bytes, err := strconv.ParseFloat(m[4], 64)
			if err != nil {
				return nil, err
			}
			at, err := strconv.ParseInt(m[5], 10, 64)
			if err != nil {
				return nil, err
			}
			found = append(found, memoryUse{namespace: m[2], pod: m[3], container: m[1], bytes: bytes, at: time.UnixMilli(at)})
		}
	}
	return found, nil
}

// maxMemory waits until the kubelets have measured every running pod that the selector
// matches, later than after. It returns the largest working set of a container of this name
// in these pods, in MiB.
func (s *testNamespace) maxMemory(t *testing.T, namespace, selector, container string, after time.Time) float64 {
	t.Helper()
	var found memoryUse
	s.await(t, func(ctx context.Context) error {
		pods, err := s.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector, FieldSelector: "status.phase=" + string(corev1.PodRunning)})
		if err != nil {
			return err
		}
		all, err := memoryUses(ctx)
		if err != nil {
			return err
		}
		var measured []memoryUse
		for i := range pods.Items {
			j := slices.IndexFunc(all, func(u memoryUse) bool {
				return u.namespace == pods.Items[i].Namespace && u.pod == pods.Items[i].Name && u.container == container && u.at.After(after)
			})
			if j < 0 {
				return fmt.Errorf("%s of pod %s/%s was not measured since %s", container, pods.Items[i].Namespace, pods.Items[i].Name, after)
			}
			measured = append(measured, all[j])
		}
		if len(measured) == 0 {
			return fmt.Errorf("no pod with %s runs in %q", selector, namespace)
		}
		found = slices.MaxFunc(measured, func(a, b memoryUse) int { return cmp.Compare(a.bytes, b.bytes) })
		return nil
	})
	return found.bytes / (1 << 20)
}

// The test measures the webhook's memory with 100 opted-in namespaces, idle and after
// reviews. It runs before the parallel tests. The namespaces stay until the end, because
// deleting so many keeps a small cluster busy for a minute.
func TestMemoryOfTheWebhook(t *testing.T) {
	const namespaces, reviews, workers = 100, 2000, 8
	s := newNamespace(t, "reviews", nil)
	api := s.Client.CoreV1().Namespaces()
	name := func(i int) string { return fmt.Sprintf("%s-%d", s.name, i) }
	inParallel(workers, namespaces, func(i int) {
		_, err := api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name(i), Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}}, metav1.CreateOptions{})
		if err != nil {
			t.Error(err)
		}
	})
	const webhook = "app.kubernetes.io/component=webhook"
	idle := s.maxMemory(t, node.Namespace, webhook, "webhook", time.Now())
	measurements.add(fmt.Sprintf("webhook, %d namespaces, idle", namespaces), "48 MiB", "%.1f MiB", idle)
	start := time.Now()
	inParallel(workers, reviews, func(i int) {
		_, err := s.Client.CoreV1().Pods(name(i%namespaces)).Create(t.Context(), inspectorPod("review"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			t.Error(err)
		}
	})
	took := time.Since(start)
	measurements.add(fmt.Sprintf("webhook, after %d reviews (%.0f a second)", reviews, reviews/took.Seconds()), "64 MiB after 100,000", "%.1f MiB", s.maxMemory(t, node.Namespace, webhook, "webhook", time.Now()))
	require.False(t, t.Failed())
}

// inParallel calls do with every number below n, several at a time.
func inParallel(workers, n int, do func(int)) {
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := worker; i < n; i += workers {
				do(i)
			}
		})
	}
	group.Wait()
}
