package inject_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// edge is a valid Emissary pod.
func edge() *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Name = "edge"
	pod.Spec.Containers = []corev1.Container{{Name: "emissary", Image: "ghcr.io/emissary-ingress/emissary:4.1.0"}}
	return pod
}

func annotated(pairs ...string) *corev1.Pod {
	pod := edge()
	pod.Annotations = map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		pod.Annotations[pairs[i]] = pairs[i+1]
	}
	return pod
}

// TestInvalidOverride shows that a pod with an invalid value is denied with one sentence: key,
// value, what is allowed. It does not matter whether pod or namespace opts it in.
func TestInvalidOverride(t *testing.T) {
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"inject":                 {annotated(policy.InjectKey, "yes"), `annotation isthmus.dev/inject: "yes" is not allowed; want "true" or "false"`},
		"mode misspelled":        {annotated(policy.ModeKey, "sidcar"), `annotation isthmus.dev/mode: "sidcar" is not allowed; want sidecar, istio, secret or ambient`},
		"publish, mode istio":    {annotated(policy.PublishKey, "true", policy.ModeKey, "istio"), `annotation isthmus.dev/publish: "true" is not allowed; mode istio uses Istio's own agent, and Isthmus adds none to the pod, so there are no files to publish; want "false"`},
		"no envoy, mode istio":   {annotated(policy.EnvoyKey, "false", policy.ModeKey, "istio"), `annotation isthmus.dev/envoy: "false" is not allowed; mode istio runs Istio's complete sidecar, including Envoy; remove the annotation, or set isthmus.dev/mode: sidecar`},
		"delivery, ambient":      {annotated(policy.DeliveryKey, "files", policy.ModeKey, "ambient"), `annotation isthmus.dev/delivery: "files" is not allowed; mode ambient gives the pod neither certificate nor sidecar; remove the annotation, or choose another mode`},
		"publish, ambient":       {annotated(policy.PublishKey, "true", policy.ModeKey, "ambient"), `annotation isthmus.dev/publish: "true" is not allowed; mode ambient has no agent in the pod, so there are no files to publish; want "false"`},
		"envoy, ambient":         {annotated(policy.EnvoyKey, "true", policy.ModeKey, "ambient"), `annotation isthmus.dev/envoy: "true" is not allowed; mode ambient gives the pod neither certificate nor sidecar; remove the annotation, or choose another mode`},
		"delivery":               {annotated(policy.DeliveryKey, "pigeon"), `annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret`},
		"profile":                {annotated(policy.ProfileKey, "traefik"), `annotation isthmus.dev/profile: "traefik" is not a profile; known are aes, ambassador, emissary, generic`},
		"cert-dir relative":      {annotated(policy.CertDirKey, "certs"), `annotation isthmus.dev/cert-dir: "certs" is not allowed; want an absolute path such as /etc/istio-certs, without colon or dollar sign`},
		"cert-dir with a parent": {annotated(policy.CertDirKey, "/etc/../srv/certs"), `annotation isthmus.dev/cert-dir: "/etc/../srv/certs" is not allowed; want a path without .., such as /etc/istio-certs`},
		"cert-dir of 513 bytes":  {annotated(policy.CertDirKey, "/"+strings.Repeat("x", 512)), `annotation isthmus.dev/cert-dir: a value of 513 bytes is not allowed; want at most 512 bytes`},
		"mode of 65 bytes":       {annotated(policy.ModeKey, strings.Repeat("x", 65)), `annotation isthmus.dev/mode: a value of 65 bytes is not allowed; want at most 64 bytes`},
		"cert-ttl of 65 bytes":   {annotated(policy.CertTTLKey, strings.Repeat("0", 63)+"9h"), `annotation isthmus.dev/cert-ttl: a value of 65 bytes is not allowed; want at most 64 bytes`},
		"inject of 65 bytes":     {annotated(policy.InjectKey, strings.Repeat("x", 65)), `annotation isthmus.dev/inject: a value of 65 bytes is not allowed; want "true" or "false"`},
		"profile, empty":         {annotated(policy.ProfileKey, ""), `annotation isthmus.dev/profile: "" is not a profile; known are aes, ambassador, emissary, generic`},
		"profile of 254 bytes":   {annotated(policy.ProfileKey, strings.Repeat("x", 254)), `annotation isthmus.dev/profile: a value of 254 bytes is not allowed; want at most 253 bytes`},
		"container, empty":       {annotated(policy.ContainerKey, ""), `annotation isthmus.dev/container: "" is not allowed; want the name of one of the pod's containers`},
		"cert-dir system":        {annotated(policy.CertDirKey, "/etc/"), `annotation isthmus.dev/cert-dir: "/etc/" is not allowed; a mount there would hide what the containers need; want a dedicated directory such as /etc/istio-certs`},
		"cert-dir of the agent":  {annotated(policy.CertDirKey, "/var/run/secrets/workload-spiffe-credentials/"), `annotation isthmus.dev/cert-dir: "/var/run/secrets/workload-spiffe-credentials/" is not allowed; the agent uses /var/run/secrets/workload-spiffe-credentials itself; want another directory such as /etc/istio-certs`},
		"cert-dir by /run":       {annotated(policy.CertDirKey, "/run/secrets/tokens"), `annotation isthmus.dev/cert-dir: "/run/secrets/tokens" is not allowed; the agent uses /var/run/secrets/tokens itself; want another directory such as /etc/istio-certs`},
		"cert-dir above":         {annotated(policy.CertDirKey, "/var/run/secrets"), `annotation isthmus.dev/cert-dir: "/var/run/secrets" is not allowed; the agent uses /var/run/secrets/istio itself; want another directory such as /etc/istio-certs`},
		"secret-name":            {annotated(policy.SecretNameKey, "other"), `annotation isthmus.dev/secret-name: "other" is not allowed; want one of the names that the chart allows: istio-certs`},
		"publish":                {annotated(policy.PublishKey, "1"), `annotation isthmus.dev/publish: "1" is not allowed; want "true" or "false"`},
		"publish, mode secret":   {annotated(policy.PublishKey, "true", policy.ModeKey, "secret"), `annotation isthmus.dev/publish: "true" is not allowed; mode secret has no agent in the pod, so there are no files to publish; want "false"`},
		"files, mode secret":     {annotated(policy.DeliveryKey, "files", policy.ModeKey, "secret"), `annotation isthmus.dev/delivery: "files" is not allowed; mode secret has no agent that writes files; want secret`},
		"envoy":                  {annotated(policy.EnvoyKey, "on"), `annotation isthmus.dev/envoy: "on" is not allowed; want "true" or "false"`},
		"cert-ttl":               {annotated(policy.CertTTLKey, "1 day"), `annotation isthmus.dev/cert-ttl: "1 day" is not allowed; want a Go duration of at least one minute, such as 12h`},
		"container":              {annotated(policy.ContainerKey, "envoy"), `annotation isthmus.dev/container: "envoy" is not a container of the pod; its containers are emissary`},
		"container, profile":     {annotated(policy.ContainerKey, "envoy", policy.ProfileKey, "generic"), `annotation isthmus.dev/container: "envoy" is not a container of the pod; its containers are emissary`},
	} {
		t.Run(name, func(t *testing.T) {
			before := encode(t, c.pod)
			result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: c.pod, Namespace: labelled("edge")})
			assert.True(t, result.Denied)
			assert.Equal(t, policy.InvalidOverride, result.Reason)
			assert.Equal(t, c.want, result.Message)
			assert.Empty(t, result.Patch)
			assert.Equal(t, string(before), string(encode(t, c.pod)), "the pod must not be written")
		})
	}
}

// TestNeighbours shows that nothing is read of a pod that is no edge, if only its namespace
// opted it in: it is left unchanged without a warning, whatever it says.
func TestNeighbours(t *testing.T) {
	long := strings.Repeat("9", 240<<10)
	for name, annotations := range map[string]map[string]string{
		"Istio's log levels":       {policy.IstioLogLevelKey: "rbac:debug,jwt:debug"},
		"Istio's status port 0":    {policy.IstioStatusPortKey: "0"},
		"Istio's port with spaces": {policy.IstioStatusPortKey: " 15021 "},
		"no CPU for Istio's":       {policy.IstioProxyCPUKey: "0"},
		"Istio's image":            {policy.IstioProxyImageKey: "Registry.example/Proxy:1"},
		"no value of Istio's":      {policy.IstioAgentLogLevelKey: "all=1", policy.IstioProxyConfigKey: "[", policy.IstioUserVolumeMount: "["},
		"a long quantity":          {policy.IstioProxyMemLimitKey: long},
		"wrong values of ours":     {policy.ModeKey: "sidcar", policy.CertDirKey: "..", policy.CertTTLKey: long},
		"a container of another":   {policy.ContainerKey: "envoy"},
		"no container":             {policy.ContainerKey: ""},
		"unknown keys":             {"isthmus.dev/colour": "", policy.Domain + strings.Repeat("x", 240<<10): ""},
		"a status":                 {policy.StatusKey: "{"},
		"a status of another pod":  {policy.StatusKey: `{"schema":1,"mode":"secret","container":"web","added":{"labels":{"isthmus.dev/injected":"secret"}}}`},
		"much":                     {"a": strings.Repeat("x", 300<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			pod := edge()
			pod.Annotations = annotations
			pod.Spec.Containers = []corev1.Container{{Name: "web", Image: "registry.example/web:1"}}
			for kind, template := range map[string]bool{"pod": false, "template": true} {
				result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge"), Template: template})
				assert.Equal(t, inject.Result{Reason: policy.NoProfile}, result, kind)
			}
		})
	}
}

// TestIstioKeys shows what happens to an edge with a value of Istio's own keys that cannot
// be honoured: it is denied only if it asked for itself.
func TestIstioKeys(t *testing.T) {
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"proxyImage":             {annotated(policy.IstioProxyImageKey, "Not An Image"), `annotation sidecar.istio.io/proxyImage: "Not An Image" is not allowed; want an image such as docker.io/istio/proxyv2:1.31.1`},
		"proxyCPU":               {annotated(policy.IstioProxyCPUKey, "lots"), `annotation sidecar.istio.io/proxyCPU: "lots" is not allowed; want a quantity such as 100m or 128Mi`},
		"proxyMemory":            {annotated(policy.IstioProxyMemoryKey, "-1Mi"), `annotation sidecar.istio.io/proxyMemory: "-1Mi" is not allowed; want a quantity such as 100m or 128Mi`},
		"proxyCPU above limit":   {annotated(policy.IstioProxyCPUKey, "2", policy.IstioProxyCPULimitKey, "1"), `annotation sidecar.istio.io/proxyCPU: "2" is not allowed; want at most sidecar.istio.io/proxyCPULimit: "1"`},
		"logLevel":               {annotated(policy.IstioLogLevelKey, "loud"), `annotation sidecar.istio.io/logLevel: "loud" is not allowed; want levels and components such as info or warning,rbac:debug, with the levels trace, debug, info, warning, error, critical or off`},
		"agentLogLevel":          {annotated(policy.IstioAgentLogLevelKey, "all=1"), `annotation sidecar.istio.io/agentLogLevel: "all=1" is not allowed; want scopes and levels such as default:info,ca:debug`},
		"status port":            {annotated(policy.IstioStatusPortKey, "65536"), `annotation status.sidecar.istio.io/port: "65536" is not allowed; want a port from 1 to 65535`},
		"status port of Envoy":   {annotated(policy.IstioStatusPortKey, "15021"), `annotation status.sidecar.istio.io/port: "15021" is not allowed; Istio uses that port itself; want another one, by default 15020`},
		"a quantity of 65 bytes": {annotated(policy.IstioProxyMemLimitKey, strings.Repeat("0", 60)+"128Mi"), `annotation sidecar.istio.io/proxyMemoryLimit: a value of 65 bytes is not allowed; want at most 64 bytes`},
		"an image of 513 bytes":  {annotated(policy.IstioProxyImageKey, strings.Repeat("x", 513)), `annotation sidecar.istio.io/proxyImage: a value of 513 bytes is not allowed; want at most 512 bytes`},
		"no value":               {annotated(policy.IstioProxyCPUKey, ""), `annotation sidecar.istio.io/proxyCPU: "" is not allowed; want a quantity such as 100m or 128Mi`},
	} {
		t.Run(name, func(t *testing.T) {
			engine := newEngine(t, inject.Options{})
			result := engine.Inject(inject.Request{Pod: c.pod, Namespace: labelled("edge")})
			assert.False(t, result.Denied)
			assert.Equal(t, policy.InvalidOverride, result.Reason)
			assert.Empty(t, result.Patch)
			assert.Equal(t, []policy.Warning{{Code: "invalid-override", Text: "left without an identity: " + c.want}}, result.Warnings)

			c.pod.Annotations[policy.InjectKey] = "true"
			result = engine.Inject(inject.Request{Pod: c.pod, Namespace: labelled("edge")})
			assert.True(t, result.Denied)
			assert.Equal(t, c.want, result.Message)

			c.pod.Annotations[policy.ModeKey] = "secret"
			result = engine.Inject(inject.Request{Pod: c.pod, Namespace: labelled("edge")})
			assert.Equal(t, policy.Injected, result.Reason, "mode secret adds no sidecar, so nothing is read")
			assert.Contains(t, codes(result), "no-effect")
		})
	}
}

// TestIstioKeysOfTheInjector shows that mode istio leaves to Istio's injector what is
// written for it, except the port that the edge's probes need.
func TestIstioKeysOfTheInjector(t *testing.T) {
	for name, c := range map[string]struct {
		key, value string
		want       policy.Reason
	}{
		"if the image has capitals, expect injection":       {policy.IstioProxyImageKey, "Foo/Bar:1", policy.Injected},
		"if the log level is unknown, expect injection":     {policy.IstioLogLevelKey, "loud", policy.Injected},
		"if the agent's level is no word, expect injection": {policy.IstioAgentLogLevelKey, "all=1", policy.Injected},
		"if the CPU is no quantity, expect injection":       {policy.IstioProxyCPUKey, "lots", policy.Injected},
		"if the port is no number, expect a refusal":        {policy.IstioStatusPortKey, "65536", policy.InvalidOverride},
		"if the port is Envoy's, expect a refusal":          {policy.IstioStatusPortKey, "15021", policy.InvalidOverride},
	} {
		t.Run(name, func(t *testing.T) {
			pod := annotated(policy.ModeKey, "istio", c.key, c.value)
			result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			assert.Equal(t, c.want, result.Reason, result.Message)
		})
	}
	pod := annotated(policy.ModeKey, "istio", policy.IstioProxyMemoryKey, "2Gi", policy.IstioProxyMemLimitKey, "1Gi")
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.Equal(t, policy.Injected, result.Reason, "a request above its limit: %s", result.Message)
}

// TestIstioKeysAreHonoured shows values that Istio accepts.
func TestIstioKeysAreHonoured(t *testing.T) {
	sidecar := func(pairs ...string) corev1.Container {
		pod := annotated(pairs...)
		result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
		require.Equal(t, policy.Injected, result.Reason, result.Message)
		return decode(t, apply(t, encode(t, pod), result)).Spec.InitContainers[0]
	}
	assert.Contains(t, sidecar(policy.IstioLogLevelKey, "rbac:debug,jwt:debug").Args, "--proxyLogLevel=rbac:debug,jwt:debug")
	assert.Contains(t, sidecar(policy.IstioLogLevelKey, "warning,http2.x:off").Args, "--proxyLogLevel=warning,http2.x:off")
	assert.Equal(t, int32(15025), sidecar(policy.IstioStatusPortKey, " 15025 ").StartupProbe.HTTPGet.Port.IntVal)
	requests := sidecar(policy.IstioProxyCPUKey, "0").Resources.Requests
	assert.True(t, requests.Cpu().IsZero())
	assert.Equal(t, patches.DefaultProxyImage, sidecar(policy.IstioProxyImageKey, "proxyv2").Image, "Istio takes the mesh's image for a name without a slash")
	plain := sidecar("example.com/team", "edge")
	assert.Equal(t, plain, sidecar(policy.IstioProxyImageKey, "", policy.IstioLogLevelKey, "", policy.IstioAgentLogLevelKey, ""), "charts render values that are not set as empty ones")
	assert.Equal(t, "corp/proxyv2:1.30.0", sidecar(policy.IstioProxyImageKey, "corp/proxyv2:1.30.0").Image)

	for _, inject := range []string{"", "true"} {
		pod := annotated(policy.IstioStatusPortKey, "0")
		if inject != "" {
			pod.Annotations[policy.InjectKey] = inject
		}
		port, warnings := statusPortOf(t, pod)
		assert.Equal(t, int32(15020), port)
		assert.Equal(t, []policy.Warning{{Code: "no-effect", Text: `annotation status.sidecar.istio.io/port: "0" leaves out the probe of Istio's own sidecar, and has no effect here: the edge waits for its certificate with a probe on port 15020; remove the annotation`}}, warnings)
	}
}

func statusPortOf(t *testing.T, pod *corev1.Pod) (int32, []policy.Warning) {
	t.Helper()
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	injected := decode(t, apply(t, encode(t, pod), result))
	return injected.Spec.InitContainers[0].StartupProbe.HTTPGet.Port.IntVal, result.Warnings
}

// TestRefused shows that a pod that is opted in itself is denied with the reason, and that the
// same pod in a labelled namespace is left unchanged, with the reason as a warning.
func TestRefused(t *testing.T) {
	edited := func(edit func(*corev1.Pod)) *corev1.Pod {
		pod := edge()
		edit(pod)
		return pod
	}
	for name, c := range map[string]struct {
		pod    *corev1.Pod
		ns     func(*policy.Namespace)
		mesh   patches.Mesh
		reason policy.Reason
		want   string
	}{
		"windows by os": {
			pod:    edited(func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }),
			reason: policy.UnsupportedOS, want: `the pod runs on Windows, where Istio's agent does not; run the edge on Linux, or set isthmus.dev/inject: "false"`,
		},
		"windows by node selector": {
			pod:    edited(func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "windows"} }),
			reason: policy.UnsupportedOS, want: `the pod runs on Windows, where Istio's agent does not; run the edge on Linux, or set isthmus.dev/inject: "false"`,
		},
		"container name": {
			pod: edited(func(p *corev1.Pod) {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "istio-proxy", Image: "corp/metrics:1"})
			}),
			reason: policy.Conflict, want: `the pod has a container istio-proxy (image corp/metrics:1) and Isthmus adds one of that name; rename it`,
		},
		"volume name": {
			pod: edited(func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{{Name: "istio-token", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			}),
			reason: policy.Conflict, want: `the pod has a volume istio-token and Isthmus adds one of that name; rename it`,
		},
		"mount path": {
			pod: edited(func(p *corev1.Pod) {
				p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "certs", MountPath: "/etc/istio-certs/"}}
			}),
			reason: policy.Conflict, want: `container emissary mounts volume certs at /etc/istio-certs/, where the certificates (/etc/istio-certs) would go; choose another directory with isthmus.dev/cert-dir`,
		},
		"mount inside": {
			pod: edited(func(p *corev1.Pod) {
				p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "extra", MountPath: "/etc/istio-certs/extra"}}
			}),
			reason: policy.Conflict, want: `container emissary mounts volume extra at /etc/istio-certs/extra, where the certificates (/etc/istio-certs) would go; choose another directory with isthmus.dev/cert-dir`,
		},
		"read-only mount around": {
			pod: edited(func(p *corev1.Pod) {
				p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "etc", MountPath: "/etc", ReadOnly: true}}
			}),
			reason: policy.Conflict, want: `container emissary mounts volume etc read-only at /etc, so nothing can be mounted at /etc/istio-certs inside it; choose another directory with isthmus.dev/cert-dir`,
		},
		"their mount and the annotation": {
			pod: edited(func(p *corev1.Pod) {
				p.Annotations = map[string]string{policy.CertDirKey: "/etc/a"}
				p.Spec.Volumes = []corev1.Volume{{Name: "istio-certs", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
				p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/b"}}
			}),
			reason: policy.Conflict, want: `isthmus.dev/cert-dir is "/etc/a" but container emissary mounts volume istio-certs at "/etc/b"; make them agree`,
		},
		"port": {
			pod: edited(func(p *corev1.Pod) {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "metrics", Ports: []corev1.ContainerPort{{ContainerPort: 15020}}})
			}),
			reason: policy.Conflict, want: `container metrics listens on port 15020, which the agent needs; give the agent another one with annotation status.sidecar.istio.io/port`,
		},
		"host network": {
			pod:    edited(func(p *corev1.Pod) { p.Spec.HostNetwork, p.Spec.DNSPolicy = true, corev1.DNSClusterFirst }),
			reason: policy.Conflict, want: `the pod is on the host's network with dnsPolicy "ClusterFirst", so istiod's name would not resolve; set dnsPolicy: ClusterFirstWithHostNet`,
		},
		"host network of a template": {
			pod:    edited(func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
			reason: policy.Conflict, want: `the pod is on the host's network and sets no dnsPolicy, and the default ClusterFirst does not resolve istiod's name there; set dnsPolicy: ClusterFirstWithHostNet`,
		},
		"captured by ambient": {
			pod:    edited(func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioDataplaneLabel: "ambient"} }),
			reason: policy.Conflict, want: `label istio.io/dataplane-mode is "ambient", which contradicts isthmus.dev/mode sidecar; remove one of them`,
		},
		"mTLS announced": {
			pod:    edited(func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioTLSModeLabel: "istio"} }),
			reason: policy.Conflict, want: `label security.istio.io/tlsMode is "istio", which makes peers send mTLS to ports where mode sidecar terminates none; remove it`,
		},
		"our marker": {
			pod:    edited(func(p *corev1.Pod) { p.Labels = map[string]string{policy.InjectedLabel: "sidecar"} }),
			reason: policy.Conflict, want: `label isthmus.dev/injected ("sidecar") is written by Isthmus; remove it`,
		},
		"two edges": {
			pod: edited(func(p *corev1.Pod) {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "second", Image: "datawire/aes:3.9.1"})
			}),
			reason: policy.Conflict, want: `more than one edge was recognised (aes in container second, emissary in container emissary); say which with isthmus.dev/profile and isthmus.dev/container`,
		},
		"lifetime above the CA's": {
			pod:  annotated(policy.CertTTLKey, "48h"),
			mesh: patches.Mesh{MaxCertTTL: patches.Duration(24 * 3600e9)}, reason: policy.InvalidOverride,
			want: `isthmus.dev/cert-ttl 48h0m0s is above the 24h0m0s that the CA grants (MAX_WORKLOAD_CERT_TTL of istiod); istiod would refuse every request`,
		},
		"namespace's mode": {
			pod: edge(), ns: func(n *policy.Namespace) { n.Annotations = map[string]string{policy.ModeKey: "isto"} },
			reason: policy.InvalidOverride, want: `namespace edge: annotation isthmus.dev/mode: "isto" is not allowed; want sidecar, istio, secret or ambient`,
		},
		"namespace's profile": {
			pod: edge(), ns: func(n *policy.Namespace) { n.Annotations = map[string]string{policy.ProfileKey: "kong"} },
			reason: policy.InvalidOverride, want: `namespace edge: annotation isthmus.dev/profile: "kong" is not a profile; known are aes, ambassador, emissary, generic`,
		},
		"no image of the publisher": {
			pod:    annotated(policy.PublishKey, "true"),
			reason: policy.InvalidOverride, want: `isthmus.dev/publish is "true", but the settings name no publisherImage; set it there, or set isthmus.dev/publish: "false"`,
		},
		"mode secret, its volume's name": {
			pod: edited(func(p *corev1.Pod) {
				p.Annotations = map[string]string{policy.ModeKey: "secret", policy.ProfileKey: "generic"}
				p.Spec.Volumes = []corev1.Volume{{Name: "istio-certs", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
			}),
			reason: policy.Conflict, want: `the pod has a volume istio-certs and Isthmus adds one of that name; rename it`,
		},
		"mode secret, its mount": {
			pod: edited(func(p *corev1.Pod) {
				p.Annotations = map[string]string{policy.ModeKey: "secret", policy.ProfileKey: "generic"}
				p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "certs", MountPath: "/etc/istio-certs"}}
			}),
			reason: policy.Conflict, want: `container emissary mounts volume certs at /etc/istio-certs, where the certificates (/etc/istio-certs) would go; choose another directory with isthmus.dev/cert-dir`,
		},
		"mode secret, captured by ambient": {
			pod: edited(func(p *corev1.Pod) {
				p.Annotations = map[string]string{policy.ModeKey: "secret"}
				p.Labels = map[string]string{policy.IstioDataplaneLabel: "ambient"}
			}),
			reason: policy.Conflict, want: `label istio.io/dataplane-mode is "ambient", which contradicts isthmus.dev/mode secret; remove one of them`,
		},
		"mode secret from a namespace that wants files": {
			pod: annotated(policy.ModeKey, "secret"), ns: func(n *policy.Namespace) { n.Annotations = map[string]string{policy.DeliveryKey: "files"} },
			reason: policy.InvalidOverride, want: `namespace edge: annotation isthmus.dev/delivery: "files" is not allowed; mode secret has no agent that writes files; want secret`,
		},
		"status of mode secret with a container": {
			pod:    annotated(policy.StatusKey, `{"schema":1,"mode":"secret","container":"emissary","added":{"containers":{"x":{}},"labels":{"isthmus.dev/injected":"secret"}}}`),
			reason: policy.Conflict, want: `annotation isthmus.dev/status is not one that Isthmus wrote: it lists a container, but mode secret adds none; remove the annotation to have the pod injected`,
		},
		"status of mode secret that marks nothing": {
			pod:    annotated(policy.StatusKey, `{"schema":1,"mode":"secret","container":"emissary","added":{}}`),
			reason: policy.Conflict, want: `annotation isthmus.dev/status is not one that Isthmus wrote: it lists no label isthmus.dev/injected; remove the annotation to have the pod injected`,
		},
		"status without its marker": {
			pod:    annotated(policy.StatusKey, `{"schema":1,"mode":"secret","container":"emissary","added":{"labels":{"isthmus.dev/injected":"secret"}}}`),
			reason: policy.Conflict, want: `annotation isthmus.dev/status says that Isthmus added label isthmus.dev/injected=secret, which is missing; remove the annotation to have the pod injected`,
		},
		"status of mode sidecar without a container": {
			pod:    annotated(policy.StatusKey, `{"schema":1,"mode":"sidecar","container":"emissary","added":{}}`),
			reason: policy.Conflict, want: `annotation isthmus.dev/status is not one that Isthmus wrote: it lists no container; remove the annotation to have the pod injected`,
		},
		"status of somebody": {
			pod:    annotated(policy.StatusKey, "injected"),
			reason: policy.Conflict, want: `annotation isthmus.dev/status is not one that Isthmus wrote: invalid character 'i' looking for beginning of value; remove the annotation to have the pod injected`,
		},
		"status without its container": {
			pod:    annotated(policy.StatusKey, `{"schema":1,"mode":"sidecar","container":"emissary","added":{"initContainers":{"istio-proxy":{}}}}`),
			reason: policy.Conflict, want: `annotation isthmus.dev/status says that Isthmus added init container istio-proxy, which is missing; remove the annotation to have the pod injected`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			engine := newEngine(t, inject.Options{Settings: inject.Settings{Mesh: c.mesh}})
			ns := labelled("edge")
			if c.ns != nil {
				c.ns(&ns)
			}
			byNamespace := engine.Inject(inject.Request{Pod: c.pod, Namespace: ns})
			assert.False(t, byNamespace.Denied)
			assert.Equal(t, c.reason, byNamespace.Reason)
			assert.Empty(t, byNamespace.Patch)
			require.NotEmpty(t, byNamespace.Warnings)
			last := byNamespace.Warnings[len(byNamespace.Warnings)-1]
			assert.Equal(t, policy.Warning{Code: string(c.reason), Text: "left without an identity: " + c.want}, last)

			asking := c.pod.DeepCopy()
			if asking.Annotations == nil {
				asking.Annotations = map[string]string{}
			}
			asking.Annotations[policy.InjectKey] = "true"
			byPod := engine.Inject(inject.Request{Pod: asking, Namespace: ns})
			assert.True(t, byPod.Denied)
			assert.Equal(t, c.reason, byPod.Reason)
			assert.Equal(t, c.want, byPod.Message)
			assert.Empty(t, byPod.Patch)
		})
	}
}

func TestOptedInPodIsNoEdge(t *testing.T) {
	pod := annotated(policy.InjectKey, "true")
	pod.Spec.Containers[0].Image = "nginx:1.29"
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.True(t, result.Denied)
	assert.Equal(t, policy.NoProfile, result.Reason)
	assert.Equal(t, "no profile recognises an edge among the containers emissary; name a profile with isthmus.dev/profile (aes, ambassador, emissary, generic), and the container with isthmus.dev/container", result.Message)
}

func TestGenericProfileNeedsTheContainer(t *testing.T) {
	pod := annotated(policy.ProfileKey, "generic", policy.InjectKey, "true")
	pod.Spec.Containers = []corev1.Container{{Name: "a", Image: "nginx"}, {Name: "b", Image: "haproxy"}}
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.True(t, result.Denied)
	assert.Equal(t, policy.Conflict, result.Reason)
	assert.Equal(t, "profile generic cannot tell which of the containers a, b is the edge; name it with isthmus.dev/container", result.Message)
}

func TestIntegratedByHand(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*corev1.Pod)
		want string
	}{
		"istio-proxy": {func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "istio-proxy", Image: "istio/proxyv2:1.8.2", Args: []string{"proxy", "sidecar"}})
		}, "container istio-proxy runs istio/proxyv2:1.8.2"},
		"native sidecar": {func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "istio-proxy", Image: "corp/agent", Env: []corev1.EnvVar{{Name: "OUTPUT_CERTS", Value: "/c"}}}}
		}, "container istio-proxy runs corp/agent"},
		"agent of another name": {func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "agent", Image: "istio/proxyv2:1.8.2", Env: []corev1.EnvVar{{Name: "OUTPUT_CERTS", Value: "/c"}}})
		}, "container agent runs istio/proxyv2:1.8.2"},
		"OUTPUT_CERTS": {func(p *corev1.Pod) {
			p.Annotations = map[string]string{policy.IstioProxyConfigKey: "proxyMetadata:\n  OUTPUT_CERTS: /etc/istio-certs\n"}
		}, "annotation proxy.istio.io/config sets OUTPUT_CERTS"},
		"userVolumeMount": {func(p *corev1.Pod) {
			p.Annotations = map[string]string{policy.IstioUserVolumeMount: `[{"name":"istio-certs","mountPath":"/etc/istio-certs"}]`}
		}, "annotation sidecar.istio.io/userVolumeMount names istio-certs"},
		"secret volume": {func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "istio-certs", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "istio.default"}}}}
		}, "volume istio-certs is not an emptyDir"},
		"SECRET_DIR": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AMBASSADOR_ISTIO_SECRET_DIR", Value: "/etc/istio-certs"}}
		}, `container emissary sets AMBASSADOR_ISTIO_SECRET_DIR="/etc/istio-certs"`},
		"asks Istio": {func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioInjectKey: "true"} }, `label sidecar.istio.io/inject is "true"`},
	} {
		t.Run(name, func(t *testing.T) {
			engine, pod := newEngine(t, inject.Options{}), edge()
			c.edit(pod)
			result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			assert.False(t, result.Denied)
			assert.Equal(t, policy.ManualIntegration, result.Reason)
			assert.Empty(t, result.Patch)
			require.NotEmpty(t, result.Warnings)
			assert.Equal(t, "left unchanged, because it is integrated with Istio by hand: "+c.want+"; isthmus adopt turns it into a plain manifest", result.Warnings[0].Text)
			assert.Contains(t, codes(result), "integration-incomplete")

			if pod.Labels == nil {
				pod.Labels = map[string]string{}
			}
			pod.Labels[policy.InjectKey] = "true"
			result = engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			assert.True(t, result.Denied)
			assert.Equal(t, policy.Conflict, result.Reason)
			assert.Equal(t, `isthmus.dev/inject is "true" with isthmus.dev/mode sidecar, but the pod is integrated with Istio by hand: `+c.want+`; remove one of the two (isthmus adopt rewrites the manifest)`, result.Message)
		})
	}
}

func TestNoEvidenceOfManualIntegration(t *testing.T) {
	for name, edit := range map[string]func(*corev1.Pod){
		"Kong's default": func(p *corev1.Pod) {
			p.Annotations = map[string]string{"traffic.sidecar.istio.io/includeInboundPorts": ""}
		},
		"vendor's default": func(p *corev1.Pod) {
			p.Annotations = map[string]string{policy.IstioInjectKey: "false", policy.ConsulInjectKey: "false"}
		},
		"sidecar of that prefix": func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "istio-proxy-metrics", Image: "prom/statsd-exporter"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := edge()
			edit(pod)
			result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			assert.Equal(t, policy.Injected, result.Reason, result.Message)
		})
	}
}

func TestFilesOnlyInUnlabelledNamespace(t *testing.T) {
	pod := annotated(policy.InjectKey, "true", policy.DeliveryKey, "secret")
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{Name: "shop"}})
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	assert.Equal(t, []string{"files-only"}, codes(result))
	assert.Contains(t, result.Warnings[0].Text, "namespace shop has no label isthmus.dev/injection=enabled")
	assert.Contains(t, string(apply(t, encode(t, pod), result)), "AMBASSADOR_ISTIO_SECRET_DIR")
}

func TestUnknownRevision(t *testing.T) {
	engine := newEngine(t, inject.Options{Mesh: func(revision string) (patches.Mesh, error) {
		if revision != "" {
			return patches.Mesh{}, assert.AnError
		}
		return patches.Mesh{}.WithDefaults(), nil
	}})
	pod := edge()
	pod.Labels = map[string]string{policy.IstioRevisionLabel: "canary"}
	result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.Equal(t, policy.InvalidOverride, result.Reason)
	assert.Contains(t, result.Message, assert.AnError.Error())
}

func TestStaleTemplate(t *testing.T) {
	old := newEngine(t, inject.Options{})
	pod := edge()
	injected := decode(t, apply(t, encode(t, pod), old.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})))
	current := newEngine(t, inject.Options{Settings: inject.Settings{Mesh: patches.Mesh{ProxyImage: "istio/proxyv2:1.99.0"}}})
	result := current.Inject(inject.Request{Pod: injected, Namespace: labelled("edge")})
	assert.Equal(t, policy.AlreadyInjected, result.Reason)
	assert.Empty(t, result.Patch)
	assert.Equal(t, []string{"stale-template"}, codes(result))
}

func TestPullSecretsAreKeptOutOfTemplates(t *testing.T) {
	engine := newEngine(t, inject.Options{Settings: inject.Settings{ImagePullSecrets: []string{"corp"}}})
	inFile := engine.Inject(inject.Request{Pod: edge(), Namespace: labelled("edge"), Template: true})
	assert.Contains(t, codes(inFile), "pull-secrets-left-out")
	assert.NotContains(t, string(encode(t, inFile.Patch)), "imagePullSecrets\"")
	inCluster := engine.Inject(inject.Request{Pod: edge(), Namespace: labelled("edge")})
	assert.Contains(t, string(encode(t, inCluster.Patch)), "/spec/imagePullSecrets")
}
