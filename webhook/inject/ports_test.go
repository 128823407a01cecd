package inject_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestPorts shows which ports of the pod's containers clash with the sidecar's, in both modes
// with a sidecar and with and without Envoy.
func TestPorts(t *testing.T) {
	engine := newEngine(t, inject.Options{})
	envoyPorts := []int32{15000, 15001, 15004, 15006, 15021, 15090}
	for mode, c := range map[string]struct {
		annotations []string
		clashes     []int32
	}{
		"agent":                         {nil, []int32{15020}},
		"agent at a port of its own":    {[]string{policy.IstioStatusPortKey, "15025"}, []int32{15025}},
		"Envoy":                         {[]string{policy.EnvoyKey, "true"}, append([]int32{15020}, envoyPorts...)},
		"Envoy, a port of its own":      {[]string{policy.EnvoyKey, "true", policy.IstioStatusPortKey, "15025"}, append([]int32{15025}, envoyPorts...)},
		"istio":                         {[]string{policy.ModeKey, "istio"}, append([]int32{15020}, envoyPorts...)},
		"istio, a port of its own":      {[]string{policy.ModeKey, "istio", policy.IstioStatusPortKey, "15025"}, append([]int32{15025}, envoyPorts...)},
		"secret, which adds no sidecar": {[]string{policy.ModeKey, "secret"}, nil},
	} {
		for _, port := range append([]int32{15008, 15020, 15025, 15053, 8080}, envoyPorts...) {
			for _, where := range []string{"edge", "beside", "native sidecar", "init container"} {
				for _, protocol := range []corev1.Protocol{"", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
					if protocol != "" && where != "beside" {
						continue // the place does not matter to the protocol
					}
					t.Run(fmt.Sprintf("%s/%d/%s/%s", mode, port, where, protocol), func(t *testing.T) {
						pod := annotated(c.annotations...)
						ports := []corev1.ContainerPort{{ContainerPort: port, Protocol: protocol}}
						other := corev1.Container{Name: "other", Image: "corp/other", Ports: ports}
						switch where {
						case "edge":
							pod.Spec.Containers[0].Ports, other.Name = ports, "emissary"
						case "beside":
							pod.Spec.Containers = append(pod.Spec.Containers, other)
						case "native sidecar":
							other.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
							pod.Spec.InitContainers = []corev1.Container{other}
						default:
							pod.Spec.InitContainers = []corev1.Container{other}
						}
						result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
						if !slices.Contains(c.clashes, port) || where == "init container" || protocol == corev1.ProtocolUDP || protocol == corev1.ProtocolSCTP {
							assert.Equal(t, policy.Injected, result.Reason, result.Message)
							return
						}
						assert.Equal(t, policy.Conflict, result.Reason)
						assert.Contains(t, result.Message, fmt.Sprintf("container %s listens on port %d, which the ", other.Name, port))
						assert.Len(t, result.Warnings, 1)
					})
				}
			}
		}
	}
}
