//go:build soak

package kubelet

import (
	"fmt"
	"slices"
	"strings"
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
	// A pod whose publisher fails is looked at after this time and so many
	// failures; the kubelet backs off for 10 s, then for 20 s.
	trial  = 30 * time.Second
	trials = 3
)

// form is where the publisher stands in a pod.
type form struct {
	name string
	edit func(testing.TB, *corev1.Pod)
}

var (
	ordinary = form{"ordinary", func(testing.TB, *corev1.Pod) {}}
	front    = form{"ordinary-first", func(_ testing.TB, pod *corev1.Pod) { slices.Reverse(pod.Spec.Containers) }}
	last     = form{"native-last", func(t testing.TB, pod *corev1.Pod) { native(t, pod, func(n int) int { return n }) }}
	first    = form{"native-first", func(t testing.TB, pod *corev1.Pod) { native(t, pod, func(int) int { return 0 }) }}
)

// outcome is what becomes of a pod.
type outcome struct {
	// agent is true where its container starts.
	agent bool
	edge  starts
	ready bool
}

// starts says how often a container starts: at least so often, and more often
// only for again.
type starts int

const (
	never starts = iota
	once
	again
)

// The publisher is an ordinary container, after the edge, so that it cannot hold
// the edge back. The other forms are here for the reason: they would.
func TestPublisher(t *testing.T) {
	open(t)
	cases := map[string]struct {
		form        form
		edge, image string
		expect      outcome
	}{
		"if it runs, expect a ready pod":                            {ordinary, steady, sound, outcome{true, once, true}},
		"if its image is missing, expect the edge":                  {ordinary, steady, absent, outcome{true, once, false}},
		"if its image never comes, expect the edge":                 {ordinary, steady, stuck, outcome{true, once, false}},
		"if it exits at once, expect the edge":                      {ordinary, steady, broken, outcome{true, once, false}},
		"if it exits soon, expect the edge":                         {ordinary, steady, brittle, outcome{true, once, false}},
		"if the edge exits beside a missing image, expect it again": {ordinary, crashing, absent, outcome{true, again, false}},
		// Pulling is part of the pod's one loop, so nothing restarts meanwhile.
		"if the edge exits while the image is pulled, expect it to wait": {ordinary, crashing, stuck, outcome{true, once, false}},
		"if the edge exits beside one that exits, expect it again":       {ordinary, crashing, broken, outcome{true, again, false}},
		"if its image is missing and it comes first, expect the edge":    {front, steady, absent, outcome{true, once, false}},
		"if its image never comes and it comes first, expect no edge":    {front, steady, stuck, outcome{true, never, false}},
		"if it runs as the last native sidecar, expect a ready pod":      {last, steady, sound, outcome{true, once, true}},
		"if the last native sidecar's image is missing, expect no edge":  {last, steady, absent, outcome{true, never, false}},
		"if the last native sidecar's image never comes, expect none":    {last, steady, stuck, outcome{true, never, false}},
		"if the last native sidecar exits at once, expect no edge":       {last, steady, broken, outcome{true, never, false}},
		"if the last native sidecar exits soon, expect the edge":         {last, steady, brittle, outcome{true, once, false}},
		"if it runs as the first native sidecar, expect a ready pod":     {first, steady, sound, outcome{true, once, true}},
		"if the first native sidecar's image is missing, expect none":    {first, steady, absent, outcome{false, never, false}},
		"if the first native sidecar's image never comes, expect none":   {first, steady, stuck, outcome{false, never, false}},
		"if the first native sidecar exits at once, expect none":         {first, steady, broken, outcome{false, never, false}},
		"if the first native sidecar exits soon, expect the edge":        {first, steady, brittle, outcome{true, once, false}},
	}
	// All pods live at the same time, on one node.
	agents := map[string]*agent{}
	pods := map[string]string{}
	for name, c := range cases {
		agents[name] = newAgent(t)
		pod := injected(t, fmt.Sprintf("%s-%s-%s", c.form.name, tag(c.image), tag(c.edge)), c.edge, c.image, agents[name].port)
		c.form.edit(t, pod)
		_, err := client.CoreV1().Pods(space).Create(t.Context(), pod, metav1.CreateOptions{})
		require.NoError(t, err)
		pods[name] = pod.Name
	}
	for name, c := range cases {
		if c.expect.agent {
			require.Eventually(t, func() bool { return agents[name].turned.Load() >= 5 }, patience, 100*time.Millisecond, "%s: the agent is probed", name)
		}
		assert.Zero(t, started(t, pods[name], edgeName), "%s: the edge waits for the agent", name)
		agents[name].ready.Store(true)
	}
	probed := time.Now()

	seen := &table{}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := pods[name]
			require.Eventually(t, func() bool { return started(t, pod, edgeName) >= int(c.expect.edge) }, patience, 100*time.Millisecond, "the edge starts")
			var got *corev1.Pod
			switch c.image {
			case sound:
				require.Eventually(t, func() bool {
					got = look(t, pod)
					return isTrue(got, corev1.PodReady)
				}, patience, 100*time.Millisecond, "the pod is ready")
			case stuck:
				require.Eventually(t, func() bool { return time.Since(probed) >= trial }, patience, 100*time.Millisecond)
				got = look(t, pod)
			default:
				require.Eventually(t, func() bool {
					got = look(t, pod)
					return time.Since(probed) >= trial && failed(t, pod, c.image) >= trials && !publisherRuns(got)
				}, patience, 100*time.Millisecond, "the publisher fails again and again")
			}
			seen.add(t, c.form, c.edge, c.image, got)

			assert.Equal(t, c.expect.agent, started(t, pod, patches.SidecarName) == 1, "the agent starts, once")
			if c.expect.edge != again {
				assert.Equal(t, int(c.expect.edge), started(t, pod, edgeName), "starts of the edge")
			}
			if c.edge == steady {
				assert.Zero(t, ended(t, pod, edgeName), "the edge ends")
			}
			if c.edge == steady && c.image != stuck { // while it is pulled the status says nothing new
				assert.Equal(t, c.expect.edge == once, edgeIsReady(got), "the edge's container is ready")
			}
			assert.Equal(t, c.expect.ready, isTrue(got, corev1.PodReady), "the pod is ready")
		})
	}
	t.Log(seen)
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
	for _, c := range containers(pod) {
		if c.Name == edgeName {
			return c.Ready
		}
	}
	return false
}

func publisherRuns(pod *corev1.Pod) bool {
	for _, c := range containers(pod) {
		if c.Name == patches.PublisherName {
			return c.State.Running != nil
		}
	}
	return false
}

// containers returns the status of each container, in the order of their starts.
func containers(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

func tag(image string) string {
	_, found, _ := strings.Cut(image, ":")
	return found
}

// table is what was seen, a row for each pod.
type table struct{ rows []string }

func (o *table) add(t testing.TB, f form, edge, image string, pod *corev1.Pod) {
	var states []string
	for _, c := range containers(pod) {
		states = append(states, c.Name+" "+state(c.State))
	}
	o.rows = append(o.rows, fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t%d (%s)\t%s\t%t\t%t\t%s", f.name, tag(image),
		started(t, pod.Name, patches.SidecarName), started(t, pod.Name, patches.PublisherName), failed(t, pod.Name, image), started(t, pod.Name, edgeName), tag(edge),
		pod.Status.Phase, isTrue(pod, corev1.PodInitialized), isTrue(pod, corev1.PodReady), strings.Join(states, ", ")))
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
	slices.Sort(o.rows)
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "kubelet %s; starts of containers, and what the pod's status says:\n", release)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "publisher\timage\tagent\tpublisher\tits failures\tedge\tphase\tInitialized\tReady\tcontainers")
	for _, row := range o.rows {
		_, _ = fmt.Fprintln(w, row)
	}
	_ = w.Flush()
	return b.String()
}
