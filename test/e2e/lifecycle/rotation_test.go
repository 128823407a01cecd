//go:build e2e

package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	// lifetime is the shortest that may be asked for: the agent renews its files after
	// 30 s, publisher and controller want another certificate in the Secret after 20 s
	// to 26 s.
	lifetime = "1m"
	// several is how many rotations are awaited.
	several = 4
)

// Publishers write the certificates of their agents into the Secret: one write for
// each that gets there, however many there are, and at once where one is due.
func TestPublishers(t *testing.T) {
	t.Parallel()
	const replicas, singles = 6, 4
	agent := map[string]string{policy.SourceKey: "agent", policy.CertTTLKey: lifetime}
	many := open(t, "publishers", agent)
	crowd := many.follow(t)
	many.deploy(t, replicas)
	var alone []*single
	for i := range singles {
		s := open(t, fmt.Sprintf("publisher-%d", i), agent)
		alone = append(alone, &single{s, s.follow(t)})
		s.deploy(t, 1)
	}

	crowd.AwaitSerials(t, several+1, 2*wherever)
	var took []time.Duration
	for _, s := range alone {
		s.AwaitSerials(t, several+1, 2*wherever)
		took = append(took, s.latencies(t)...)
		assert.Empty(t, s.InvalidVersions())
	}
	slices.Sort(took)
	require.NotEmpty(t, took)
	numbers.add(fmt.Sprintf("rotated file to Secret, p99 of %d rotations of %d edges", len(took), singles), "250 ms", "%d ms (median %d ms)",
		took[(len(took)*99+99)/100-1].Milliseconds(), took[len(took)/2].Milliseconds())

	assert.Empty(t, crowd.InvalidVersions())
	writes, needless := len(crowd.Versions()), crowd.UnneededWrites()
	rotations := writes - len(needless)
	numbers.add(fmt.Sprintf("writes a rotation, %d replicas, %d rotations", replicas, rotations), "1 with 50 replicas", "%.2f", float64(writes)/float64(rotations))
	assert.Empty(t, needless, "one write for each rotation")

	now := time.Now()
	numbers.add(fmt.Sprintf("publisher, greatest of %d after %d rotations", replicas, rotations), "20 MiB", "%.1f MiB", many.greatest(t, many.name, "app=edge", patches.PublisherName, now))
	numbers.add("agent, its limit 128 MiB", "36 MiB seen", "%.1f MiB", many.greatest(t, many.name, "app=edge", patches.SidecarName, now))
	numbers.add("controller", "150 MiB with 5,000", "%.1f MiB", many.greatest(t, node.Namespace, "app.kubernetes.io/component=controller", "controller", now))
}

// single is the namespace of one edge.
type single struct {
	*space
	*environment.SecretHistory
}

// follow judges every version of the Secret here.
func (s *space) follow(t *testing.T) *environment.SecretHistory {
	t.Helper()
	client, err := kubernetes.NewForConfig(s.Admin)
	require.NoError(t, err)
	id, err := spiffeid.FromString(s.identity("default"))
	require.NoError(t, err)
	return (&environment.Environment{Kube: client}).WatchSecret(t, s.name, id)
}

// deploy creates edges that say when their certificates change.
func (s *space) deploy(t *testing.T, replicas int32) {
	t.Helper()
	pod := withFolder(witness("edge", "--remain", "--follow"))
	_, err := s.Client.AppsV1().Deployments(s.name).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "edge"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(replicas), Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// latencies are the times from the last file of a rotation to the watch that shows
// it in the Secret. The clocks of node and test have to agree.
func (s *single) latencies(t *testing.T) []time.Duration {
	t.Helper()
	written := map[string]time.Time{}
	for _, pod := range s.edges(t, "edge") {
		text, err := s.Client.CoreV1().Pods(s.name).GetLogs(pod.Name, &corev1.PodLogOptions{Container: "edge"}).DoRaw(context.WithoutCancel(t.Context()))
		require.NoError(t, err)
		for line := range bytes.Lines(text) {
			var change struct {
				Serial  string    `json:"serial"`
				Written time.Time `json:"written"`
			}
			require.NoError(t, json.Unmarshal(line, &change))
			if !change.Written.IsZero() {
				written[change.Serial] = change.Written
			}
		}
	}
	var took []time.Duration
	for _, entry := range s.Versions()[1:] {
		at, found := written[entry.Serial]
		require.True(t, found, "serial %s is in the Secret, and in no edge's files", entry.Serial)
		took = append(took, entry.Seen.Sub(at))
	}
	return took
}
