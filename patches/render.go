package patches

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Sidecar is a rendered template.
type Sidecar struct {
	// Container is the agent, a native sidecar. Its name is empty with
	// Params.NoSidecar.
	Container corev1.Container
	// Publisher comes after the pod's own containers. It is nil if there is none.
	Publisher *corev1.Container
	// Volumes are added to the pod.
	Volumes []corev1.Volume
	// Hash changes whenever the rest of Sidecar changes.
	Hash string
}

// Render fills in the template. It is an error if two overrides contradict each
// other.
func (t *SidecarTemplate) Render(p Params) (*Sidecar, error) {
	fill := newFiller(p.placeholders())
	if p.NoSidecar {
		return t.renderWithoutSidecar(p, fill), nil
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
	if p.OpenShift {
		leaveToConstraints(c)
	}
	resources, err := t.resources(p)
	if err != nil {
		return nil, err
	}
	c.Resources = resources
	dropMemoryLimitEnv(c)

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
	if p.OpenShift {
		leaveToConstraints(c)
	}
	fitPod(&c.Resources, p)
	dropMemoryLimitEnv(c)
	return c
}

// leaveToConstraints removes what OpenShift's security context constraints set
// themselves. They refuse a user outside of the namespace's range, and the constraint
// anyuid refuses any seccomp profile.
func leaveToConstraints(c *corev1.Container) {
	c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup, c.SecurityContext.SeccompProfile = nil, nil, nil
}

// renderWithoutSidecar renders the modes in which Isthmus adds no sidecar: the
// Secret as a volume, the volume that Istio's sidecar writes to, or nothing for an
// edge that reads Secrets through the API or has no certificate.
func (t *SidecarTemplate) renderWithoutSidecar(p Params, fill func(string) string) *Sidecar {
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
	if p.CertsVolume { // the annotations for Istio's agent hold these values
		return &Sidecar{Volumes: volumes, Hash: hash(volumes, p.CertDir, p.CertTTL)}
	}
	return &Sidecar{Volumes: volumes, Hash: hash(volumes)}
}

// VolumeNames returns the names of the volumes that a rendering adds.
func (t *SidecarTemplate) VolumeNames(p Params) []string {
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

// newFiller returns a function that replaces ${name} by its value.
func newFiller(values map[string]string) func(string) string {
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
			panic(err) // Kubernetes' own types can be encoded
		}
		h.Write([]byte(strconv.Itoa(i)))
		h.Write(data)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}
