package inject_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	ownConfig = "concurrency: 2 # of the user's\nproxyMetadata:\n  BOOTSTRAP_XDS_AGENT: \"true\"\n"
	ownMounts = `{"extra":{"mountPath":"/extra","readonly":true}}`
)

// TestModeIstioMerges shows that the user's settings of Istio's sidecar stay beside those of
// Isthmus, and that Uninject restores every byte of them.
func TestModeIstioMerges(t *testing.T) {
	pod := annotated(policy.ModeKey, "istio", policy.CertTTLKey, "2h",
		policy.IstioProxyConfigKey, ownConfig, policy.IstioUserVolumeMount, ownMounts, policy.IstioInjectKey, "false", policy.IstioInboundPortsKey, "9090")
	engine := newEngine(t, inject.Options{})
	result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	assert.Equal(t, []string{"captured"}, codes(result))
	checkInjected(t, engine, pod, labelled("edge"), result)

	after := decode(t, apply(t, encode(t, pod), result))
	var config map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(after.Annotations[policy.IstioProxyConfigKey]), &config))
	assert.Equal(t, map[string]any{
		"concurrency":                     float64(2),
		"holdApplicationUntilProxyStarts": true,
		"proxyMetadata": map[string]any{
			"BOOTSTRAP_XDS_AGENT": "true", "OUTPUT_CERTS": "/etc/istio-certs", "ISTIO_META_DNS_CAPTURE": "false", "SECRET_TTL": "2h0m0s",
		},
	}, config)
	assert.Contains(t, after.Annotations[policy.IstioProxyConfigKey], "# of the user's")
	assert.JSONEq(t, `{"extra":{"mountPath":"/extra","readonly":true},"istio-certs":{"mountPath":"/etc/istio-certs"}}`, after.Annotations[policy.IstioUserVolumeMount])
	assert.Equal(t, "true", after.Annotations[policy.IstioInjectKey], "the vendors' default is overridden")
	assert.Equal(t, "9090", after.Annotations[policy.IstioInboundPortsKey], "the user's own choice is not")
	assert.Empty(t, after.Spec.InitContainers)
}

func TestMergeMount(t *testing.T) {
	for name, c := range map[string]struct{ value, want, problem string }{
		"if there is none, expect the map form":    {"", `{"istio-certs":{"mountPath":"/etc/istio-certs"}}`, ""},
		"if it is a list, expect one more item":    {`[{"name":"extra","mountPath":"/extra"}]`, `[{"name":"extra","mountPath":"/extra"},{"name":"istio-certs","mountPath":"/etc/istio-certs"}]`, ""},
		"if ours is in the map, expect no change":  {`{ "istio-certs": {"mountPath":"/etc/istio-certs/"} }`, `{ "istio-certs": {"mountPath":"/etc/istio-certs/"} }`, ""},
		"if ours is in the list, expect no change": {`[ {"name":"istio-certs","mountPath":"/etc/istio-certs"}]`, `[ {"name":"istio-certs","mountPath":"/etc/istio-certs"}]`, ""},
		"if null, expect the map form":             {"null", `{"istio-certs":{"mountPath":"/etc/istio-certs"}}`, ""},
		"if it mounts elsewhere, expect no":        {`{"istio-certs":{"mountPath":"/certs"}}`, "", `annotation sidecar.istio.io/userVolumeMount: mounts volume istio-certs at "/certs", but the certificate directory is "/etc/istio-certs"; make them agree`},
		"if it is not JSON, expect no":             {`{istio`, "", `annotation sidecar.istio.io/userVolumeMount: "{istio" is neither a JSON object nor a list, so Istio cannot read it: invalid character 'i' looking for beginning of object key string`},
		"if it is read-only, expect no":            {`{"istio-certs":{"mountPath":"/etc/istio-certs","readOnly":true}}`, "", `annotation sidecar.istio.io/userVolumeMount: mounts volume istio-certs with readOnly, so Istio's agent cannot write certificates there; remove readOnly`},
		"if it has a subPath, expect no":           {`[{"name":"istio-certs","mountPath":"/etc/istio-certs","subPath":"one"}]`, "", `annotation sidecar.istio.io/userVolumeMount: mounts volume istio-certs with subPath "one", so the edge does not see the certificates; mount the whole volume`},
		"if it has a subPathExpr, expect no":       {`{"istio-certs":{"mountPath":"/etc/istio-certs","subPathExpr":"$(POD_NAME)"}}`, "", `annotation sidecar.istio.io/userVolumeMount: mounts volume istio-certs with subPathExpr "$(POD_NAME)", so the edge does not see the certificates; mount the whole volume`},
		"if another is at the path, expect no":     {`{"other":{"mountPath":"/etc/istio-certs/"}}`, "", `annotation sidecar.istio.io/userVolumeMount: mounts volume other at "/etc/istio-certs/", where volume istio-certs must be mounted; mount it elsewhere, or choose another directory with isthmus.dev/cert-dir`},
		"if a second is at the path, expect no":    {`[{"name":"istio-certs","mountPath":"/etc/istio-certs"},{"name":"other","mountPath":"/etc/istio-certs"}]`, "", `annotation sidecar.istio.io/userVolumeMount: mounts volume other at "/etc/istio-certs", where volume istio-certs must be mounted; mount it elsewhere, or choose another directory with isthmus.dev/cert-dir`},
		"if it is too long, expect no":             {`{"a":"` + strings.Repeat("x", 16<<10) + `"}`, "", `annotation sidecar.istio.io/userVolumeMount: it holds 16392 bytes, and at most 16384 are read`},
		"if an item is not a mount, expect no":     {`["istio-certs"]`, "", `annotation sidecar.istio.io/userVolumeMount: "istio-certs" is not a volume mount: json: cannot unmarshal string into Go value of type inject.volumeMount`},
	} {
		t.Run(name, func(t *testing.T) {
			pod := annotated(policy.ModeKey, "istio")
			if c.value != "" {
				pod.Annotations[policy.IstioUserVolumeMount] = c.value
			}
			result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
			if c.problem != "" {
				assert.Equal(t, policy.Conflict, result.Reason)
				assert.Equal(t, c.problem, result.Message)
				assert.Empty(t, result.Patch)
				return
			}
			require.Equal(t, policy.Injected, result.Reason, result.Message)
			assert.Equal(t, c.want, decode(t, apply(t, encode(t, pod), result)).Annotations[policy.IstioUserVolumeMount])
		})
	}
}

const notEmptyDir = `annotation sidecar.istio.io/userVolume: volume istio-certs is no emptyDir, so Istio's agent cannot write certificates there; make it an emptyDir with medium: Memory`

func TestModeIstioRefuses(t *testing.T) {
	chart := inject.Injector{Configuration: "istio-sidecar-injector", Reinvoked: true}
	for name, c := range map[string]struct {
		pod      func(*corev1.Pod)
		ns       map[string]string
		injector inject.Injector
		err      error
		want     string
	}{
		"host network": {pod: func(p *corev1.Pod) { p.Spec.HostNetwork = true },
			want: "the pod is on the host's network, where Istio's injector adds no sidecar; choose isthmus.dev/mode: sidecar, or set hostNetwork: false"},
		"label that keeps Istio away": {pod: func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioInjectKey: "false"} },
			want: `label sidecar.istio.io/inject is "false", which contradicts isthmus.dev/mode istio; remove one of them`},
		"namespace that keeps Istio away": {ns: map[string]string{policy.IstioInjectionLabel: "disabled"},
			want: "namespace edge has the label istio-injection=disabled, so Istio's injector is not called; remove the label, or set it to enabled"},
		"revision without a name": {ns: map[string]string{policy.IstioRevisionLabel: ""},
			want: "namespace edge has the label istio.io/rev without a value, which no injector of Istio selects; remove the label, or set it to a revision"},
		"no injector": {err: errors.New("no injector of Istio's serves revision \"canary\", only default"), want: `no injector of Istio's serves revision "canary", only default`},
		"injector that runs first": {injector: inject.Injector{Configuration: "a-istio", RunsFirst: true, Reinvoked: true},
			want: "Istio's webhook configuration a-istio sorts before that of Isthmus, so its injector does not see the edit of Isthmus; give it a name that sorts after isthmus-, as Istio's chart does, or choose isthmus.dev/mode: sidecar"},
		"injector that took the pod first by a selector that knows no label": {pod: func(p *corev1.Pod) { injectedByIstio(p) }, injector: inject.Injector{Configuration: "a-istio", RunsFirst: true, Reinvoked: true},
			want: "Istio's webhook configuration a-istio sorts before that of Isthmus, so its injector does not see the edit of Isthmus; give it a name that sorts after isthmus-, as Istio's chart does, or choose isthmus.dev/mode: sidecar"},
		"injector that ran first, and once": {pod: func(p *corev1.Pod) { injectedByIstio(p) }, injector: inject.Injector{Configuration: "a-istio", RunsFirst: true},
			want: "Istio's webhook configuration a-istio sorts before that of Isthmus, so its injector does not see the edit of Isthmus; give it a name that sorts after isthmus-, as Istio's chart does, or choose isthmus.dev/mode: sidecar"},
		"container of the sidecar's name": {pod: func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "istio-proxy", Image: "busybox"}}
		}, injector: chart,
			want: "the pod has a container istio-proxy (image busybox) and Isthmus adds one of that name; rename it"},
		"config that is not YAML": {pod: func(p *corev1.Pod) { p.Annotations[policy.IstioProxyConfigKey] = "a: [" },
			want: "annotation proxy.istio.io/config: \"a: [\" is not YAML, so Istio cannot read it: yaml: line 1: did not find expected node content"},
		"config that is a list": {pod: func(p *corev1.Pod) { p.Annotations[policy.IstioProxyConfigKey] = "[]" },
			want: `annotation proxy.istio.io/config: "[]" is not a mapping, so Istio cannot read it; want ProxyConfig as YAML`},
		"config with aliases": {pod: func(p *corev1.Pod) { p.Annotations[policy.IstioProxyConfigKey] = "proxyMetadata: &a {}\nx: *a" },
			want: `annotation proxy.istio.io/config: it uses YAML aliases, which cannot be edited without changing their meaning; write the values out`},
		"metadata that is a list": {pod: func(p *corev1.Pod) { p.Annotations[policy.IstioProxyConfigKey] = "proxyMetadata: []" },
			want: `annotation proxy.istio.io/config: proxyMetadata is not a mapping, so Istio cannot read it; want names and values`},
		"metadata in snake case": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioProxyConfigKey] = "proxy_metadata: {OUTPUT_CERTS: /etc/other}"
		}, want: `annotation proxy.istio.io/config: it writes proxy_metadata, which cannot be extended; write it as proxyMetadata`},
		"hold in snake case": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioProxyConfigKey] = "concurrency: 2\nhold_application_until_proxy_starts: false\n"
		}, want: `annotation proxy.istio.io/config: it writes hold_application_until_proxy_starts, which cannot be extended; write it as holdApplicationUntilProxyStarts`},
		"another directory in the config": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioProxyConfigKey], p.Annotations[policy.CertDirKey] = "proxyMetadata: {OUTPUT_CERTS: /a}", "/b"
		}, want: `annotation proxy.istio.io/config sets OUTPUT_CERTS to "/a", but the certificate directory is "/b"; make them agree`},
		"no directory in the config": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioProxyConfigKey] = "proxyMetadata:\n  OUTPUT_CERTS: ''\n"
		},
			want: `annotation proxy.istio.io/config sets OUTPUT_CERTS to "", with which Istio's agent writes no certificates; remove it, or set it to "/etc/istio-certs"`},
		"two directories in the config": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioProxyConfigKey] = "proxyMetadata: {OUTPUT_CERTS: /etc/istio-certs, ISTIO_META_DNS_CAPTURE: 'false', OUTPUT_CERTS: ''}\nholdApplicationUntilProxyStarts: true\n"
		}, want: `annotation proxy.istio.io/config: Istio reads OUTPUT_CERTS as "", but the certificate directory is "/etc/istio-certs"; write the annotation in plain YAML, with each name once`},
		"a template without a sidecar": {pod: func(p *corev1.Pod) { p.Annotations[policy.IstioTemplatesKey] = "grpc-simple" },
			want: `annotation inject.istio.io/templates is "grpc-simple", and only the template sidecar is known to add a sidecar that writes certificates; remove the annotation, or choose isthmus.dev/mode: sidecar`},
		"an unknown template": {pod: func(p *corev1.Pod) { p.Annotations[policy.IstioTemplatesKey] = "sidecar, corp" },
			want: `annotation inject.istio.io/templates is "sidecar, corp", and only the template sidecar is known to add a sidecar that writes certificates; remove the annotation, or choose isthmus.dev/mode: sidecar`},
		"no template": {pod: func(p *corev1.Pod) { p.Annotations[policy.IstioTemplatesKey] = "" },
			want: `annotation inject.istio.io/templates is "", and only the template sidecar is known to add a sidecar that writes certificates; remove the annotation, or choose isthmus.dev/mode: sidecar`},
		"a Secret as Istio's volume": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioUserVolumeKey] = `{"istio-certs":{"secret":{"secretName":"a"}}}`
		}, want: notEmptyDir},
		"a Secret beside an emptyDir without a value": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioUserVolumeKey] = `{"istio-certs":{"emptyDir":null,"secret":{"secretName":"a"}}}`
		}, want: notEmptyDir},
		"a Secret whose own name is that of the volume": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioUserVolumeKey] = `{"x":{"name":"istio-certs","secret":{"secretName":"a"}}}`
		}, want: notEmptyDir},
		"a Secret among emptyDirs of that name": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioUserVolumeKey] = `[{"name":"istio-certs","secret":{"secretName":"a"}},{"name":"istio-certs","emptyDir":{}}]`
		}, want: notEmptyDir},
		"a Secret as volume, after Istio": {
			pod: func(p *corev1.Pod) {
				injectedByIstio(p)
				p.Spec.Volumes = []corev1.Volume{{Name: "istio-certs", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "a"}}}}
			},
			ns: map[string]string{policy.IstioInjectionLabel: "enabled"}, injector: inject.Injector{Configuration: "a-istio", RunsFirst: true, Reinvoked: true},
			want: "volume istio-certs of the pod is no emptyDir, so nothing can write certificates there; rename it, or make it an emptyDir with medium: Memory"},
		"a port of the agent": {pod: func(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 15020}} },
			want: "container emissary listens on port 15020, which the agent needs; give the agent another one with annotation status.sidecar.istio.io/port"},
		"another directory in the edge": {pod: func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AMBASSADOR_ISTIO_SECRET_DIR", Value: "/a"}}
		}, want: `container emissary sets AMBASSADOR_ISTIO_SECRET_DIR to "/a", but the certificate directory is "/etc/istio-certs"; make them agree`},
		"a mount of the edge at Istio's directory": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioProxyConfigKey] = "proxyMetadata: {OUTPUT_CERTS: /etc/mine}"
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "other", MountPath: "/etc/mine/"}}
		}, want: `container emissary mounts volume other at /etc/mine/, where the certificates (/etc/mine) would go; choose another directory with OUTPUT_CERTS in annotation proxy.istio.io/config`},
		"a read-only mount of the edge around Istio's directory": {pod: func(p *corev1.Pod) {
			p.Annotations[policy.IstioProxyConfigKey] = "proxyMetadata: {OUTPUT_CERTS: /srv/mine/certs}"
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "other", MountPath: "/srv/mine", ReadOnly: true}}
		}, want: `container emissary mounts volume other read-only at /srv/mine, so nothing can be mounted at /srv/mine/certs inside it; choose another directory with OUTPUT_CERTS in annotation proxy.istio.io/config`},
		"a mount of the edge at the directory": {pod: func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "other", MountPath: "/etc/istio-certs"}}
		}, want: `container emissary mounts volume other at /etc/istio-certs, where the certificates (/etc/istio-certs) would go; choose another directory with isthmus.dev/cert-dir`},
		"captured by ambient": {pod: func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioDataplaneLabel: "ambient"} },
			want: `label istio.io/dataplane-mode is "ambient", which contradicts isthmus.dev/mode istio; remove one of them`},
		"peers that send mTLS": {pod: func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioTLSModeLabel: "istio"} },
			want: `label security.istio.io/tlsMode is "istio", which makes peers send mTLS to ports where mode istio terminates none; remove it`},
	} {
		t.Run(name, func(t *testing.T) {
			engine := newEngine(t, inject.Options{Injector: func(string) (inject.Injector, error) { return c.injector, c.err }})
			pod, ns := annotated(policy.ModeKey, "istio"), labelled("edge")
			if c.pod != nil {
				c.pod(pod)
			}
			for key, value := range c.ns {
				ns.Labels[key] = value
			}
			result := engine.Inject(inject.Request{Pod: pod, Namespace: ns})
			assert.False(t, result.Denied)
			assert.Equal(t, policy.Conflict, result.Reason)
			assert.Equal(t, c.want, result.Message)
			assert.Empty(t, result.Patch)
			require.NotEmpty(t, result.Warnings)

			pod.Annotations[policy.InjectKey] = "true"
			result = engine.Inject(inject.Request{Pod: pod, Namespace: ns})
			assert.True(t, result.Denied)
			assert.Equal(t, c.want, result.Message)
		})
	}
}

func injectedByIstio(p *corev1.Pod) {
	p.Annotations[policy.IstioStatusKey] = `{"containers":["istio-proxy"]}`
	p.Labels = map[string]string{policy.IstioTLSModeLabel: "istio"}
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "istio-proxy", Image: "istio/proxyv2:1.31.1"})
}

// TestModeIstioAfterIstio shows that an injector may run before Isthmus if the API server
// calls it again. It does if the injector's selectors match before the edit of Isthmus and
// after it.
func TestModeIstioAfterIstio(t *testing.T) {
	engine := newEngine(t, inject.Options{Injector: func(string) (inject.Injector, error) {
		return inject.Injector{Configuration: "a-istio", RunsFirst: true, Reinvoked: true}, nil
	}})
	for name, c := range map[string]struct {
		pod func(*corev1.Pod)
		ns  map[string]string
	}{
		"if it took the pod":              {injectedByIstio, map[string]string{policy.IstioInjectionLabel: "enabled"}},
		"if the vendor said no":           {func(p *corev1.Pod) { p.Annotations[policy.IstioInjectKey] = "false" }, map[string]string{policy.IstioInjectionLabel: "enabled"}},
		"if the namespace has a revision": {func(*corev1.Pod) {}, map[string]string{policy.IstioRevisionLabel: "canary"}},
		"if the pod asks":                 {func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioInjectKey: "true"} }, nil},
		"if the pod names a revision":     {func(p *corev1.Pod) { p.Labels = map[string]string{policy.IstioRevisionLabel: "canary"} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			pod, ns := annotated(policy.ModeKey, "istio"), labelled("edge")
			c.pod(pod)
			for key, value := range c.ns {
				ns.Labels[key] = value
			}
			result := engine.Inject(inject.Request{Pod: pod, Namespace: ns})
			require.Equal(t, policy.Injected, result.Reason, result.Message)
			checkInjected(t, engine, pod, ns, result)
			assert.Equal(t, "disabled", decode(t, apply(t, encode(t, pod), result)).Labels[policy.IstioTLSModeLabel])
		})
	}
}

// TestModeIstioInAFile shows that the order of webhooks does not matter for a manifest.
func TestModeIstioInAFile(t *testing.T) {
	engine := newEngine(t, inject.Options{Injector: func(string) (inject.Injector, error) {
		return inject.Injector{Configuration: "a-istio", RunsFirst: true}, nil
	}})
	result := engine.Inject(inject.Request{Pod: annotated(policy.ModeKey, "istio"), Namespace: labelled("edge"), Template: true})
	assert.Equal(t, policy.Injected, result.Reason, result.Message)
}

// TestInjectorRevision shows that the revision is the one whose selectors match.
func TestInjectorRevision(t *testing.T) {
	for name, c := range map[string]struct{ injection, namespace, pod, want string }{
		"if nobody says, expect the default":                  {},
		"if the pod says, expect the pod's":                   {pod: "b", want: "b"},
		"if the namespace says too, expect the namespace's":   {namespace: "a", pod: "b", want: "a"},
		"if the namespace is enabled, expect the default one": {injection: "enabled", namespace: "a", pod: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := "none"
			engine := newEngine(t, inject.Options{Injector: func(revision string) (inject.Injector, error) {
				asked = revision
				return inject.Injector{}, nil
			}})
			pod, ns := annotated(policy.ModeKey, "istio"), labelled("edge")
			if c.pod != "" {
				pod.Labels = map[string]string{policy.IstioRevisionLabel: c.pod}
			}
			if c.namespace != "" {
				ns.Labels[policy.IstioRevisionLabel] = c.namespace
			}
			if c.injection != "" {
				ns.Labels[policy.IstioInjectionLabel] = c.injection
			}
			result := engine.Inject(inject.Request{Pod: pod, Namespace: ns})
			assert.Equal(t, policy.Injected, result.Reason, result.Message)
			assert.Equal(t, c.want, asked)
		})
	}
}

// TestModeIstioCompletes shows that an integration by annotations is completed, and that a
// complete one stays unchanged.
func TestModeIstioCompletes(t *testing.T) {
	complete := func() *corev1.Pod {
		pod := annotated(policy.ModeKey, "istio",
			policy.IstioProxyConfigKey, "proxyMetadata:\n  OUTPUT_CERTS: /etc/istio-certs\n", policy.IstioUserVolumeMount, `[{"name":"istio-certs","mountPath":"/etc/istio-certs"}]`,
			policy.IstioInboundPortsKey, "", policy.IstioOutboundRangesKey, "")
		pod.Labels = map[string]string{policy.IstioInjectKey: "true"}
		pod.Spec.Volumes = []corev1.Volume{{Name: "istio-certs", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}}
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/istio-certs/"}}
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AMBASSADOR_ISTIO_SECRET_DIR", Value: "/etc/istio-certs"}}
		return pod
	}
	for name, c := range map[string]struct {
		edit func(*corev1.Pod)
		ns   map[string]string
		want policy.Reason
	}{
		"if nothing lacks, expect no edit":                        {want: policy.ManualIntegration},
		"if the namespace asks Istio, expect no edit":             {edit: func(p *corev1.Pod) { p.Labels = nil }, ns: map[string]string{policy.IstioInjectionLabel: "enabled"}, want: policy.ManualIntegration},
		"if nobody asks Istio, expect the label":                  {edit: func(p *corev1.Pod) { p.Labels = nil }, want: policy.Injected},
		"if the vendor says false in such a namespace, expect it": {edit: func(p *corev1.Pod) { p.Labels, p.Annotations[policy.IstioInjectKey] = nil, "false" }, ns: map[string]string{policy.IstioInjectionLabel: "enabled"}, want: policy.Injected},
		"if the mount lacks, expect it":                           {edit: func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = nil }, want: policy.Injected},
		"if the volume lacks, expect it":                          {edit: func(p *corev1.Pod) { p.Spec.Volumes = nil }, want: policy.Injected},
		"if the capture lacks, expect it":                         {edit: func(p *corev1.Pod) { delete(p.Annotations, policy.IstioInboundPortsKey) }, want: policy.Injected},
		"if the environment lacks, expect it":                     {edit: func(p *corev1.Pod) { p.Spec.Containers[0].Env = nil }, want: policy.Injected},
		"if the volume comes by annotation, expect no edit": {edit: func(p *corev1.Pod) {
			p.Spec.Volumes, p.Annotations[policy.IstioUserVolumeKey] = nil, `{"istio-certs":{"emptyDir":{"medium":"Memory"}}}`
		}, want: policy.ManualIntegration},
		"if a sidecar is there already, expect it left alone": {edit: func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "istio-proxy", Image: "istio/proxyv2:1.8.2"})
		}, want: policy.ManualIntegration},
		"if the mount is read-only, expect a conflict": {edit: func(p *corev1.Pod) {
			p.Annotations[policy.IstioUserVolumeMount] = `[{"name":"istio-certs","mountPath":"/etc/istio-certs","readOnly":true}]`
		}, want: policy.Conflict},
		"if the config empties OUTPUT_CERTS, expect a conflict": {edit: func(p *corev1.Pod) {
			p.Annotations[policy.IstioProxyConfigKey] = "proxyMetadata: {OUTPUT_CERTS: ''}"
		}, want: policy.Conflict},
		"if the template has no sidecar, expect a conflict":        {edit: func(p *corev1.Pod) { p.Annotations[policy.IstioTemplatesKey] = "gateway" }, want: policy.Conflict},
		"if the config says OUTPUT_CERTS alone, expect the others": {edit: func(p *corev1.Pod) { delete(p.Annotations, policy.IstioUserVolumeMount) }, want: policy.Injected},
	} {
		t.Run(name, func(t *testing.T) {
			engine, pod, ns := newEngine(t, inject.Options{}), complete(), labelled("edge")
			if c.edit != nil {
				c.edit(pod)
			}
			for key, value := range c.ns {
				ns.Labels[key] = value
			}
			result := engine.Inject(inject.Request{Pod: pod, Namespace: ns})
			assert.False(t, result.Denied)
			require.Equal(t, c.want, result.Reason, result.Message)
			if c.want != policy.Injected {
				assert.Empty(t, result.Patch)
				return
			}
			checkInjected(t, engine, pod, ns, result)
		})
	}
}

// TestModeIstioTakesTheUsersDirectory shows that the directory in the user's ProxyConfig is
// used if nothing else sets one.
func TestModeIstioTakesTheUsersDirectory(t *testing.T) {
	pod := annotated(policy.ModeKey, "istio", policy.IstioProxyConfigKey, `{"proxyMetadata":{"OUTPUT_CERTS":"/certs/"}}`)
	engine := newEngine(t, inject.Options{})
	result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	after := decode(t, apply(t, encode(t, pod), result))
	assert.Equal(t, "/certs", after.Spec.Containers[0].VolumeMounts[0].MountPath)
	assert.JSONEq(t, `{"istio-certs":{"mountPath":"/certs"}}`, after.Annotations[policy.IstioUserVolumeMount])
	assert.Contains(t, after.Spec.Containers[0].Env, corev1.EnvVar{Name: "AMBASSADOR_ISTIO_SECRET_DIR", Value: "/certs"})
	checkInjected(t, engine, pod, labelled("edge"), result)
}

// TestModeIstioMountsOnlyInItsDirectory shows that a volume at the default directory is in
// nobody's way if Istio's sidecar writes elsewhere.
func TestModeIstioMountsOnlyInItsDirectory(t *testing.T) {
	pod := annotated(policy.ModeKey, "istio", policy.IstioProxyConfigKey, "proxyMetadata: {OUTPUT_CERTS: /etc/mine}")
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "other", MountPath: "/etc/istio-certs"}}
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	after := decode(t, apply(t, encode(t, pod), result))
	assert.Equal(t, []corev1.VolumeMount{{Name: "other", MountPath: "/etc/istio-certs"}, {Name: "istio-certs", MountPath: "/etc/mine", ReadOnly: true}}, after.Spec.Containers[0].VolumeMounts)
}

// TestModeIstioFillsANameWithoutAValue shows that a name without a value counts as not set.
func TestModeIstioFillsANameWithoutAValue(t *testing.T) {
	for _, config := range []string{"proxyMetadata:\n  OUTPUT_CERTS: # none\n", "proxyMetadata: {OUTPUT_CERTS: , A: b}", "proxyMetadata: {OUTPUT_CERTS: null}\n"} {
		pod := annotated(policy.ModeKey, "istio", policy.IstioProxyConfigKey, config)
		engine := newEngine(t, inject.Options{})
		result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
		require.Equal(t, policy.Injected, result.Reason, "%s: %s", config, result.Message)
		var merged struct {
			ProxyMetadata map[string]string `json:"proxyMetadata"`
		}
		require.NoError(t, yaml.Unmarshal([]byte(decode(t, apply(t, encode(t, pod), result)).Annotations[policy.IstioProxyConfigKey]), &merged))
		assert.Equal(t, "/etc/istio-certs", merged.ProxyMetadata["OUTPUT_CERTS"], config)
		checkInjected(t, engine, pod, labelled("edge"), result)
	}
}

func TestModeIstioRefusesTooLongLifetime(t *testing.T) {
	engine := newEngine(t, inject.Options{Mesh: func(string) (patches.Mesh, error) {
		return patches.Mesh{MaxCertTTL: patches.Duration(3600e9)}.WithDefaults(), nil
	}})
	result := engine.Inject(inject.Request{Pod: annotated(policy.ModeKey, "istio", policy.CertTTLKey, "2h"), Namespace: labelled("edge")})
	assert.Equal(t, policy.InvalidOverride, result.Reason)
	assert.Equal(t, "isthmus.dev/cert-ttl 2h0m0s is above the 1h0m0s that the CA grants (MAX_WORKLOAD_CERT_TTL of istiod); istiod would refuse every request", result.Message)
}

// TestModeIstioRespectsTheLimit guards against a sidecar that requests more than the CA
// grants, and so never starts.
func TestModeIstioRespectsTheLimit(t *testing.T) {
	for limit, want := range map[time.Duration]string{0: "", time.Hour: `SECRET_TTL: "1h0m0s"`, 48 * time.Hour: ""} {
		engine := newEngine(t, inject.Options{Mesh: func(string) (patches.Mesh, error) {
			return patches.Mesh{MaxCertTTL: patches.Duration(limit)}.WithDefaults(), nil
		}})
		pod := annotated(policy.ModeKey, "istio")
		result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
		require.Equal(t, policy.Injected, result.Reason, result.Message)
		checkInjected(t, engine, pod, labelled("edge"), result)
		config := decode(t, apply(t, encode(t, pod), result)).Annotations[policy.IstioProxyConfigKey]
		if want == "" {
			assert.NotContains(t, config, "SECRET_TTL", limit)
		} else {
			assert.Contains(t, config, want, limit)
		}
	}
}

func TestModeIstioWarnsOfPodSecurity(t *testing.T) {
	for level, want := range map[string]bool{"restricted": true, "baseline": true, "privileged": false, "": false} {
		ns := labelled("edge")
		ns.Labels[policy.PodSecurityEnforceLabel] = level
		result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: annotated(policy.ModeKey, "istio"), Namespace: ns})
		assert.Equal(t, policy.Injected, result.Reason, result.Message)
		if want {
			assert.Contains(t, codes(result), "needs-istio-cni", level)
		} else {
			assert.NotContains(t, codes(result), "needs-istio-cni", level)
		}
	}
}

// TestStaleInModeIstio shows that the hash covers the settings of Istio's agent.
func TestStaleInModeIstio(t *testing.T) {
	pod := inMode(t, annotated(policy.ModeKey, "istio"), inject.Options{})
	result := newEngine(t, inject.Options{Settings: inject.Settings{Defaults: policy.Defaults{CertTTL: "1h"}}}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.Equal(t, policy.AlreadyInjected, result.Reason, result.Message)
	assert.Equal(t, []string{"stale-template"}, codes(result))
}

func TestUninjectModeIstioRefusesWhatWasChanged(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"config": {func(p *corev1.Pod) { p.Annotations[policy.IstioProxyConfigKey] = "{}" }, `metadata.annotations: proxy.istio.io/config is "{}" and was`},
		"gone":   {func(p *corev1.Pod) { delete(p.Annotations, policy.IstioInjectKey) }, `metadata.annotations: sidecar.istio.io/inject is gone`},
		"Istio's sidecar": {func(p *corev1.Pod) {
			p.Annotations[policy.IstioStatusKey] = "{}"
			p.Spec.InitContainers = []corev1.Container{{Name: "istio-proxy", VolumeMounts: []corev1.VolumeMount{{Name: "istio-certs"}}}}
		}, "spec.initContainers[0].volumeMounts: container istio-proxy, which Istio's injector added, mounts volume istio-certs; uninject the template"},
		"label": {func(p *corev1.Pod) { p.Labels[policy.IstioInjectKey] = "false" }, `metadata.labels: sidecar.istio.io/inject is "false" and was "true" when it was injected`},
	} {
		t.Run(name, func(t *testing.T) {
			pod := inMode(t, annotated(policy.ModeKey, "istio", policy.IstioInjectKey, "false", policy.IstioProxyConfigKey, ownConfig), inject.Options{})
			c.change(pod)
			_, err := inject.Uninject(pod)
			require.ErrorContains(t, err, c.want)
		})
	}
}
