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
	// lifetime is the shortest that can be requested: the agent renews its files after 30 s,
	// publisher and controller want another certificate in the Secret after 20 s to 26 s.
	lifetime = "1m"
	// rotations is the number of rotations that the test waits for.
	rotations = 4
)

// Publishers write the certificates of their agents into the Secret: once for each
// certificate, however many publishers there are, and at once when a renewal is due.
func TestPublishersWriteEachRotationOnce(t *testing.T) {
	t.Parallel()
	const replicas, singleEdges = 6, 4
	agent := map[string]string{policy.SourceKey: "agent", policy.CertTTLKey: lifetime}
	shared := newNamespace(t, "publishers", agent)
	history := shared.watchSecret(t)
	shared.deploy(t, replicas)
	var singles []*singleEdge
	for i := range singleEdges {
		s := newNamespace(t, fmt.Sprintf("publisher-%d", i), agent)
		singles = append(singles, &singleEdge{s, s.watchSecret(t)})
		s.deploy(t, 1)
	}

	history.AwaitSerials(t, rotations+1, 2*podTimeout)
	var took []time.Duration
	for _, s := range singles {
		s.AwaitSerials(t, rotations+1, 2*podTimeout)
		took = append(took, s.latencies(t)...)
		assert.Empty(t, s.InvalidVersions())
	}
	slices.Sort(took)
	require.NotEmpty(t, took)
	measurements.add(fmt.Sprintf("rotated file to Secret, p99 of %d rotations of %d edges", len(took), singleEdges), "250 ms", "%d ms (median %d ms)",
		took[(len(took)*99+99)/100-1].Milliseconds(), took[len(took)/2].Milliseconds())

	assert.Empty(t, history.InvalidVersions())
	writes, unneeded := len(history.Versions()), history.UnneededWrites()
	observedRotations := writes - len(unneeded)
	measurements.add(fmt.Sprintf("writes a rotation, %d replicas, %d rotations", replicas, observedRotations), "1 with 50 replicas", "%.2f", float64(writes)/float64(observedRotations))
	assert.Empty(t, unneeded, "one write for each rotation")

	now := time.Now()
	measurements.add(fmt.Sprintf("publisher, greatest of %d after %d rotations", replicas, observedRotations), "20 MiB", "%.1f MiB", shared.maxMemory(t, shared.name, "app=edge", patches.PublisherName, now))
	measurements.add("agent, its limit 128 MiB", "36 MiB seen", "%.1f MiB", shared.maxMemory(t, shared.name, "app=edge", patches.SidecarName, now))
	measurements.add("controller", "150 MiB with 5,000", "%.1f MiB", shared.maxMemory(t, node.Namespace, "app.kubernetes.io/component=controller", "controller", now))
}

// singleEdge is a namespace with one edge.
type singleEdge struct {
	*testNamespace
	*environment.SecretHistory
}

// watchSecret validates every version of the Secret of the namespace.
func (s *testNamespace) watchSecret(t *testing.T) *environment.SecretHistory {
	t.Helper()
	client, err := kubernetes.NewForConfig(s.Admin)
	require.NoError(t, err)
	id, err := spiffeid.FromString(s.identity("default"))
	require.NoError(t, err)
	return (&environment.Environment{Kube: client}).WatchSecret(t, s.name, id)
}

// deploy creates edges that log when their certificates change.
func (s *testNamespace) deploy(t *testing.T, replicas int32) {
	t.Helper()
	pod := withCertificateFolder(inspectorPod("edge", "--remain", "--follow"))
	_, err := s.Client.AppsV1().Deployments(s.name).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "edge"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(replicas), Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations}, Spec: pod.Spec},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// latencies returns the times from the last file of a rotation to the watch event of the
// Secret that holds it. The clocks of node and test have to agree.
func (s *singleEdge) latencies(t *testing.T) []time.Duration {
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
	for _, version := range s.Versions()[1:] {
		at, found := written[version.Serial]
		require.True(t, found, "serial %s is in the Secret, and in no edge's files", version.Serial)
		took = append(took, version.Seen.Sub(at))
	}
	return took
}
