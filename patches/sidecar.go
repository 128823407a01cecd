package patches

import (
	_ "embed" // the template
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The names that Isthmus and Istio share in a pod.
const (
	// SidecarName is the name of the agent's container. Istio's tools look for it.
	SidecarName = "istio-proxy"
	// PublisherName is the name of the container that publishes the agent's files.
	PublisherName = "isthmus-publish"
	// CertsVolume is the volume that the agent and the edge share.
	CertsVolume = "istio-certs"
	// DefaultCertDir is the default certificate directory.
	DefaultCertDir = "/etc/istio-certs"
	// StatusPort is the default port of the agent's probes.
	StatusPort = 15020
)

// DefaultCertTTL is the certificate lifetime that is requested from the CA by
// default. It is Istio's own default (SECRET_TTL of pilot-agent).
const DefaultCertTTL = 24 * time.Hour

//go:embed sidecar.yaml
var sidecarFile []byte

// SidecarTemplate is the embedded sidecar.yaml, decoded and checked.
type SidecarTemplate struct {
	// Container is the agent, without Envoy.
	Container corev1.Container `json:"container"`
	// Volumes are those of the agent.
	Volumes []corev1.Volume `json:"volumes"`
	// Resources are those of the agent without Envoy.
	Resources corev1.ResourceRequirements `json:"resources"`
	// Envoy is what the full proxy needs in addition; its resources replace the
	// agent's.
	Envoy struct {
		Volumes      []corev1.Volume             `json:"volumes"`
		VolumeMounts []corev1.VolumeMount        `json:"volumeMounts"`
		Resources    corev1.ResourceRequirements `json:"resources"`
	} `json:"envoy"`
	// Publisher is the in-pod publisher.
	Publisher struct {
		Container corev1.Container `json:"container"`
		Volumes   []corev1.Volume  `json:"volumes"`
	} `json:"publisher"`
	// Secret is the certificate volume of mode secret.
	Secret corev1.Volume `json:"secret"`
}

// LoadSidecar decodes the embedded template strictly. It is an error if the
// template uses a placeholder that Params does not fill.
func LoadSidecar() (*SidecarTemplate, error) {
	t := &SidecarTemplate{}
	if err := yaml.UnmarshalStrict(sidecarFile, t); err != nil {
		return nil, fmt.Errorf("sidecar.yaml: %w", err)
	}
	known := Params{}.placeholders()
	for _, name := range placeholder.FindAllString(string(sidecarFile), -1) {
		if _, ok := known[strings.Trim(name, "${}")]; !ok && name != "${name}" {
			return nil, fmt.Errorf("sidecar.yaml: unknown placeholder %s", name)
		}
	}
	return t, nil
}
