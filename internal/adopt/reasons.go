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

// rule explains a difference in a field. A rule applies only to differences that Isthmus
// itself causes.
type rule struct {
	// field matches the whole path. Its first group, if any, is the argument name of
	// applies.
	field *regexp.Regexp
	// applies reports whether the rule applies to a difference; nil means always.
	applies func(c *comparison, d Difference, name string) bool
	reason  string
}

// reasonFor returns the reason of the first rule that applies, or "".
func (c *comparison) reasonFor(d Difference) string {
	for _, r := range rules {
		m := r.field.FindStringSubmatch(d.Field)
		if m == nil {
			continue
		}
		name := ""
		if len(m) > 1 {
			name = m[1]
		}
		if r.applies == nil || r.applies(c, d, name) {
			return r.reason
		}
	}
	return c.sidecarReason(d)
}

// fieldPattern returns a pattern for a path, where * matches a name.
func fieldPattern(field string) *regexp.Regexp {
	parts := strings.Split(field, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, `(.+?)`) + "$")
}

// edgeFieldPattern returns a pattern for a path within a container in spec.containers.
func edgeFieldPattern(field string) *regexp.Regexp {
	return regexp.MustCompile(`^spec\.containers\[[^\]]+\]\.` + regexp.QuoteMeta(field) + "$")
}

const (
	noEnvoy             = "no Envoy runs: the edge needs the agent only, and the sidecar captured no traffic"
	sameDir             = "the same directory, without the trailing slash: Emissary compares directories as exact strings"
	noCapture           = "no traffic of an edge is captured"
	recordsAdditions    = "records what Isthmus added, so that it can be reverted"
	replacesIntegration = "the key that replaces the integration by hand"
	usedBySidecarOnly   = "only the sidecar written by hand used it"
)

// rules explain the intended differences outside of the sidecar.
var rules = []rule{
	{fieldPattern("metadata.annotations[" + policy.StatusKey + "]"), isAdded, recordsAdditions},
	{fieldPattern("metadata.labels[" + policy.InjectedLabel + "]"), isAdded, recordsAdditions},
	{fieldPattern("metadata.annotations[" + policy.Domain + "*]"), isAdded, replacesIntegration},
	{fieldPattern("metadata.labels[" + policy.InjectKey + "]"), isAdded, replacesIntegration},
	{fieldPattern("metadata.labels[" + policy.IstioInjectKey + "]"), becomes("false"), "opts the pod out of Istio's injector"},
	{fieldPattern("metadata.annotations[" + policy.IstioInjectKey + "]"), becomes("false"), "opts the pod out of Istio's injector"},
	{fieldPattern("metadata.labels[" + policy.IstioInjectKey + "]"), becomes("true"), "makes Istio's injector add the sidecar"},
	{fieldPattern("metadata.annotations[" + policy.IstioInjectKey + "]"), becomes("true"), "makes Istio's injector add the sidecar"},
	{fieldPattern("metadata.labels[" + policy.IstioTLSModeLabel + "]"), becomes("disabled"), "peers must not send mTLS to the edge's ports, which do not terminate it"},
	{fieldPattern("metadata.labels[" + policy.IstioDataplaneLabel + "]"), becomes("none"), "ztunnel must not capture what comes to the edge"},
	{fieldPattern("metadata.annotations[" + policy.ConsulInjectKey + "]"), becomes("false"), "opts the pod out of Consul's injector, as the vendors' manifests do"},
	{fieldPattern("metadata.annotations[" + policy.DefaultContainerKey + "]"), isAdded, "kubectl logs and exec select the edge by default"},
	{fieldPattern("metadata.annotations[" + policy.IstioInboundPortsKey + "]"), becomes(""), noCapture},
	{fieldPattern("metadata.annotations[" + policy.IstioOutboundRangesKey + "]"), becomes(""), noCapture},
	{fieldPattern("metadata.annotations[" + policy.IstioStatusKey + "]"), nil, "Istio's injector says what it added"},
	{fieldPattern("metadata.annotations[sidecar.istio.io/proxy*]"), isAdded, "carried over from the sidecar written by hand"},
	{fieldPattern("metadata.annotations[" + policy.IstioLogLevelKey + "]"), isAdded, "carried over from --proxyLogLevel"},
	{fieldPattern("metadata.annotations[" + policy.IstioAgentLogLevelKey + "]"), isAdded, "carried over from --log_output_level"},
	{fieldPattern("metadata.annotations[" + policy.IstioStatusPortKey + "]"), isAdded, "carried over from --statusPort"},

	{fieldPattern("metadata.annotations[" + policy.IstioProxyConfigKey + "].proxyMetadata[OUTPUT_CERTS]"), isSameDirectory, sameDir},
	{fieldPattern("metadata.annotations[" + policy.IstioProxyConfigKey + "].proxyMetadata[OUTPUT_CERTS]"), isCertDir, "one directory for agent and edge"},
	{fieldPattern("metadata.annotations[" + policy.IstioProxyConfigKey + "].proxyMetadata[ISTIO_META_DNS_CAPTURE]"), becomes("false"), "DNS of an edge is not captured"},
	{fieldPattern("metadata.annotations[" + policy.IstioProxyConfigKey + "].proxyMetadata[SECRET_TTL]"), nil, "the lifetime requested from the CA, at most what it grants"},
	{fieldPattern("metadata.annotations[" + policy.IstioProxyConfigKey + "].holdApplicationUntilProxyStarts"), becomesTrue, "the edge starts once the certificates exist"},
	{fieldPattern("metadata.annotations[" + policy.IstioProxyConfigKey + "]"), isAddedConfig, "asks Istio's sidecar for certificate files"},
	{fieldPattern("metadata.annotations[" + policy.IstioUserVolumeMount + "][" + patches.CertsVolume + "].mountPath"), isSameDirectory, sameDir},
	{fieldPattern("metadata.annotations[" + policy.IstioUserVolumeMount + "][*]"), isCertsMount, "volume " + patches.CertsVolume + " is where Isthmus has the sidecar put the files"},
	{fieldPattern("metadata.annotations[" + policy.IstioUserVolumeKey + "][*]"), isVolumeOfPod, "the pod itself has the volume " + patches.CertsVolume},

	{regexp.MustCompile(`^spec\.initContainers\[istio-(?:init|validation)\]\.env\[(?:OUTPUT_CERTS|ISTIO_META_DNS_CAPTURE|SECRET_TTL)\]$`), isModeIstio, "Istio's injector gives its init container all of proxyMetadata"},

	{fieldPattern("spec.volumes[" + patches.CertsVolume + "].emptyDir.medium"), becomes("Memory"), "keys stay in memory, off the node's disk"},
	{fieldPattern("spec.volumes[" + patches.CertsVolume + "].emptyDir.sizeLimit"), nil, "a limit, because files in memory count as the pod's memory; certificates take a few KiB"},
	{fieldPattern("spec.volumes[" + patches.CertsVolume + "]"), isAdded, "agent and edge share the certificate files"},
	{fieldPattern("spec.volumes[istio-envoy].emptyDir.medium"), becomes("Memory"), "memory instead of disk, which would keep the cluster autoscaler from moving the pod"},
	{fieldPattern("spec.volumes[istio-envoy].emptyDir.sizeLimit"), nil, "a limit, because files in memory count as the pod's memory"},
	{fieldPattern("spec.volumes[istio-data].emptyDir.medium"), becomes("Memory"), "memory instead of disk, which would keep the cluster autoscaler from moving the pod"},
	{fieldPattern("spec.volumes[istio-data].emptyDir.sizeLimit"), nil, "a limit, because files in memory count as the pod's memory"},
	{fieldPattern("spec.volumes[istio-envoy]"), isAdded, "where the agent writes, with a read-only root"},
	{fieldPattern("spec.volumes[istio-data]"), isAdded, "where Envoy writes, with a read-only root"},
	{fieldPattern("spec.volumes[istiod-ca-cert]"), isAdded, "the mesh's root certificate"},
	{fieldPattern("spec.volumes[istio-token]"), isAdded, "the token that the agent presents to the CA"},
	{regexp.MustCompile(`^spec\.volumes\[istiod-ca-cert\]\.`), nil, "the mesh's root certificate, where the mesh keeps it"},
	{regexp.MustCompile(`^spec\.volumes\[istio-token\]\.projected`), nil, "token audience and lifetime from the mesh"},
	{fieldPattern("spec.volumes[*]"), wasUsedBySidecarOnly, usedBySidecarOnly},
	{fieldPattern("spec.volumes[*]"), heldCertificates, "volume " + patches.CertsVolume + " takes its place"},

	{edgeFieldPattern("env[" + inject.SecretDirEnv + "]"), isSameDirectory, sameDir},
	{edgeFieldPattern("env[" + inject.SecretDirEnv + "]"), isAddedCertDir, "tells the edge where the files are"},
	{edgeFieldPattern("env[" + inject.SecretDirEnv + "]"), wasMountedThere, "the directory that the edge has the files in"},
	{edgeFieldPattern("env[" + inject.SecretDirEnv + "]"), isRemovedForSecret, "with delivery secret the edge reads the Secret"},
	{edgeFieldPattern("env[" + envoyBaseIDEnv + "]"), isRemovedWithEnvoy, "no Envoy runs in the sidecar, so the IDs cannot clash"},
	{edgeFieldPattern("env[" + envoyBaseIDEnv + "]"), isAdded, "two Envoys in one pod must not share an ID"},
	{edgeFieldPattern("volumeMounts[" + patches.CertsVolume + "].readOnly"), becomesTrue, "the edge reads the certificates and writes none"},
	{edgeFieldPattern("volumeMounts[" + patches.CertsVolume + "].mountPath"), isSameDirectory, sameDir},
	{edgeFieldPattern("volumeMounts[" + patches.CertsVolume + "]"), isAdded, "the edge reads the certificate files"},
	{regexp.MustCompile(`^spec\.containers\[[^\]]+\]\.volumeMounts\[(.+)\]$`), heldCertificates, "volume " + patches.CertsVolume + " is mounted in its place"},
}

// isModeIstio reports whether Istio's injector added the sidecar of the pod after.
func isModeIstio(c *comparison, _ Difference, _ string) bool { return c.status.Mode == policy.Istio }

func isAdded(_ *comparison, d Difference, _ string) bool     { return d.Before == "" }
func becomesTrue(_ *comparison, d Difference, _ string) bool { return d.After == "true" }

func becomes(value string) func(*comparison, Difference, string) bool {
	want := jsonText(value)
	return func(_ *comparison, d Difference, _ string) bool { return d.After == want }
}

// unquoted returns the text of a JSON string, or "" for any other value.
func unquoted(value string) (s string) {
	_ = json.Unmarshal([]byte(value), &s)
	return s
}

// isSameDirectory reports whether both values are the same directory, written differently.
func isSameDirectory(_ *comparison, d Difference, _ string) bool {
	before, after := unquoted(d.Before), unquoted(d.After)
	return before != "" && after != "" && path.Clean(before) == path.Clean(after)
}

// isCertDir reports whether the value after is the certificate directory of the status.
func isCertDir(c *comparison, d Difference, _ string) bool {
	return c.status.CertDir != "" && unquoted(d.After) == c.status.CertDir
}

func isAddedCertDir(c *comparison, d Difference, name string) bool {
	return d.Before == "" && isCertDir(c, d, name)
}

func isRemovedForSecret(c *comparison, d Difference, _ string) bool {
	return d.After == "" && c.status.Delivery == policy.DeliverySecret
}

// wasMountedThere reports whether the value after is the certificate directory, and the edge
// mounted the certificates there before.
func wasMountedThere(c *comparison, d Difference, _ string) bool {
	dir, found := unquoted(d.After), false
	eachContainer(c.before, func(_ string, _ int, container *corev1.Container) {
		if m := enclosingMount(container.VolumeMounts, dir); m != nil && container.Name != patches.SidecarName {
			found = found || slices.Contains(certVolumes(c.before), m.Name)
		}
	})
	return found && isCertDir(c, d, "")
}

// isRemovedWithEnvoy reports whether the value is gone and the sidecar after runs no Envoy.
func isRemovedWithEnvoy(c *comparison, d Difference, _ string) bool {
	if d.After != "" {
		return false
	}
	return !c.runsEnvoy()
}

// runsEnvoy reports whether Istio's sidecar in the pod after runs Envoy.
func (c *comparison) runsEnvoy() bool {
	if c.sidecar == nil {
		return c.status.Mode != policy.Secret && c.status.Mode != policy.Ambient
	}
	disabled := inject.FindEnv(c.sidecar, "DISABLE_ENVOY")
	return disabled == nil || disabled.Value != "true"
}

// isAddedConfig reports whether mode istio added the whole annotation.
func isAddedConfig(c *comparison, d Difference, _ string) bool {
	return d.Before == "" && c.status.Mode == policy.Istio
}

// isVolumeOfPod reports whether the annotation no longer adds the volume of the
// certificates, because the pod itself has the volume istio-certs.
func isVolumeOfPod(c *comparison, d Difference, name string) bool {
	return d.After == "" && (name == patches.CertsVolume || slices.Contains(certVolumes(c.before), name)) && inject.FindVolume(c.after, patches.CertsVolume) != nil
}

// isCertsMount reports whether a mount of the certificates was added to userVolumeMount, or
// removed under its old name.
func isCertsMount(c *comparison, d Difference, name string) bool {
	if d.Before == "" {
		return name == patches.CertsVolume
	}
	return d.After == "" && slices.Contains(certVolumes(c.before), name)
}

// wasUsedBySidecarOnly reports whether a volume is gone that only the sidecar mounted.
func wasUsedBySidecarOnly(c *comparison, d Difference, name string) bool {
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

// heldCertificates reports whether a volume is gone that held the certificates under another
// name, and the pod now has the volume istio-certs.
func heldCertificates(c *comparison, d Difference, name string) bool {
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
