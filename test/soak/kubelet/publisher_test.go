//go:build soak

package kubelet

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/patches"
)

const (
	// patience is how long the kubelet may take for something that it has to do.
	patience = 90 * time.Second
	// tries is how often the publisher fails before the pod is looked at; with
	// the kubelet's back-off of 10 s and 20 s that is half a minute.
	tries = 3
)

// form is where the publisher stands in a pod.
type form struct {
	name string
	edit func(testing.TB, *corev1.Pod)
}

var (
	ordinary = form{"ordinary", func(testing.TB, *corev1.Pod) {}}
	last     = form{"native, last", func(t testing.TB, pod *corev1.Pod) { native(t, pod, func(n int) int { return n }) }}
	first    = form{"native, first", func(t testing.TB, pod *corev1.Pod) { native(t, pod, func(int) int { return 0 }) }}
)

// The publisher is an ordinary container so that it cannot hold the edge back.
// The other forms are here for the reason: they do.
func TestPublisher(t *testing.T) {
	open(t)
	table := &table{}
	t.Cleanup(func() { t.Log(table.String()) })
	for name, c := range map[string]struct {
		form  form
		image string
		// edge and ready are what becomes of the edge's process and of the pod.
		edge, ready bool
	}{
		"if it runs, expect a ready pod":                                          {ordinary, "registry.example/isthmus:1", true, true},
		"if its image is missing, expect the edge":                                {ordinary, absent, true, false},
		"if it exits at once, expect the edge":                                    {ordinary, broken, true, false},
		"if it exits soon, expect the edge":                                       {ordinary, brittle, true, false},
		"if it runs as last native sidecar, expect a ready pod":                   {last, "registry.example/isthmus:1", true, true},
		"if the last native sidecar's image is missing, expect no edge":           {last, absent, false, false},
		"if the last native sidecar exits at once, expect no edge":                {last, broken, false, false},
		"if the last native sidecar exits soon, expect the edge":                  {last, brittle, true, false},
		"if it runs as first native sidecar, expect a ready pod":                  {first, "registry.example/isthmus:1", true, true},
		"if the first native sidecar's image is missing, expect not even agent":   {first, absent, false, false},
		"if the first native sidecar exits at once, expect not even the agent":    {first, broken, false, false},
		"if the first native sidecar exits soon, expect the edge after the agent": {first, brittle, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := newAgent(t)
			tag := c.image[strings.LastIndex(c.image, ":")+1:]
			pod := injected(t, strings.ReplaceAll(c.form.name, ", ", "-")+"-"+tag, c.image, agent.port)
			c.form.edit(t, pod)
			_, err := client.CoreV1().Pods(space).Create(t.Context(), pod, metav1.CreateOptions{})
			require.NoError(t, err)
			id := space + "/" + pod.Name

			held := false
			if c.form.name != first.name || c.edge {
				require.Eventually(t, func() bool { return agent.turned.Load() >= 5 }, patience, 100*time.Millisecond, "the agent is probed")
				assert.Zero(t, started(t, id, edgeName), "the edge waits for the agent's certificates")
				held = true
			}
			agent.ready.Store(true)
			if c.edge {
				require.Eventually(t, func() bool { return started(t, id, edgeName) > 0 }, patience, 100*time.Millisecond, "the edge starts")
			}
			if strings.HasSuffix(c.image, ":1") {
				require.Eventually(t, func() bool { return isTrue(look(t, pod.Name), corev1.PodReady) }, patience, 100*time.Millisecond, "the pod is ready")
			} else {
				require.Eventually(t, func() bool { return failed(t, id, c.image) >= tries }, patience, 100*time.Millisecond, "the publisher fails again and again")
			}

			seen := look(t, pod.Name)
			table.add(t, c.form, tag, seen, held)
			edges := 0
			if c.edge {
				edges = 1
			}
			assert.Equal(t, edges, started(t, id, edgeName), "starts of the edge")
			assert.Zero(t, count(t, id, func(l line) bool { return l.Did == "stopped" }), "containers that were stopped")
			assert.Equal(t, c.ready, isTrue(seen, corev1.PodReady), "the pod is ready")
			assert.Equal(t, c.edge, edgeIsReady(seen), "the edge's container is ready")
		})
	}
}

func look(t testing.TB, name string) *corev1.Pod {
	t.Helper()
	pod, err := client.CoreV1().Pods(space).Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	return pod
}

func isTrue(pod *corev1.Pod, condition corev1.PodConditionType) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == condition {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func edgeIsReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == edgeName {
			return c.Ready
		}
	}
	return false
}

// table is what was seen, a row for each pod.
type table struct {
	mu   sync.Mutex
	rows []string
}

func (o *table) add(t testing.TB, f form, tag string, pod *corev1.Pod, held bool) {
	id := space + "/" + pod.Name
	var states []string
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		states = append(states, c.Name+" "+state(c.State))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rows = append(o.rows, fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t%t\t%s\t%t\t%t\t%t\t%s", f.name, tag,
		started(t, id, patches.SidecarName), started(t, id, patches.PublisherName), started(t, id, edgeName), held,
		pod.Status.Phase, isTrue(pod, corev1.PodInitialized), isTrue(pod, corev1.ContainersReady), isTrue(pod, corev1.PodReady),
		strings.Join(states, ", ")))
}

func state(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "runs"
	case s.Waiting != nil:
		return s.Waiting.Reason
	case s.Terminated != nil:
		return fmt.Sprintf("exited with %d", s.Terminated.ExitCode)
	}
	return "?"
}

func (o *table) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	slices.Sort(o.rows)
	var b strings.Builder
	fmt.Fprintf(&b, "kubelet %s\n", release)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "publisher\timage\tagent\tpublisher\tedge\theld\tphase\tInitialized\tContainersReady\tReady\tcontainers")
	for _, row := range o.rows {
		fmt.Fprintln(w, row)
	}
	_ = w.Flush()
	return b.String()
}
