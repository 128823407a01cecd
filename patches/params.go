package patches

import (
	"encoding/json"
	"strings"
	"time"
)

// Params is everything that a rendering of the sidecar depends on. It is
// comparable, so that a rendering can be cached.
type Params struct {
	// Mesh holds the mesh settings.
	Mesh Mesh
	// CertDir is the certificate directory in agent and edge.
	CertDir string
	// CertTTL is the certificate lifetime that is requested from the CA. Zero means
	// the default: 24h, or less if the CA grants less.
	CertTTL time.Duration
	// Envoy runs the full proxy instead of only the agent.
	Envoy bool
	// OwnCertsVolume is true if the pod itself has the volume istio-certs.
	OwnCertsVolume bool
	// HostNetwork is true if the pod is on the host's network.
	HostNetwork bool
	// Guaranteed makes requests equal to limits, so that the pod stays in the
	// Guaranteed class.
	Guaranteed bool
	// PodResources are the resources of the pod itself.
	PodResources PodResources
	// OpenShift is true if OpenShift's security context constraints give the pod user,
	// group and seccomp profile.
	OpenShift bool
	// Overrides are the pod's overrides of the container.
	Overrides Overrides
	// PublisherImage is the image of the in-pod publisher. Empty means that there
	// is no publisher.
	PublisherImage string
	// SecretName is the Secret that the publisher writes, or that mode secret
	// mounts. Empty means neither.
	SecretName string
	// NoSidecar adds no container: the certificates come from SecretName, or from
	// Istio's own sidecar through the CertsVolume.
	NoSidecar bool
	// CertsVolume adds the volume istio-certs despite NoSidecar, unless the pod has
	// its own.
	CertsVolume bool
}

// Overrides are the values of Istio's own annotations for the container. The
// caller has checked them. Empty means not set.
type Overrides struct {
	// Image is the image of the container.
	Image string
	// CPU and Memory are requests, CPULimit and MemoryLimit are limits, as quantities
	// of Kubernetes.
	CPU, Memory, CPULimit, MemoryLimit string
	// LogLevel is Envoy's log level.
	LogLevel string
	// AgentLogLevel holds the log levels of the agent, by scope.
	AgentLogLevel string
	// StatusPort is the port of the agent's probes. Zero means not set.
	StatusPort int32
}

// Clone returns a copy whose overrides and directories share no memory with a pod's.
func (p Params) Clone() Params {
	for _, s := range p.ofPod() {
		*s = strings.Clone(*s)
	}
	return p
}

// Size returns the length in bytes of what the author of a pod has chosen.
func (p Params) Size() int {
	n := 0
	for _, s := range p.ofPod() {
		n += len(*s)
	}
	return n
}

// ofPod returns the texts that come from a pod.
func (p *Params) ofPod() []*string {
	o := &p.Overrides
	return []*string{&p.CertDir, &p.SecretName, &o.Image, &o.CPU, &o.Memory, &o.CPULimit, &o.MemoryLimit, &o.LogLevel, &o.AgentLogLevel}
}

// Image returns the image that the sidecar runs: the pod's override, or the mesh's.
func (p Params) Image() string {
	if p.Overrides.Image != "" {
		return p.Overrides.Image
	}
	return p.Mesh.ProxyImage
}

// StatusPort returns the port on which the agent answers its probes.
func (p Params) StatusPort() int32 {
	if p.Overrides.StatusPort != 0 {
		return p.Overrides.StatusPort
	}
	return StatusPort
}

// placeholders returns the values of the placeholders in sidecar.yaml by name.
func (p Params) placeholders() map[string]string {
	v := map[string]string{
		"image":           p.Image(),
		"imagePullPolicy": p.Mesh.ImagePullPolicy,
		"clusterDomain":   p.Mesh.ClusterDomain,
		"certDir":         p.CertDir,
		"caAddress":       p.Mesh.CAAddress,
		"istiodSAN":       "",
		"eccAlgorithm":    p.Mesh.ECCSignatureAlgorithm,
		"eccCurve":        p.Mesh.ECCCurve,
		"rsaKeySize":      p.Mesh.WorkloadRSAKeySize,
		"certProvider":    p.Mesh.CertProvider,
		"secretTTL":       p.secretTTL().String(),
		"trustDomain":     p.Mesh.TrustDomain,
		"proxyConfig":     p.proxyConfig(),
		"clusterID":       p.Mesh.ClusterID,
		"meshID":          p.Mesh.MeshID,
		"network":         p.Mesh.Network,
		"rootConfigMap":   p.Mesh.RootConfigMap,
		"tokenAudience":   p.Mesh.TokenAudience,
		"disableEnvoy":    "true",
		"xdsDebug":        "",
		"logLevel":        "",
		"agentLogLevel":   "",
		"publisherImage":  p.PublisherImage,
		"secretName":      p.SecretName,
	}
	if p.Envoy {
		v["disableEnvoy"] = ""
	}
	// The agent expects the name of ISTIOD_SAN only of the authority at its default
	// address, istiod's own.
	if p.Mesh.CAServerName != "" && p.Mesh.CAAddress == p.Mesh.DiscoveryAddress {
		v["istiodSAN"], v["caAddress"] = p.Mesh.CAServerName, ""
	}
	// The port is only needed with Envoy. An agent of unknown version gets the variable
	// too: it does no harm.
	if agent, known := AgentFromImage(p.Image()); (p.HostNetwork || !p.Envoy) && (!known || agent.Supports(DebugPortEnv)) {
		v["xdsDebug"] = "false"
	}
	if p.Overrides.LogLevel != "" {
		v["logLevel"] = "--proxyLogLevel=" + p.Overrides.LogLevel
	}
	if p.Overrides.AgentLogLevel != "" {
		v["agentLogLevel"] = "--log_output_level=" + p.Overrides.AgentLogLevel
	}
	return v
}

// secretTTL stays within the CA's maximum, because istiod refuses a longer lifetime
// instead of shortening it.
func (p Params) secretTTL() time.Duration {
	if p.CertTTL != 0 {
		return p.CertTTL
	}
	if limit := time.Duration(p.Mesh.MaxCertTTL); limit > 0 {
		return min(DefaultCertTTL, limit)
	}
	return DefaultCertTTL
}

func (p Params) proxyConfig() string {
	data, err := json.Marshal(struct {
		DiscoveryAddress string `json:"discoveryAddress,omitempty"`
		StatusPort       int32  `json:"statusPort"`
	}{p.Mesh.DiscoveryAddress, p.StatusPort()})
	if err != nil {
		panic(err) // a string and a number can be encoded
	}
	return string(data)
}
