package webhook

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// podFields are the fields of a pod, or of a pod template, that the engine reads. The
// rest is skipped while decoding; the patch only adds, so it stays as it is. A field
// that the engine begins to read must be added here and in toPod.
// TestEngineDecidesAsOnTheWholePod fails otherwise.
type podFields struct {
	Metadata objectMetadata `json:"metadata"`
	Spec     struct {
		Volumes            []volumeFields                `json:"volumes"`
		InitContainers     []containerFields             `json:"initContainers"`
		Containers         []containerFields             `json:"containers"`
		RestartPolicy      corev1.RestartPolicy          `json:"restartPolicy"`
		DNSPolicy          corev1.DNSPolicy              `json:"dnsPolicy"`
		NodeSelector       nodeSelectorFields            `json:"nodeSelector"`
		ServiceAccountName string                        `json:"serviceAccountName"`
		NodeName           string                        `json:"nodeName"`
		HostNetwork        bool                          `json:"hostNetwork"`
		HostUsers          *bool                         `json:"hostUsers"`
		ImagePullSecrets   []corev1.LocalObjectReference `json:"imagePullSecrets"`
		OS                 *corev1.PodOS                 `json:"os"`
		Resources          *resourceFields               `json:"resources"`
	} `json:"spec"`
}

// objectMetadata is the metadata of every object that is reviewed.
type objectMetadata struct {
	Name         string            `json:"name"`
	GenerateName string            `json:"generateName"`
	UID          types.UID         `json:"uid"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
}

// nameOrPrefix returns the name, or the generateName of an object that has no name yet.
func (m *objectMetadata) nameOrPrefix() string {
	if m.Name == "" {
		return m.GenerateName
	}
	return m.Name
}

type containerFields struct {
	Name           string                         `json:"name"`
	Image          string                         `json:"image"`
	Command        []string                       `json:"command"`
	Args           []string                       `json:"args"`
	Ports          []corev1.ContainerPort         `json:"ports"`
	Env            []envFields                    `json:"env"`
	EnvFrom        []corev1.EnvFromSource         `json:"envFrom"`
	Resources      *resourceFields                `json:"resources"`
	RestartPolicy  *corev1.ContainerRestartPolicy `json:"restartPolicy"`
	VolumeMounts   []corev1.VolumeMount           `json:"volumeMounts"`
	LivenessProbe  probeFields                    `json:"livenessProbe"`
	ReadinessProbe probeFields                    `json:"readinessProbe"`
	StartupProbe   probeFields                    `json:"startupProbe"`
}

type envFields struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// ValueFrom says where the value comes from. Other sources than these are only
	// looked at for their presence.
	ValueFrom *struct {
		FieldRef        *corev1.ObjectFieldSelector  `json:"fieldRef"`
		ConfigMapKeyRef *corev1.ConfigMapKeySelector `json:"configMapKeyRef"`
		SecretKeyRef    *corev1.SecretKeySelector    `json:"secretKeyRef"`
	} `json:"valueFrom"`
}

// probeFields are empty unless the probe is an HTTP request.
type probeFields struct {
	HTTPGet struct {
		Path string `json:"path"`
		Host string `json:"host"`
	} `json:"httpGet"`
}

// volumeFields say what kind a volume is.
type volumeFields struct {
	Name     string `json:"name"`
	EmptyDir *struct {
		Medium corev1.StorageMedium `json:"medium"`
	} `json:"emptyDir"`
	ConfigMap   *corev1.LocalObjectReference `json:"configMap"`
	Projected   *struct{}                    `json:"projected"`
	DownwardAPI *struct{}                    `json:"downwardAPI"`
	Secret      *struct {
		SecretName string `json:"secretName"`
	} `json:"secret"`
	PersistentVolumeClaim *corev1.PersistentVolumeClaimVolumeSource `json:"persistentVolumeClaim"`
}

// nodeSelectorFields say on which operating system the pod runs.
type nodeSelectorFields struct {
	OS string `json:"kubernetes.io/os"`
}

func (n nodeSelectorFields) toMap() map[string]string {
	if n.OS == "" {
		return nil
	}
	return map[string]string{corev1.LabelOSStable: n.OS}
}

type resourceFields struct {
	Requests quantityFields `json:"requests"`
	Limits   quantityFields `json:"limits"`
}

// quantityFields are the resources that Isthmus' containers ask for.
type quantityFields struct {
	CPU    boundedQuantity `json:"cpu"`
	Memory boundedQuantity `json:"memory"`
}

// maxQuantityBytes is the length of the longest quantity that is parsed. The time of
// parsing grows with the square of the length.
const maxQuantityBytes = 64

// boundedQuantity is a quantity of limited length. A longer one counts as zero: the API
// server accepts any length, but no node has that much, so the pod will not run.
type boundedQuantity struct {
	present bool
	value   resource.Quantity
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (q *boundedQuantity) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	value, err := dec.ReadValue()
	if err != nil {
		return err
	}
	isText := value.Kind() == jsontext.KindString || value.Kind() == jsontext.KindNumber
	if isText && len(value) > maxQuantityBytes+len(`""`) {
		*q = boundedQuantity{present: true}
		return nil
	}
	q.present = true
	return q.value.UnmarshalJSON(value)
}

var _ json.UnmarshalerFrom = (*boundedQuantity)(nil)

// toPod returns the pod with the fields that were decoded. An empty list stays
// different from one that is absent: a patch adds items to the first and the list
// itself to the second.
func (p *podFields) toPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.Metadata.Name, GenerateName: p.Metadata.GenerateName, UID: p.Metadata.UID,
			Labels: p.Metadata.Labels, Annotations: p.Metadata.Annotations,
		},
		Spec: corev1.PodSpec{
			Volumes:            mapItems(p.Spec.Volumes, (*volumeFields).toVolume),
			InitContainers:     mapItems(p.Spec.InitContainers, (*containerFields).toContainer),
			Containers:         mapItems(p.Spec.Containers, (*containerFields).toContainer),
			RestartPolicy:      p.Spec.RestartPolicy,
			DNSPolicy:          p.Spec.DNSPolicy,
			NodeSelector:       p.Spec.NodeSelector.toMap(),
			ServiceAccountName: p.Spec.ServiceAccountName,
			NodeName:           p.Spec.NodeName,
			HostNetwork:        p.Spec.HostNetwork,
			HostUsers:          p.Spec.HostUsers,
			ImagePullSecrets:   p.Spec.ImagePullSecrets,
			OS:                 p.Spec.OS,
			Resources:          p.Spec.Resources.toRequirements(),
		},
	}
}

// mapItems converts each item of a list into its place in the new one.
func mapItems[From, To any](list []From, convert func(*From, *To)) []To {
	if list == nil {
		return nil
	}
	out := make([]To, len(list))
	for i := range list {
		convert(&list[i], &out[i])
	}
	return out
}

func (c *containerFields) toContainer(out *corev1.Container) {
	out.Name, out.Image = c.Name, c.Image
	out.Command, out.Args = c.Command, c.Args
	out.Ports = c.Ports
	out.EnvFrom = c.EnvFrom
	out.Env = mapItems(c.Env, (*envFields).toEnvVar)
	if r := c.Resources.toRequirements(); r != nil {
		out.Resources = *r
	}
	out.RestartPolicy = c.RestartPolicy
	out.VolumeMounts = c.VolumeMounts
	out.LivenessProbe = c.LivenessProbe.toProbe()
	out.ReadinessProbe = c.ReadinessProbe.toProbe()
	out.StartupProbe = c.StartupProbe.toProbe()
}

func (e *envFields) toEnvVar(out *corev1.EnvVar) {
	out.Name, out.Value = e.Name, e.Value
	if e.ValueFrom != nil {
		out.ValueFrom = &corev1.EnvVarSource{
			FieldRef: e.ValueFrom.FieldRef, ConfigMapKeyRef: e.ValueFrom.ConfigMapKeyRef, SecretKeyRef: e.ValueFrom.SecretKeyRef,
		}
	}
}

// toProbe returns nil for a probe without a path: profiles recognise paths.
func (p *probeFields) toProbe() *corev1.Probe {
	if p.HTTPGet.Path == "" {
		return nil
	}
	probe := &struct {
		corev1.Probe
		action corev1.HTTPGetAction
	}{action: corev1.HTTPGetAction{Path: p.HTTPGet.Path, Host: p.HTTPGet.Host}}
	probe.HTTPGet = &probe.action
	return &probe.Probe
}

func (v *volumeFields) toVolume(out *corev1.Volume) {
	out.Name = v.Name
	if v.EmptyDir != nil {
		out.EmptyDir = &corev1.EmptyDirVolumeSource{Medium: v.EmptyDir.Medium}
	}
	if v.ConfigMap != nil {
		out.ConfigMap = &corev1.ConfigMapVolumeSource{LocalObjectReference: *v.ConfigMap}
	}
	if v.Projected != nil {
		out.Projected = &corev1.ProjectedVolumeSource{}
	}
	if v.DownwardAPI != nil {
		out.DownwardAPI = &corev1.DownwardAPIVolumeSource{}
	}
	if v.Secret != nil {
		out.Secret = &corev1.SecretVolumeSource{SecretName: v.Secret.SecretName}
	}
	out.PersistentVolumeClaim = v.PersistentVolumeClaim
}

func (r *resourceFields) toRequirements() *corev1.ResourceRequirements {
	if r == nil {
		return nil
	}
	return &corev1.ResourceRequirements{Requests: r.Requests.toList(), Limits: r.Limits.toList()}
}

func (q *quantityFields) toList() corev1.ResourceList {
	if !q.CPU.present && !q.Memory.present {
		return nil
	}
	list := make(corev1.ResourceList, 2)
	if q.CPU.present {
		list[corev1.ResourceCPU] = q.CPU.value
	}
	if q.Memory.present {
		list[corev1.ResourceMemory] = q.Memory.value
	}
	return list
}
