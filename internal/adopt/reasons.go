package adopt

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// reason explains a difference in a field. It is given only when the difference
// is of that kind: a rule never excuses more than what Isthmus does.
type reason struct {
	// field matches the whole path. Its first group, where it has one, is handed
	// to holds as name.
	field *regexp.Regexp
	// holds says that the rule applies; nil means always.
	holds func(c *comparison, d Difference, name string) bool
	why   string
}

// why is the first reason that holds.
func (c *comparison) why(d Difference) string {
	for _, r := range reasons {
		m := r.field.FindStringSubmatch(d.Field)
		if m == nil {
			continue
		}
		name := ""
		if len(m) > 1 {
			name = m[1]
		}
		if r.holds == nil || r.holds(c, d, name) {
			return r.why
		}
	}
	return c.whyAgent(d)
}

// on makes a rule's path from a path with * for a name.
func on(field string) *regexp.Regexp {
	parts := strings.Split(field, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, `(.+?)`) + "$")
}

// edgeField makes a rule's path from one below a container that is no sidecar.
func edgeField(field string) *regexp.Regexp {
	return regexp.MustCompile(`^spec\.containers\[[^\]]+\]\.` + regexp.QuoteMeta(field) + "$")
}

const (
	noEnvoy   = "the agent alone: no Envoy of Istio's runs, and it captured nothing"
	sameDir   = "the same directory, without the trailing slash: Emissary compares directories as exact strings"
	noCapture = "no traffic of an edge is captured"
	itsOwn    = "says what Isthmus added, so that it can be taken back"
	theKey    = "the key that stands for the integration by hand"
	soleUser  = "nothing but the sidecar written by hand used it"
)

// reasons are the differences that are meant, outside of the sidecar.
var reasons = []reason{
	{on("metadata.annotations[" + policy.StatusKey + "]"), added, itsOwn},
	{on("metadata.labels[" + policy.InjectedLabel + "]"), added, itsOwn},
	{on("metadata.annotations[" + policy.Domain + "*]"), added, theKey},
	{on("metadata.labels[" + policy.InjectKey + "]"), added, theKey},
	{on("metadata.labels[" + policy.IstioInjectKey + "]"), becomes("false"), "keeps Istio's own injector away"},
	{on("metadata.annotations[" + policy.IstioInjectKey + "]"), becomes("false"), "keeps Istio's own injector away"},
	{on("metadata.labels[" + policy.IstioInjectKey + "]"), becomes("true"), "has Istio's injector add the sidecar"},
	{on("metadata.annotations[" + policy.IstioInjectKey + "]"), becomes("true"), "has Istio's injector add the sidecar"},
	{on("metadata.labels[" + policy.IstioTLSModeLabel + "]"), becomes("disabled"), "peers must not send mTLS to the edge's ports, where nobody ends it"},
	{on("metadata.labels[" + policy.IstioDataplaneLabel + "]"), becomes("none"), "ztunnel must not capture what comes to the edge"},
	{on("metadata.annotations[" + policy.ConsulInjectKey + "]"), becomes("false"), "keeps Consul's injector away, as the vendors' manifests do"},
	{on("metadata.annotations[" + policy.DefaultContainerKey + "]"), added, "kubectl logs and exec mean the edge"},
	{on("metadata.annotations[" + policy.IstioInboundPortsKey + "]"), becomes(""), noCapture},
	{on("metadata.annotations[" + policy.IstioOutboundRangesKey + "]"), becomes(""), noCapture},
	{on("metadata.annotations[" + policy.IstioStatusKey + "]"), nil, "Istio's injector says what it added"},
	{on("metadata.annotations[sidecar.istio.io/proxy*]"), added, "carried over from the sidecar written by hand"},
	{on("metadata.annotations[" + policy.IstioLogLevelKey + "]"), added, "carried over from --proxyLogLevel"},
	{on("metadata.annotations[" + policy.IstioAgentLogLevelKey + "]"), added, "carried over from --log_output_level"},
	{on("metadata.annotations[" + policy.IstioStatusPortKey + "]"), added, "carried over from --statusPort"},

	{on("metadata.annotations[" + policy.IstioProxyConfigKey + "].proxyMetadata[OUTPUT_CERTS]"), sameDirectory, sameDir},
	{on("metadata.annotations[" + policy.IstioProxyConfigKey + "].proxyMetadata[OUTPUT_CERTS]"), isCertDir, "one directory for agent and edge"},
	{on("metadata.annotations[" + policy.IstioProxyConfigKey + "].proxyMetadata[ISTIO_META_DNS_CAPTURE]"), becomes("false"), "DNS of an edge is not captured"},
	{on("metadata.annotations[" + policy.IstioProxyConfigKey + "].proxyMetadata[SECRET_TTL]"), nil, "the lifetime asked of the CA, no more than it grants"},
	{on("metadata.annotations[" + policy.IstioProxyConfigKey + "].holdApplicationUntilProxyStarts"), toTrue, "the edge starts when there are certificates"},
	{on("metadata.annotations[" + policy.IstioProxyConfigKey + "]"), configAdded, "asks Istio's sidecar for certificate files"},
	{on("metadata.annotations[" + policy.IstioUserVolumeMount + "][" + patches.CertsVolume + "].mountPath"), sameDirectory, sameDir},
	{on("metadata.annotations[" + policy.IstioUserVolumeMount + "][*]"), certsMount, "volume " + patches.CertsVolume + " is where Isthmus has the sidecar put the files"},
	{on("metadata.annotations[" + policy.IstioUserVolumeKey + "][*]"), volumeThere, "the pod itself has the volume " + patches.CertsVolume},

	{regexp.MustCompile(`^spec\.initContainers\[istio-(?:init|validation)\]\.env\[(?:OUTPUT_CERTS|ISTIO_META_DNS_CAPTURE|SECRET_TTL)\]$`), byIstio, "Istio's injector gives its init container all of proxyMetadata"},

	{on("spec.volumes[" + patches.CertsVolume + "].emptyDir.medium"), becomes("Memory"), "keys stay in memory, off the node's disk"},
	{on("spec.volumes[" + patches.CertsVolume + "].emptyDir.sizeLimit"), nil, "certificates take a few KiB, and memory counts as the pod's: a bound"},
	{on("spec.volumes[" + patches.CertsVolume + "]"), added, "agent and edge share the certificate files"},
	{on("spec.volumes[istio-envoy].emptyDir.medium"), becomes("Memory"), "memory instead of disk, which would keep the cluster autoscaler from moving the pod"},
	{on("spec.volumes[istio-envoy].emptyDir.sizeLimit"), nil, "memory counts as the pod's: a bound"},
	{on("spec.volumes[istio-data].emptyDir.medium"), becomes("Memory"), "memory instead of disk, which would keep the cluster autoscaler from moving the pod"},
	{on("spec.volumes[istio-data].emptyDir.sizeLimit"), nil, "memory counts as the pod's: a bound"},
	{on("spec.volumes[istio-envoy]"), added, "where the agent writes, with a read-only root"},
	{on("spec.volumes[istio-data]"), added, "where Envoy writes, with a read-only root"},
	{on("spec.volumes[istiod-ca-cert]"), added, "the mesh's root certificate"},
	{on("spec.volumes[istio-token]"), added, "the token that the agent shows the CA"},
	{regexp.MustCompile(`^spec\.volumes\[istiod-ca-cert\]\.`), nil, "the mesh's root certificate, where the mesh keeps it"},
	{regexp.MustCompile(`^spec\.volumes\[istio-token\]\.projected`), nil, "token audience and lifetime from the mesh"},
	{on("spec.volumes[*]"), usedByProxyAlone, soleUser},
	{on("spec.volumes[*]"), heldCerts, "volume " + patches.CertsVolume + " takes its place"},

	{edgeField("env[" + inject.SecretDirEnv + "]"), sameDirectory, sameDir},
	{edgeField("env[" + inject.SecretDirEnv + "]"), addedDir, "tells the edge where the files are"},
	{edgeField("env[" + inject.SecretDirEnv + "]"), mountedThere, "the directory that the edge has the files in"},
	{edgeField("env[" + inject.SecretDirEnv + "]"), bySecret, "with delivery secret the edge reads the Secret"},
	{edgeField("env[" + envoyBaseEnv + "]"), removedWithEnvoy, "no Envoy of Istio's runs beside the edge's, so IDs cannot clash"},
	{edgeField("env[" + envoyBaseEnv + "]"), added, "two Envoys in one pod must not share an ID"},
	{edgeField("volumeMounts[" + patches.CertsVolume + "].readOnly"), toTrue, "the edge reads the certificates and writes none"},
	{edgeField("volumeMounts[" + patches.CertsVolume + "].mountPath"), sameDirectory, sameDir},
	{edgeField("volumeMounts[" + patches.CertsVolume + "]"), added, "the edge reads the certificate files"},
	{regexp.MustCompile(`^spec\.containers\[[^\]]+\]\.volumeMounts\[(.+)\]$`), heldCerts, "volume " + patches.CertsVolume + " is mounted in its place"},
}

// byIstio: the injector of Istio's made the pod after, as Isthmus asked it to.
func byIstio(c *comparison, _ Difference, _ string) bool { return c.status.Mode == policy.Istio }

func added(_ *comparison, d Difference, _ string) bool  { return d.Before == "" }
func toTrue(_ *comparison, d Difference, _ string) bool { return d.After == "true" }

func becomes(value string) func(*comparison, Difference, string) bool {
	want := text(value)
	return func(_ *comparison, d Difference, _ string) bool { return d.After == want }
}

// unquoted is a text value without its quotes, empty for anything else.
func unquoted(value string) (s string) {
	_ = json.Unmarshal([]byte(value), &s)
	return s
}

func sameDirectory(_ *comparison, d Difference, _ string) bool {
	was, is := unquoted(d.Before), unquoted(d.After)
	return was != "" && is != "" && path.Clean(was) == path.Clean(is)
}

// isCertDir: the value after is the certificate directory of the status.
func isCertDir(c *comparison, d Difference, _ string) bool {
	return c.status.CertDir != "" && unquoted(d.After) == c.status.CertDir
}

func addedDir(c *comparison, d Difference, name string) bool {
	return d.Before == "" && isCertDir(c, d, name)
}

func bySecret(c *comparison, d Difference, _ string) bool {
	return d.After == "" && c.status.Delivery == policy.BySecret
}

// mountedThere: the edge had the certificates' volume where the variable now says.
func mountedThere(c *comparison, d Difference, _ string) bool {
	dir, found := unquoted(d.After), false
	eachContainer(c.before, func(_ string, _ int, container *corev1.Container) {
		if m := coveringMount(container.VolumeMounts, dir); m != nil && container.Name != patches.SidecarName {
			found = found || slices.Contains(certVolumes(c.before), m.Name)
		}
	})
	return found && isCertDir(c, d, "")
}

// removedWithEnvoy: the sidecar after runs no Envoy.
func removedWithEnvoy(c *comparison, d Difference, _ string) bool {
	if d.After != "" {
		return false
	}
	return !c.runsEnvoy()
}

// runsEnvoy: an Envoy of Istio's is in the pod after.
func (c *comparison) runsEnvoy() bool {
	if c.proxy == nil {
		return c.status.Mode != policy.Secret && c.status.Mode != policy.Ambient
	}
	off := inject.FindEnv(c.proxy, "DISABLE_ENVOY")
	return off == nil || off.Value != "true"
}

// configAdded: proxy.istio.io/config came whole, or was no mapping.
func configAdded(c *comparison, d Difference, _ string) bool {
	return d.Before == "" && c.status.Mode == policy.Istio
}

func volumeThere(c *comparison, d Difference, name string) bool {
	return d.After == "" && (name == patches.CertsVolume || slices.Contains(certVolumes(c.before), name)) && inject.FindVolume(c.after, patches.CertsVolume) != nil
}

// certsMount: a mount of the certificates in userVolumeMount came, or went under
// its old name.
func certsMount(c *comparison, d Difference, name string) bool {
	if d.Before == "" {
		return name == patches.CertsVolume
	}
	return d.After == "" && slices.Contains(certVolumes(c.before), name)
}

// usedByProxyAlone: a volume that went, and that of the containers that are still
// there nobody mounted.
func usedByProxyAlone(c *comparison, d Difference, name string) bool {
	if d.After != "" {
		return false
	}
	var users []string
	eachContainer(c.before, func(_ string, _ int, container *corev1.Container) {
		if inject.FindMount(container, name) != nil {
			users = append(users, container.Name)
		}
	})
	return len(users) == 1 && users[0] == patches.SidecarName
}

// heldCerts: the volume that held the certificates under another name.
func heldCerts(c *comparison, d Difference, name string) bool {
	return name != patches.CertsVolume && d.After == "" && slices.Contains(certVolumes(c.before), name) && inject.FindVolume(c.after, patches.CertsVolume) != nil
}

// eachContainer visits the containers of both lists.
func eachContainer(pod *corev1.Pod, visit func(list string, i int, c *corev1.Container)) {
	for i := range pod.Spec.InitContainers {
		visit("initContainers", i, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		visit("containers", i, &pod.Spec.Containers[i])
	}
}
