package patches

import (
	"crypto/sha256"
	_ "embed" // the template
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// The names that Isthmus and Istio share in a pod.
const (
	// SidecarName is the container's name; Istio's tools look for it.
	SidecarName = "istio-proxy"
	// PublisherName is the name of the container that publishes the agent's
	// files.
	PublisherName = "isthmus-publish"
	// CertsVolume is the volume that agent and edge share.
	CertsVolume = "istio-certs"
	// DefaultCertDir is where the certificates are unless told otherwise.
	DefaultCertDir = "/etc/istio-certs"
	// StatusPort is the agent's port by default.
	StatusPort = 15020
)

// DefaultCertTTL is the lifetime asked of the CA when nobody says otherwise;
// it is Istio's own default (SECRET_TTL of pilot-agent).
const DefaultCertTTL = 24 * time.Hour

//go:embed sidecar.yaml
var sidecarFile []byte

// SidecarTemplate is the embedded sidecar, decoded and checked.
type SidecarTemplate struct {
	Container corev1.Container            `json:"container"`
	Volumes   []corev1.Volume             `json:"volumes"`
	Resources corev1.ResourceRequirements `json:"resources"`
	Envoy     struct {
		Volumes      []corev1.Volume             `json:"volumes"`
		VolumeMounts []corev1.VolumeMount        `json:"volumeMounts"`
		Resources    corev1.ResourceRequirements `json:"resources"`
	} `json:"envoy"`
	Publisher struct {
		Container corev1.Container `json:"container"`
		Volumes   []corev1.Volume  `json:"volumes"`
	} `json:"publisher"`
	Secret corev1.Volume `json:"secret"`
}

// LoadSidecar decodes the embedded template strictly.
func LoadSidecar() (*SidecarTemplate, error) {
	t := &SidecarTemplate{}
	if err := yaml.UnmarshalStrict(sidecarFile, t); err != nil {
		return nil, fmt.Errorf("sidecar.yaml: %w", err)
	}
	known := Params{}.values()
	for _, name := range placeholder.FindAllString(string(sidecarFile), -1) {
		if _, ok := known[strings.Trim(name, "${}")]; !ok && name != "${name}" {
			return nil, fmt.Errorf("sidecar.yaml: unknown placeholder %s", name)
		}
	}
	return t, nil
}

// Params is everything the rendering depends on. It is comparable, so that a
// rendering can be kept and used again.
type Params struct {
	Mesh    Mesh
	CertDir string
	// CertTTL is the lifetime asked of the CA; zero means the default, the
	// smaller of 24h and what the CA grants.
	CertTTL time.Duration
	// Envoy runs the full proxy, not the agent alone.
	Envoy bool
	// OwnCertsVolume leaves the volume istio-certs to the user's pod.
	OwnCertsVolume bool
	HostNetwork    bool
	// Guaranteed makes requests equal to limits, so that the pod stays in the
	// Guaranteed class.
	Guaranteed bool
	// NoUID sets no user and group: OpenShift assigns them.
	NoUID     bool
	Overrides Overrides
	// PublisherImage is the image of the in-pod publisher; empty means no
	// publisher.
	PublisherImage string
	// SecretName is the Secret that the publisher writes, or that mode secret
	// mounts; empty where neither is asked.
	SecretName string
	// NoSidecar adds no container: the certificates come from SecretName, or from
	// Istio's own sidecar through the CertsVolume.
	NoSidecar bool
	// CertsVolume adds the volume istio-certs where there is NoSidecar, unless the
	// pod has its own.
	CertsVolume bool
}

// Overrides are Istio's own annotations for the container, checked by the
// caller. Empty means not set.
type Overrides struct {
	Image         string
	CPU           string
	Memory        string
	CPULimit      string
	MemoryLimit   string
	LogLevel      string
	AgentLogLevel string
	StatusPort    int32
}

// Sidecar is a rendered template.
type Sidecar struct {
	// Container is the agent, a native sidecar. It has no name with NoSidecar.
	Container corev1.Container
	// Publisher comes after the pod's own containers; nil where there is none.
	Publisher *corev1.Container
	Volumes   []corev1.Volume
	// Hash changes when what would be injected does.
	Hash string
}

// Render fills the template in. An error means that two overrides contradict
// each other.
func (t *SidecarTemplate) Render(p Params) (*Sidecar, error) {
	fill := filler(p.values())
	if p.NoSidecar {
		return t.renderVolume(p, fill), nil
	}
	c := t.Container.DeepCopy()
	volumes := make([]corev1.Volume, 0, len(t.Volumes)+2)

	c.Image = fill(c.Image)
	c.ImagePullPolicy = corev1.PullPolicy(fill(string(c.ImagePullPolicy)))
	c.Args = fillList(c.Args, fill)
	env := c.Env[:0]
	for _, e := range c.Env {
		e.Value = fill(e.Value)
		if e.Value != "" || e.ValueFrom != nil {
			env = append(env, e)
		}
	}
	c.Env = env

	if p.Envoy {
		c.VolumeMounts = append(c.VolumeMounts, t.Envoy.VolumeMounts...)
	}
	for i := range c.VolumeMounts {
		c.VolumeMounts[i].MountPath = fill(c.VolumeMounts[i].MountPath)
	}
	port := p.StatusPort()
	c.Ports[0].ContainerPort = port
	c.StartupProbe.HTTPGet.Port.IntVal = port
	if p.HostNetwork {
		c.Ports[0].HostPort = port
	}
	if p.NoUID {
		c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup = nil, nil
	}
	resources, err := t.resources(p)
	if err != nil {
		return nil, err
	}
	c.Resources = resources

	for _, v := range t.Volumes {
		if v.Name == CertsVolume && p.OwnCertsVolume {
			continue
		}
		volumes = append(volumes, *v.DeepCopy())
	}
	if p.Envoy {
		for _, v := range t.Envoy.Volumes {
			volumes = append(volumes, *v.DeepCopy())
		}
	}
	if p.PublisherImage == "" {
		fillVolumes(volumes, p.Mesh, fill)
		return &Sidecar{Container: *c, Volumes: volumes, Hash: hash(c, volumes)}, nil
	}
	publisher := t.renderPublisher(p, fill)
	for _, v := range t.Publisher.Volumes {
		volumes = append(volumes, *v.DeepCopy())
	}
	fillVolumes(volumes, p.Mesh, fill)
	return &Sidecar{Container: *c, Publisher: publisher, Volumes: volumes, Hash: hash(c, volumes, publisher)}, nil
}

func (t *SidecarTemplate) renderPublisher(p Params, fill func(string) string) *corev1.Container {
	c := t.Publisher.Container.DeepCopy()
	c.Image = fill(c.Image)
	c.Args = fillList(c.Args, fill)
	for i := range c.VolumeMounts {
		c.VolumeMounts[i].MountPath = fill(c.VolumeMounts[i].MountPath)
	}
	if p.NoUID {
		c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup = nil, nil
	}
	if p.Guaranteed {
		c.Resources.Requests = c.Resources.Limits.DeepCopy()
	}
	return c
}

// renderVolume makes what the modes without a sidecar of ours add: the Secret as
// a volume, the volume that Istio's sidecar writes to, or nothing for an edge that
// reads Secrets through the API or has no certificate.
func (t *SidecarTemplate) renderVolume(p Params, fill func(string) string) *Sidecar {
	var volumes []corev1.Volume
	switch {
	case p.SecretName != "":
		v := t.Secret.DeepCopy()
		v.Secret.SecretName = fill(v.Secret.SecretName)
		volumes = append(volumes, *v)
	case p.CertsVolume && !p.OwnCertsVolume:
		for _, v := range t.Volumes {
			if v.Name == CertsVolume {
				volumes = append(volumes, *v.DeepCopy())
			}
		}
	}
	if p.CertsVolume { // what the agent is told is part of what is injected
		return &Sidecar{Volumes: volumes, Hash: hash(volumes, p.CertDir, p.CertTTL)}
	}
	return &Sidecar{Volumes: volumes, Hash: hash(volumes)}
}

// Names returns the names of the volumes that a rendering adds.
func (t *SidecarTemplate) Names(p Params) []string {
	var names []string
	if p.NoSidecar {
		if p.SecretName != "" || p.CertsVolume && !p.OwnCertsVolume {
			names = append(names, CertsVolume)
		}
		return names
	}
	for _, v := range t.Volumes {
		if v.Name != CertsVolume || !p.OwnCertsVolume {
			names = append(names, v.Name)
		}
	}
	if p.Envoy {
		for _, v := range t.Envoy.Volumes {
			names = append(names, v.Name)
		}
	}
	if p.PublisherImage != "" {
		for _, v := range t.Publisher.Volumes {
			names = append(names, v.Name)
		}
	}
	return names
}

func fillVolumes(volumes []corev1.Volume, mesh Mesh, fill func(string) string) {
	for i := range volumes {
		fillVolume(&volumes[i], mesh, fill)
	}
}

func fillVolume(v *corev1.Volume, mesh Mesh, fill func(string) string) {
	if v.Projected != nil {
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				s.ServiceAccountToken.Audience = fill(s.ServiceAccountToken.Audience)
			}
		}
	}
	if v.ConfigMap == nil {
		return
	}
	if mesh.RootClusterTrustBundle == "" {
		v.ConfigMap.Name = fill(v.ConfigMap.Name)
		return
	}
	v.Projected = &corev1.ProjectedVolumeSource{
		DefaultMode: v.ConfigMap.DefaultMode,
		Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{
			Name: &mesh.RootClusterTrustBundle, Path: "root-cert.pem",
		}}},
	}
	v.ConfigMap = nil
}

// values are the placeholders of sidecar.yaml.
func (p Params) values() map[string]string {
	v := map[string]string{
		"image":           p.Image(),
		"imagePullPolicy": p.Mesh.ImagePullPolicy,
		"clusterDomain":   p.Mesh.ClusterDomain,
		"certDir":         p.CertDir,
		"caAddress":       p.Mesh.CAAddress,
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
	// An agent of unknown version is told too: the variable costs nothing.
	if agent, known := AgentOf(p.Image()); p.HostNetwork && (!known || agent.Has(DebugPort)) {
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

// secretTTL honours the CA's maximum, because istiod refuses a longer lifetime
// instead of clamping it.
func (p Params) secretTTL() time.Duration {
	if p.CertTTL != 0 {
		return p.CertTTL
	}
	if limit := time.Duration(p.Mesh.MaxCertTTL); limit > 0 {
		return min(DefaultCertTTL, limit)
	}
	return DefaultCertTTL
}

// StatusPort is where the agent answers its probes.
func (p Params) StatusPort() int32 {
	if p.Overrides.StatusPort != 0 {
		return p.Overrides.StatusPort
	}
	return StatusPort
}

func (p Params) proxyConfig() string {
	data, err := json.Marshal(struct {
		DiscoveryAddress string `json:"discoveryAddress,omitempty"`
		StatusPort       int32  `json:"statusPort"`
	}{p.Mesh.DiscoveryAddress, p.StatusPort()})
	if err != nil {
		panic(err) // a string and a number
	}
	return string(data)
}

// resources follow Istio's rule for its annotations, save that a request above
// a default limit raises the limit: the pod would be refused otherwise.
func (t *SidecarTemplate) resources(p Params) (corev1.ResourceRequirements, error) {
	r := t.Resources.DeepCopy()
	if p.Envoy {
		r = t.Envoy.Resources.DeepCopy()
	}
	for _, o := range []struct {
		list  corev1.ResourceList
		name  corev1.ResourceName
		value string
	}{
		{r.Requests, corev1.ResourceCPU, p.Overrides.CPU},
		{r.Requests, corev1.ResourceMemory, p.Overrides.Memory},
		{r.Limits, corev1.ResourceCPU, p.Overrides.CPULimit},
		{r.Limits, corev1.ResourceMemory, p.Overrides.MemoryLimit},
	} {
		if o.value == "" {
			continue
		}
		q, err := resource.ParseQuantity(o.value)
		if err != nil {
			return *r, fmt.Errorf("%q is not a quantity: %w", o.value, err)
		}
		o.list[o.name] = q
	}
	for _, k := range []struct {
		name           corev1.ResourceName
		request, limit string
	}{
		{corev1.ResourceCPU, p.Overrides.CPU, p.Overrides.CPULimit},
		{corev1.ResourceMemory, p.Overrides.Memory, p.Overrides.MemoryLimit},
	} {
		request, limit := r.Requests[k.name], r.Limits[k.name]
		if request.Cmp(limit) > 0 {
			switch {
			case k.request != "" && k.limit != "":
				return *r, fmt.Errorf("%s request %s is above its limit %s", k.name, k.request, k.limit)
			case k.request != "":
				r.Limits[k.name] = request
			default:
				r.Requests[k.name] = limit
			}
		}
		if p.Guaranteed {
			r.Requests[k.name] = r.Limits[k.name]
		}
	}
	return *r, nil
}

// filler replaces ${name}.
func filler(values map[string]string) func(string) string {
	return func(s string) string {
		if !strings.Contains(s, "${") {
			return s
		}
		return placeholder.ReplaceAllStringFunc(s, func(name string) string { return values[name[2:len(name)-1]] })
	}
}

func fillList(list []string, fill func(string) string) []string {
	out := list[:0]
	for _, s := range list {
		if s = fill(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func hash(parts ...any) string {
	h := sha256.New()
	for i, p := range parts {
		data, err := json.Marshal(p)
		if err != nil {
			panic(err) // Kubernetes' own types
		}
		h.Write([]byte(strconv.Itoa(i)))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
