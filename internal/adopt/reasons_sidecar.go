package adopt

import (
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// sidecarField matches a field of the sidecar.
var sidecarField = regexp.MustCompile(`^spec\.(?:initC|c)ontainers\[` + patches.SidecarName + `\](?:\.(.+))?$`)

const (
	nativeSidecar    = "a native sidecar: starts before the edge and ends after it"
	fromMeshSettings = "from the mesh's settings"
	identity         = "the pod's identity and address, for the agent"
	telemetry        = "metadata for Envoy's telemetry, and no Envoy runs"
)

// sidecarReasons explain the differences in the sidecar by a prefix of the field within it.
// They do not apply to mode istio, where Istio's injector adds the sidecar.
var sidecarReasons = []prefixReason{
	{"name", "the name by which Istio's tools find it"},
	{"restartPolicy", nativeSidecar},
	{"imagePullPolicy", "from the mesh's settings, else the default of Kubernetes"},
	{"image", "the mesh's own image, not pinned: it follows Istio's version"},
	{"command", "the image's own entrypoint, pilot-agent"},
	{"startupProbe", "holds the edge back until all three certificate files are there"},
	{"readinessProbe", "the startup probe holds the edge back until the files are there; an agent that is slow later must not take the edge out of service"},
	{"livenessProbe", "the agent exits if it cannot continue"},
	{"lifecycle", nativeSidecar},
	{"resources", "requests and limits are always set: quotas refuse pods without them, and autoscalers need them"},
	{"securityContext", "passes Pod Security restricted: not root, read-only, no capabilities"},
	{"ports", "the agent's own port is declared, and no other"},
	{"terminationMessage", "Kubernetes' own default"},
	{"volumeMounts[" + patches.CertsVolume + "].mountPath", "one directory for agent and edge"},
	{"volumeMounts[" + patches.CertsVolume + "]", "the agent writes the files there"},
	{"volumeMounts[istiod-ca-cert]", "the mesh's root certificate, read-only"},
	{"volumeMounts[istio-token]", "the token that the agent presents to the CA, read-only"},
	{"volumeMounts[istio-envoy]", "where the agent writes, with a read-only root"},
	{"volumeMounts[kube-api-access]", "the API server mounts it"},
}

// istioReasons explain the differences in a sidecar that Istio's injector added to the same
// pod with other annotations.
var istioReasons = []prefixReason{
	{"env[OUTPUT_CERTS]", "one directory for agent and edge"},
	{"env[ISTIO_META_DNS_CAPTURE]", "DNS of an edge is not captured"},
	{"env[SECRET_TTL]", "the lifetime requested from the CA, at most what it grants"},
	{"env[PROXY_CONFIG]", "the annotation proxy.istio.io/config, as Isthmus merged it"},
	{"env[ISTIO_METAJSON_", "the pod's labels and annotations, as they differ"},
	{"lifecycle", "holdApplicationUntilProxyStarts: the edge starts once the certificates exist"},
	{"startupProbe", "holdApplicationUntilProxyStarts: the edge starts once the certificates exist"},
	{"volumeMounts[" + patches.CertsVolume + "]", "the agent writes the files there"},
	{"volumeMounts[kube-api-access]", "the API server mounts it"},
}

// sidecarReason explains a difference in the sidecar. It returns "" if no rule does.
func (c *comparison) sidecarReason(d Difference) string {
	m := sidecarField.FindStringSubmatch(d.Field)
	switch {
	case m == nil:
		return ""
	case c.status.Mode == policy.Istio && m[1] == "" && d.After == "":
		return "Istio's injector adds its sidecar, as the annotations ask"
	case c.status.Mode == policy.Istio && m[1] == "" && d.Before == "":
		return "Istio's injector added its sidecar"
	case c.status.Mode == policy.Istio:
		return reasonByPrefix(istioReasons, m[1])
	case m[1] == "" && d.Before == jsonText("spec.containers"):
		return nativeSidecar
	case m[1] == "" && d.Before == "":
		return "the sidecar that the integration by hand lacked"
	case m[1] == "":
		return ""
	case strings.HasPrefix(m[1], "args["):
		return c.unlessEnvoyRuns(flagReasons[strings.TrimSuffix(strings.TrimPrefix(m[1], "args["), "]")])
	case strings.HasPrefix(m[1], "env["):
		name, _, _ := strings.Cut(strings.TrimPrefix(m[1], "env["), "]")
		return c.unlessEnvoyRuns(variableReason(name))
	}
	if reason := reasonByPrefix(sidecarReasons, m[1]); reason != "" {
		return reason
	}
	if name, ok := strings.CutPrefix(m[1], "volumeMounts["); ok && d.After == "" {
		return c.removedMountReason(strings.TrimSuffix(name, "]"))
	}
	return ""
}

// removedMountReason explains a mount that the sidecar no longer has.
func (c *comparison) removedMountReason(name string) string {
	before := findSidecar(c.before)
	if before == nil {
		return ""
	}
	m := inject.FindMount(before, name)
	if m == nil {
		return ""
	}
	if c.sidecar != nil && slices.ContainsFunc(c.sidecar.VolumeMounts, func(now corev1.VolumeMount) bool { return path.Clean(now.MountPath) == path.Clean(m.MountPath) }) {
		return "another volume is mounted there"
	}
	if policy.IsAgentMount(m.MountPath) {
		return "the agent does not need this mount without Envoy"
	}
	if heldCertificates(c, Difference{}, name) {
		return "volume " + patches.CertsVolume + " takes its place"
	}
	return ""
}

// prefixReason explains the differences in all fields with a prefix.
type prefixReason struct{ prefix, reason string }

// reasonByPrefix returns the reason of the first rule whose prefix the field has, or "".
func reasonByPrefix(rules []prefixReason, field string) string {
	for _, r := range rules {
		if strings.HasPrefix(field, r.prefix) {
			return r.reason
		}
	}
	return ""
}

// unlessEnvoyRuns replaces a reason that is wrong if Envoy runs.
func (c *comparison) unlessEnvoyRuns(reason string) string {
	if strings.Contains(reason, "no Envoy") && c.runsEnvoy() {
		return "Istio's own default, " + fromMeshSettings
	}
	return reason
}
