//go:build e2e

package lifecycle

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
)

// On the host's network the agent's port is a port of the node: an edge gets its identity
// there, and a second one on the same node waits.
func TestEdgeOnTheHostNetwork(t *testing.T) {
	t.Parallel()
	s := newNamespaceAtLevel(t, "host", "privileged", nil)
	edge := func(name string) *corev1.Pod {
		pod := withCertificateFolder(inspectorPod(name, "--remain"))
		pod.Spec.HostNetwork, pod.Spec.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet
		return pod
	}
	first := s.createReady(t, edge("first"))
	s.assertStartedOnce(t, first)
	ports := nativeSidecar(t, first).Ports
	require.Len(t, ports, 1)
	assert.EqualValues(t, patches.StatusPort, ports[0].HostPort, "the scheduler knows the port")

	second := edge("second")
	second.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: nodeNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{first.Spec.NodeName}},
		}}},
	}}}
	s.create(t, second)
	s.awaitPod(t, "second", func(pod *corev1.Pod) error {
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
				t.Logf("the second edge: %s", c.Message)
				assert.Contains(t, c.Message, "free ports for the requested pod ports")
				return nil
			}
		}
		return errors.New("the pod is not reported as unschedulable")
	})
}

// nodeNameField is the only field that a node can be selected by.
const nodeNameField = "metadata.name"
