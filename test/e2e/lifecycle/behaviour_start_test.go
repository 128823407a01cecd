//go:build e2e

package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The edge's process starts when its certificates exist: it waits while no server answers at
// istiod's address, and starts exactly once after a server answers.
func TestEdgeWaitsForItsCertificate(t *testing.T) {
	t.Parallel()
	s := newNamespace(t, "start", nil)
	d := s.istiodAlias(t)
	waitingEdge := inspectorPod("late", "--remain")
	waitingEdge.Spec.HostAliases = []corev1.HostAlias{{IP: d.address, Hostnames: []string{"istiod." + node.IstioNamespace + ".svc"}}}
	s.create(t, withCertificateFolder(waitingEdge))

	s.await(t, func(ctx context.Context) error {
		failedProbes, err := s.failedProbes(ctx, "late")
		if err == nil && failedProbes < 3 {
			err = fmt.Errorf("%d probes of the agent have failed", failedProbes)
		}
		return err
	})
	waiting := s.awaitPod(t, "late", func(pod *corev1.Pod) error {
		if containerStatus(pod, patches.SidecarName).State.Running == nil {
			return errors.New("the agent does not run")
		}
		return nil
	})
	assert.False(t, hasCondition(waiting, corev1.PodInitialized))
	assert.Empty(t, containerStatus(waiting, "edge").ContainerID, "the edge was created early: %s", describeContainers(waiting))

	d.pointToIstiod(t)
	started := s.awaitPod(t, "late", isReady)
	s.assertStartedOnce(t, started)
}

// Every mode that is documented to pass Pod Security "restricted" passes it and runs in a
// namespace where the API server enforces it. An edge that reads files finds them when it
// starts.
func TestModesUnderRestrictedPodSecurity(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		annotations map[string]string
		containers  []string
		folder      string
	}{
		"sidecar": {nil, []string{patches.SidecarName, "edge"}, patches.DefaultCertDir},
		"deliver": {map[string]string{policy.DeliveryKey: "secret"}, []string{patches.SidecarName, "edge"}, patches.DefaultCertDir},
		"publish": {map[string]string{policy.SourceKey: "agent"}, []string{patches.SidecarName, "edge", patches.PublisherName}, patches.DefaultCertDir},
		"secret":  {map[string]string{policy.ModeKey: "secret"}, []string{"edge"}, patches.DefaultCertDir},
		"ambient": {map[string]string{policy.ModeKey: "ambient"}, []string{"edge"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newNamespace(t, "restricted-"+name, test.annotations)
			edge := inspectorPod("edge", "--remain", "--folder=/")
			if test.folder != "" {
				edge = withCertificateFolder(inspectorPod("edge", "--remain"))
			}
			pod := s.createReady(t, edge)
			var containers []string
			for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
				containers = append(containers, c.Name)
			}
			assert.Equal(t, test.containers, containers)
			if test.folder != "" {
				s.assertStartedOnce(t, pod)
			}
		})
	}
}

// assertStartedOnce checks that the edge started after the agent, with a certificate, and
// that neither restarted.
func (s *testNamespace) assertStartedOnce(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	edge, agent := containerStatus(pod, "edge"), containerStatus(pod, patches.SidecarName)
	v := s.firstView(t, pod.Name, "edge")
	assert.Empty(t, v.Pair, "the error of the key pair when the edge started")
	assert.Equal(t, s.identity("default"), v.ID)
	assert.Zero(t, edge.RestartCount)
	require.NotNil(t, edge.State.Running, describeContainers(pod))
	if agent.State.Running != nil {
		assert.Zero(t, agent.RestartCount)
		assert.False(t, edge.State.Running.StartedAt.Before(&agent.State.Running.StartedAt), "the edge started at %s, the agent at %s", edge.State.Running.StartedAt, agent.State.Running.StartedAt)
	}
}

// isReady returns an error until a pod is ready.
func isReady(pod *corev1.Pod) error {
	if !hasCondition(pod, corev1.PodReady) {
		return errors.New("the pod is not ready")
	}
	return nil
}

// withCertificateFolder makes an edge look in the default folder of certificates.
func withCertificateFolder(pod *corev1.Pod) *corev1.Pod {
	edge := &pod.Spec.Containers[0]
	edge.Args = append(edge.Args, "--folder="+patches.DefaultCertDir)
	return pod
}

// failedProbes returns how often a probe of a pod failed.
func (s *testNamespace) failedProbes(ctx context.Context, pod string) (int32, error) {
	events, err := s.Client.CoreV1().Events(s.name).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod + ",reason=Unhealthy"})
	if err != nil {
		return 0, err
	}
	var n int32
	for _, e := range events.Items {
		n += e.Count
	}
	return n, nil
}

// istiodAlias is another address for istiod, at which no server answers until pointToIstiod.
type istiodAlias struct {
	*testNamespace
	address string
}

const aliasName = "detour"

var aliasPort = discoveryv1.EndpointPort{Name: ptr.To("ca"), Port: ptr.To[int32](15012), Protocol: ptr.To(corev1.ProtocolTCP)}

// istiodAlias creates an istiodAlias.
func (s *testNamespace) istiodAlias(t *testing.T) *istiodAlias {
	t.Helper()
	service, err := s.Client.CoreV1().Services(s.name).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: aliasName},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: *aliasPort.Name, Port: *aliasPort.Port}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return &istiodAlias{s, service.Spec.ClusterIP}
}

// pointToIstiod makes the address lead to istiod.
func (a *istiodAlias) pointToIstiod(t *testing.T) {
	t.Helper()
	found, err := a.Client.DiscoveryV1().EndpointSlices(node.IstioNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=istiod"})
	require.NoError(t, err)
	require.NotEmpty(t, found.Items)
	_, err = a.Client.DiscoveryV1().EndpointSlices(a.name).Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: aliasName, Labels: map[string]string{discoveryv1.LabelServiceName: aliasName}},
		AddressType: found.Items[0].AddressType,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: found.Items[0].Endpoints[0].Addresses}},
		Ports:       []discoveryv1.EndpointPort{aliasPort},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}
