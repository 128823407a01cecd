package adopt_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	operations "gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/internal/adopt"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/corpus"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// patchPod applies a patch to a pod.
func patchPod(t testing.TB, pod *corev1.Pod, patch []operations.Operation) *corev1.Pod {
	t.Helper()
	before, err := json.Marshal(pod)
	require.NoError(t, err)
	raw, err := json.Marshal(patch)
	require.NoError(t, err)
	decoded, err := jsonpatch.DecodePatch(raw)
	require.NoError(t, err)
	after, err := decoded.Apply(before)
	require.NoError(t, err)
	out := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(after, out))
	return out
}

// checkAdopted asserts what holds for every adoption.
func checkAdopted(t testing.TB, engine *inject.Engine, request inject.Request, adoption adopt.Adoption) {
	t.Helper()
	require.NotEmpty(t, adoption.Patch)
	adoptedPod := patchPod(t, request.Pod, adoption.Patch)
	for _, d := range adoption.Differences {
		assert.NotEmpty(t, d.Reason, "%s: %s -> %s", d.Field, d.Before, d.After)
	}

	next := request
	next.Pod = adoptedPod
	second, err := adopt.Adopt(engine, next, adopt.Options{})
	require.NoError(t, err)
	assert.Empty(t, second.Patch, "a second adoption changes nothing")

	// A namespace with the label and one without.
	for _, ns := range []policy.Namespace{request.Namespace, labelled(request.Namespace.Name)} {
		if adoptedPod.Annotations[policy.InjectKey] == "" && ns.Labels == nil {
			continue // by its namespace alone
		}
		next.Namespace = ns
		result := engine.Inject(next)
		require.Equal(t, policy.Injected, result.Reason, result.Message)
		injected := patchPod(t, adoptedPod, result.Patch)
		back, err := inject.Uninject(injected)
		require.NoError(t, err)
		assert.Equal(t, adoptedPod, patchPod(t, injected, back), "uninject gives the adopted pod back")
		assert.Equal(t, adoption.Mode, result.Mode)
	}
}

// sample returns the pod of a sample that is integrated by hand.
func sample(t testing.TB, name string) *corev1.Pod {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../samples/by-hand", name+".yaml"))
	require.NoError(t, err)
	documents := bytes.Split(data, []byte("\n---\n"))
	return corpus.PodOf(t, documents[len(documents)-1])
}

// unrecognised removes what a profile recognises the sample by.
func unrecognised(pod *corev1.Pod) {
	pod.Spec.Containers[0].Image, pod.Spec.Containers[0].ReadinessProbe = "registry.example/front:1", nil
	delete(pod.Labels, "app.kubernetes.io/name")
}

func agent(pod *corev1.Pod) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == "istio-proxy" {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}

func setEnv(c *corev1.Container, name, value string) {
	for i := range c.Env {
		if c.Env[i].Name == name {
			c.Env[i] = corev1.EnvVar{Name: name, Value: value}
			return
		}
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: value})
}

// TestAdopt shows what is removed, what stays and what is carried over.
func TestAdopt(t *testing.T) {
	engine := newEngine(t, inject.Options{})
	request := func(pod *corev1.Pod) inject.Request {
		return inject.Request{Pod: pod, Namespace: policy.Namespace{Name: "edge"}, Template: true}
	}
	for name, test := range map[string]struct {
		sample      string
		change      func(*corev1.Pod)
		options     adopt.Options
		annotations map[string]string // those of the plain pod
		labels      map[string]string
		env, mounts []string // of the edge
		volumes     []string
		warning     string
	}{
		"a sidecar": {
			sample: "sidecar",
			annotations: map[string]string{
				"sidecar.istio.io/inject": "false", "consul.hashicorp.com/connect-inject": "false",
				"isthmus.dev/inject": "true", "isthmus.dev/cert-ttl": "12h", "status.sidecar.istio.io/port": "15022",
				"sidecar.istio.io/agentLogLevel": "default:info,ca:debug", "sidecar.istio.io/proxyCPU": "50m", "sidecar.istio.io/proxyMemory": "96Mi",
			},
			env: []string{"AMBASSADOR_NAMESPACE"}, mounts: []string{"pod-info"}, volumes: []string{"pod-info"},
		},
		"a sidecar, its image kept, opted in by the namespace": {
			sample: "sidecar",
			change: func(p *corev1.Pod) {
				p.Annotations = nil
				c := agent(p)
				c.Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("256Mi")}}
				c.Args = []string{"proxy", "sidecar", "--log_output_level=default:info", "--proxyLogLevel", "debug", "--statusPort", "15020"}
				setEnv(c, "PROXY_CONFIG", "")
				setEnv(c, "SECRET_TTL", "24h")
			},
			options:     adopt.Options{ByNamespace: true, KeepImage: true},
			annotations: map[string]string{"sidecar.istio.io/proxyImage": "docker.io/istio/proxyv2:1.24.2", "sidecar.istio.io/logLevel": "debug", "sidecar.istio.io/proxyCPULimit": "1", "sidecar.istio.io/proxyMemoryLimit": "256Mi"},
			env:         []string{"AMBASSADOR_NAMESPACE"}, mounts: []string{"pod-info"}, volumes: []string{"pod-info"},
		},
		"a native sidecar of another name, with a volume of another name": {
			sample: "sidecar",
			change: func(p *corev1.Pod) {
				always := corev1.ContainerRestartPolicyAlways
				c := *agent(p)
				c.Name, c.RestartPolicy, c.Resources, c.Args, c.ReadinessProbe = "certs", &always, corev1.ResourceRequirements{}, c.Args[:2], nil
				setEnv(&c, "OUTPUT_CERTS", "/out/now")
				setEnv(&c, "SECRET_TTL", "")
				setEnv(&c, "PROXY_CONFIG", "")
				c.VolumeMounts[4] = corev1.VolumeMount{Name: "shared", MountPath: "/out"}
				c.VolumeMounts[0].Name, c.VolumeMounts[1].Name, p.Spec.Volumes[4].Name, p.Spec.Volumes[5].Name = "ca", "token", "ca", "token"
				p.Spec.InitContainers, p.Spec.Containers = []corev1.Container{c}, p.Spec.Containers[:1]
				p.Spec.Volumes[1].Name = "shared"
				edge := &p.Spec.Containers[0]
				edge.VolumeMounts[1] = corev1.VolumeMount{Name: "shared", MountPath: "/in"}
				setEnv(edge, "AMBASSADOR_ISTIO_SECRET_DIR", "/in/now/")
			},
			annotations: map[string]string{"sidecar.istio.io/inject": "false", "consul.hashicorp.com/connect-inject": "false", "isthmus.dev/inject": "true", "isthmus.dev/cert-dir": "/in/now"},
			env:         []string{"AMBASSADOR_NAMESPACE"}, mounts: []string{"pod-info"}, volumes: []string{"pod-info"},
		},
		"a volume that a third container reads stays": {
			sample: "sidecar",
			change: func(p *corev1.Pod) {
				p.Annotations, agent(p).Args, agent(p).Resources = nil, nil, corev1.ResourceRequirements{}
				setEnv(agent(p), "PROXY_CONFIG", "")
				setEnv(agent(p), "SECRET_TTL", "")
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "reader", Image: "reader", VolumeMounts: []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/certs"}}})
			},
			annotations: map[string]string{"isthmus.dev/inject": "true"},
			env:         []string{"AMBASSADOR_NAMESPACE"}, mounts: []string{"pod-info"}, volumes: []string{"pod-info", "istio-certs"},
			warning: "volume istio-certs stays, because it is also mounted in spec.containers[2] (reader)",
		},
		"on the host's network an ID keeps two edges apart": {
			sample: "sidecar",
			change: func(p *corev1.Pod) {
				p.Annotations, agent(p).Args, agent(p).Resources = nil, nil, corev1.ResourceRequirements{}
				setEnv(agent(p), "PROXY_CONFIG", "")
				setEnv(agent(p), "SECRET_TTL", "")
				p.Spec.HostNetwork, p.Spec.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet
				setEnv(&p.Spec.Containers[0], "AMBASSADOR_ENVOY_BASE_ID", "7")
			},
			annotations: map[string]string{"isthmus.dev/inject": "true"},
			env:         []string{"AMBASSADOR_NAMESPACE", "AMBASSADOR_ENVOY_BASE_ID"}, mounts: []string{"pod-info"}, volumes: []string{"pod-info"},
		},
		"a mesh of another name": {
			sample: "sidecar",
			change: func(p *corev1.Pod) {
				p.Annotations, agent(p).Resources = nil, corev1.ResourceRequirements{}
				agent(p).Args = []string{"proxy", "sidecar", "--trust-domain=corp.example"}
				setEnv(agent(p), "PROXY_CONFIG", "")
				setEnv(agent(p), "SECRET_TTL", "")
			},
			annotations: map[string]string{"isthmus.dev/inject": "true"},
			env:         []string{"AMBASSADOR_NAMESPACE"}, mounts: []string{"pod-info"}, volumes: []string{"pod-info"},
			warning: `the sidecar written by hand sets --trust-domain to "corp.example", and the mesh settings used here say "cluster.local"; check them, with --from-cluster or --settings`,
		},
		"annotations": {
			sample: "annotations",
			annotations: map[string]string{
				"prometheus.io/scrape": "true", "isthmus.dev/inject": "true", "isthmus.dev/mode": "istio", "isthmus.dev/cert-dir": "/etc/edge-certs",
				"proxy.istio.io/config":            "# Ours, whatever the rest of the mesh does.\ntracing:\n  sampling: 10\n",
				"sidecar.istio.io/userVolumeMount": `[{"name": "wasm", "mountPath": "/var/wasm"}]`,
			},
			labels: map[string]string{"app.kubernetes.io/name": "edge-stack"},
			env:    []string{"REDIS_URL", "AMBASSADOR_NAMESPACE"}, volumes: []string{"wasm"},
		},
		"annotations, with the user's own ports, ID and lifetime": {
			sample: "annotations",
			change: func(p *corev1.Pod) {
				p.Annotations = map[string]string{
					"proxy.istio.io/config":                            `{"proxyMetadata": {"OUTPUT_CERTS": "/etc/istio-certs/", "SECRET_TTL": "2h", "A": "b"}, "holdApplicationUntilProxyStarts": true}`,
					"sidecar.istio.io/userVolume":                      `{"wasm": {"emptyDir": {}}, "istio-certs": {"emptyDir": {}}}`,
					"sidecar.istio.io/userVolumeMount":                 `{"istio-certs":{"mountPath":"/etc/istio-certs"}}`,
					"traffic.sidecar.istio.io/includeInboundPorts":     "8080",
					"traffic.sidecar.istio.io/includeOutboundIPRanges": "",
					"sidecar.istio.io/inject":                          "true",
				}
				edge := &p.Spec.Containers[0]
				setEnv(edge, "AMBASSADOR_ENVOY_BASE_ID", "4")
				setEnv(edge, "AMBASSADOR_ISTIO_SECRET_DIR", "/etc/istio-certs")
				edge.VolumeMounts[0].MountPath = "/etc/istio-certs"
				p.Spec.Volumes = p.Spec.Volumes[1:]
			},
			annotations: map[string]string{
				"isthmus.dev/inject": "true", "isthmus.dev/mode": "istio", "isthmus.dev/cert-ttl": "2h",
				"proxy.istio.io/config":                        `{"proxyMetadata": {"A": "b"}}`,
				"sidecar.istio.io/userVolume":                  `{"wasm": {"emptyDir": {}}}`,
				"traffic.sidecar.istio.io/includeInboundPorts": "8080",
			},
			labels: map[string]string{"app.kubernetes.io/name": "edge-stack"},
			env:    []string{"REDIS_URL", "AMBASSADOR_NAMESPACE", "AMBASSADOR_ENVOY_BASE_ID"}, volumes: []string{"wasm"},
			warning: `annotation traffic.sidecar.istio.io/includeInboundPorts stays "8080": Istio captures what it says`,
		},
		"annotations, with a label that the selector names": {
			sample: "annotations",
			change: func(p *corev1.Pod) {
				p.Annotations = map[string]string{"proxy.istio.io/config": "tracing:   {sampling: 10}\n\nproxyMetadata:\n      A:   'b'   # why\n      OUTPUT_CERTS: /etc/edge-certs\n"}
			},
			options:     adopt.Options{KeepLabels: []string{"sidecar.istio.io/inject"}},
			annotations: map[string]string{"isthmus.dev/inject": "true", "isthmus.dev/mode": "istio", "isthmus.dev/cert-dir": "/etc/edge-certs", "proxy.istio.io/config": "tracing:   {sampling: 10}\n\nproxyMetadata:\n      A:   'b'   # why\n"},
			labels:      map[string]string{"app.kubernetes.io/name": "edge-stack", "sidecar.istio.io/inject": "true"},
			env:         []string{"REDIS_URL", "AMBASSADOR_NAMESPACE"}, volumes: []string{"wasm"},
			warning: `annotation traffic.sidecar.istio.io/includeInboundPorts is not there, so Istio captures traffic of the edge today; mode istio captures none, unless you set traffic.sidecar.istio.io/includeInboundPorts: "*"`,
		},
		"a container that Istio's injector completes": {
			sample: "annotations",
			change: func(p *corev1.Pod) {
				p.Annotations = nil
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{
					Name: "istio-proxy", Image: "auto", Env: []corev1.EnvVar{{Name: "OUTPUT_CERTS", Value: "/etc/edge-certs"}},
					Resources:    corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("20m")}},
					VolumeMounts: []corev1.VolumeMount{{Name: "istio-certs", MountPath: "/etc/edge-certs"}},
				})
			},
			annotations: map[string]string{"isthmus.dev/inject": "true", "isthmus.dev/mode": "istio", "isthmus.dev/cert-dir": "/etc/edge-certs", "sidecar.istio.io/proxyCPU": "20m"},
			labels:      map[string]string{"app.kubernetes.io/name": "edge-stack"},
			env:         []string{"REDIS_URL", "AMBASSADOR_NAMESPACE"}, volumes: []string{"wasm"},
			warning: `annotation traffic.sidecar.istio.io/includeOutboundIPRanges is not there, so Istio captures traffic of the edge today; mode istio captures none, unless you set traffic.sidecar.istio.io/includeOutboundIPRanges: "*"`,
		},
		"half of it": {
			sample:      "annotations",
			change:      func(p *corev1.Pod) { p.Annotations, p.Labels = nil, nil },
			annotations: map[string]string{"isthmus.dev/inject": "true", "isthmus.dev/cert-dir": "/etc/edge-certs"},
			env:         []string{"REDIS_URL", "AMBASSADOR_NAMESPACE", "AMBASSADOR_ENVOY_BASE_ID"}, volumes: []string{"wasm"},
			warning: "nothing in the pod writes certificates into /etc/edge-certs; the agent that Isthmus adds will",
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := sample(t, test.sample)
			if test.change != nil {
				test.change(pod)
			}
			before := pod.DeepCopy()
			adoption, err := adopt.Adopt(engine, request(pod), test.options)
			require.NoError(t, err)
			assert.Equal(t, before, pod, "the pod is read, never written")
			require.Equal(t, policy.Injected, adoption.Reason)
			adoptedPod := patchPod(t, pod, adoption.Patch)
			assert.Equal(t, test.annotations, adoptedPod.Annotations)
			if test.labels != nil {
				assert.Equal(t, test.labels, adoptedPod.Labels)
			}
			edge := adoptedPod.Spec.Containers[0]
			assert.Equal(t, test.env, namesOf(edge.Env, func(e corev1.EnvVar) string { return e.Name }))
			assert.Equal(t, test.mounts, namesOf(edge.VolumeMounts, func(m corev1.VolumeMount) string { return m.Name }))
			assert.Equal(t, test.volumes, namesOf(adoptedPod.Spec.Volumes, func(v corev1.Volume) string { return v.Name }))
			assert.Nil(t, agent(adoptedPod))
			assert.Empty(t, adoptedPod.Spec.InitContainers)
			if test.warning != "" {
				assert.Contains(t, adoption.Warnings, test.warning)
			} else {
				assert.Empty(t, adoption.Warnings)
			}
			checkAdopted(t, engine, request(pod), adoption)
		})
	}
}

func namesOf[T any](list []T, name func(T) string) (out []string) {
	for _, item := range list {
		out = append(out, name(item))
	}
	return out
}

// TestAdoptRefuses shows that an error names the field that cannot be adopted, and the way out.
func TestAdoptRefuses(t *testing.T) {
	engine := newEngine(t, inject.Options{})
	for name, test := range map[string]struct {
		sample string
		change func(*corev1.Pod)
		want   string
	}{
		"an invalid key":  {"sidecar", func(p *corev1.Pod) { p.Annotations["isthmus.dev/inject"] = "yes" }, `annotation isthmus.dev/inject: "yes" is not allowed; want "true" or "false"`},
		"an invalid mode": {"sidecar", func(p *corev1.Pod) { p.Annotations["isthmus.dev/mode"] = "sidekar" }, `annotation isthmus.dev/mode: "sidekar" is not allowed; want`},
		"two edges": {"sidecar", func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "b", Image: "emissaryingress/emissary:3.9.1"})
		}, "more than one edge was recognised (emissary in container emissary-ingress, emissary in container b)"},
		"injected already":         {"sidecar", func(p *corev1.Pod) { p.Annotations["isthmus.dev/status"] = "{}" }, "metadata.annotations[isthmus.dev/status]: Isthmus has already injected this pod; revert that first with isthmus uninject"},
		"injected by Istio":        {"sidecar", func(p *corev1.Pod) { p.Annotations["sidecar.istio.io/status"] = "{}" }, "metadata.annotations[sidecar.istio.io/status]: Istio's injector, or istioctl kube-inject, has already changed this pod; adopt the manifest from before that"},
		"asks for a sidecar alone": {"annotations", func(p *corev1.Pod) { p.Annotations = nil; p.Spec.Containers[0].Env = p.Spec.Containers[0].Env[:2] }, "metadata[sidecar.istio.io/inject]: the pod asks Istio for a sidecar and for no certificate files"},
		"refuses the injector":     {"annotations", func(p *corev1.Pod) { p.Labels["sidecar.istio.io/inject"] = "false" }, `metadata.labels[sidecar.istio.io/inject]: it is "false", so Istio's injector never sees the pod and its annotations do nothing; remove the label, or the annotations`},
		"captures traffic": {"sidecar", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "setup", Image: "istio/proxyv2:1.24.2", Args: []string{"istio-iptables", "-p", "15001"}}}
		}, "spec.initContainers[0]: container setup sends the pod's traffic through the sidecar, and Isthmus captures nothing; remove it if the edge needs only certificates"},
		"takes traffic":            {"sidecar", func(p *corev1.Pod) { agent(p).Ports[0].ContainerPort = 8443 }, "spec.containers[1].ports[0]: port 8443 is not a port of the agent"},
		"a port of the node":       {"sidecar", func(p *corev1.Pod) { agent(p).Ports[0].HostPort = 15090 }, "spec.containers[1].ports[0].hostPort: port 15090 of the node leads to the agent, and Isthmus opens none; remove hostPort"},
		"another program":          {"sidecar", func(p *corev1.Pod) { agent(p).Command = []string{"/bin/sh", "-c"} }, `spec.containers[1].command: it runs "/bin/sh" and not pilot-agent, so its behaviour is unknown; use the image's own entrypoint`},
		"a router":                 {"sidecar", func(p *corev1.Pod) { agent(p).Args[1] = "router" }, `spec.containers[1].args: the agent runs "router", want proxy sidecar`},
		"an unknown flag":          {"sidecar", func(p *corev1.Pod) { agent(p).Args = append(agent(p).Args, "--new") }, "spec.containers[1].args[--new]: unknown flag of Istio's agent"},
		"a token server":           {"sidecar", func(p *corev1.Pod) { agent(p).Args = append(agent(p).Args, "--stsPort=15463") }, "spec.containers[1].args[--stsPort]: the agent serves tokens to others (15463), and the agent of Isthmus does not"},
		"an unknown variable":      {"sidecar", func(p *corev1.Pod) { setEnv(agent(p), "TZ", "UTC") }, "spec.containers[1].env[13]: TZ is an unknown variable of Istio's agent"},
		"given certificates":       {"sidecar", func(p *corev1.Pod) { setEnv(agent(p), "FILE_MOUNTED_CERTS", "true") }, "spec.containers[1].env[13]: FILE_MOUNTED_CERTS: the agent takes certificates that are given to it"},
		"another CA":               {"sidecar", func(p *corev1.Pod) { setEnv(agent(p), "CA_PROVIDER", "GoogleCAS") }, `spec.containers[1].env[13]: CA_PROVIDER is "GoogleCAS", and the agent of Isthmus uses istiod; leave the pod as it is`},
		"a short life":             {"sidecar", func(p *corev1.Pod) { setEnv(agent(p), "SECRET_TTL", "10s") }, `SECRET_TTL is "10s", and isthmus.dev/cert-ttl wants a Go duration of at least one minute such as 12h`},
		"variables from elsewhere": {"sidecar", func(p *corev1.Pod) { agent(p).EnvFrom = []corev1.EnvFromSource{{Prefix: "X_"}} }, "spec.containers[1].envFrom: the sidecar of Isthmus has no such field"},
		"a hook": {"sidecar", func(p *corev1.Pod) {
			agent(p).Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"upload"}}}}
		}, "spec.containers[1].lifecycle.preStop: the sidecar of Isthmus has no such hook"},
		"a volume of one's own": {"sidecar", func(p *corev1.Pod) {
			agent(p).VolumeMounts = append(agent(p).VolumeMounts, corev1.VolumeMount{Name: "pod-info", MountPath: "/info"})
		}, "spec.containers[1].volumeMounts[5]: volume pod-info at /info is not needed by the agent"},
		"a root in a Secret": {"sidecar", func(p *corev1.Pod) {
			p.Spec.Volumes[4].VolumeSource = corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "root"}}
		}, "spec.volumes[istiod-ca-cert]: the agent reads /var/run/secrets/istio from a volume of kind secret"},
		"the edge has the token too": {"sidecar", func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "istio-token", MountPath: "/token"})
		}, "spec.containers[1].volumeMounts[1]: volume istio-token is also mounted in spec.containers[0] (emissary-ingress), and Isthmus would add one of that name; mount another volume there"},
		"certificates in a Secret": {"sidecar", func(p *corev1.Pod) {
			p.Spec.Volumes[1].VolumeSource = corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "istio.default"}}
		}, "spec.volumes[istio-certs]: the certificates come from a volume of kind secret; isthmus.dev/mode: secret has Isthmus keep a Secret and mount it"},
		"certificates from a driver": {"sidecar", func(p *corev1.Pod) {
			p.Spec.Containers = p.Spec.Containers[:1]
			p.Spec.Volumes[1].VolumeSource = corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "spiffe.csi.cert-manager.io"}}
		}, "spec.volumes[istio-certs]: the certificates come from a volume of kind csi; leave the pod as it is, or make it an emptyDir"},
		"certificates from somewhere": {"sidecar", func(p *corev1.Pod) {
			p.Spec.Containers = p.Spec.Containers[:1]
			setEnv(&p.Spec.Containers[0], "AMBASSADOR_ISTIO_SECRET_DIR", "/tmp/ambassador-pod-info")
		}, `spec.containers[0].env[AMBASSADOR_ISTIO_SECRET_DIR]: nothing in the pod shows who writes certificates into "/tmp/ambassador-pod-info"`},
		"a shared volume of another name": {"sidecar", func(p *corev1.Pod) {
			p.Spec.Volumes[1].Name, agent(p).VolumeMounts[4].Name, p.Spec.Containers[0].VolumeMounts[1].Name = "x", "x", "x"
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "reader", VolumeMounts: []corev1.VolumeMount{{Name: "x", MountPath: "/x"}}})
		}, "spec.volumes[x]: the volume is also mounted in spec.containers[2] (reader), and the agent of Isthmus writes into volume istio-certs; give the volume that name"},
		"a part of the volume":   {"sidecar", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[1].SubPath = "a" }, "spec.containers[0].volumeMounts[istio-certs].subPath: the edge mounts a part of the volume, and Isthmus mounts the whole; remove subPath"},
		"a directory of others'": {"annotations", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts[0].MountPath = "/tmp" }, `spec.containers[0].volumeMounts[istio-certs].mountPath: the certificates are in "/tmp": a mount there would hide`},
		"a reference": {"sidecar", func(p *corev1.Pod) {
			setEnv(&p.Spec.Containers[0], "ALSO", "$(AMBASSADOR_ISTIO_SECRET_DIR)/key.pem")
		}, "spec.containers[0].env[ALSO]: it refers to AMBASSADOR_ISTIO_SECRET_DIR, which Isthmus adds after it"},
		"a contradiction":     {"sidecar", func(p *corev1.Pod) { p.Annotations["isthmus.dev/mode"] = "secret" }, `metadata.annotations[isthmus.dev/mode]: it is "secret", and the integration by hand says "sidecar"; make them agree`},
		"config is not YAML":  {"annotations", func(p *corev1.Pod) { p.Annotations["proxy.istio.io/config"] = "OUTPUT_CERTS: [" }, "metadata.annotations[proxy.istio.io/config]: it is not a YAML mapping, so Istio does not read it; correct it"},
		"mounts are not JSON": {"annotations", func(p *corev1.Pod) { p.Annotations["sidecar.istio.io/userVolumeMount"] = "[istio-certs]" }, "metadata.annotations[sidecar.istio.io/userVolumeMount]: it is not a JSON list: "},
		"a mount that says more": {"annotations", func(p *corev1.Pod) {
			p.Annotations["sidecar.istio.io/userVolumeMount"] = `{"istio-certs": {"mountPath": "/etc/edge-certs", "subPath": "a"}}`
		}, `metadata.annotations[sidecar.istio.io/userVolumeMount][istio-certs]: {"mountPath": "/etc/edge-certs", "subPath": "a"} sets more than name and mountPath`},
		"a merged container that says more": {"annotations", func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "istio-proxy", Image: "auto", Env: []corev1.EnvVar{{Name: "OUTPUT_CERTS", Value: "/etc/edge-certs"}, {Name: "A", Value: "b"}},
				StartupProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}}}})
		}, "spec.containers[1].env[1]: Istio's injector merges A into its sidecar, and the plain pod has no container for it; set it in proxyMetadata of annotation proxy.istio.io/config\nspec.containers[1].startupProbe: Istio's injector merges it"},
		"on the host's network": {"annotations", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "the plain pod cannot be injected (conflict): the pod is on the host's network, where Istio's injector adds no sidecar"},
	} {
		t.Run(name, func(t *testing.T) {
			pod := sample(t, test.sample)
			test.change(pod)
			adoption, err := adopt.Adopt(engine, inject.Request{Pod: pod, Namespace: labelled("edge"), Template: true}, adopt.Options{})
			require.Error(t, err)
			assert.Contains(t, err.Error(), test.want)
			assert.Empty(t, adoption.Patch)
		})
	}
}

// TestAdoptLeavesAlone shows the reason for pods with nothing to adopt.
func TestAdoptLeavesAlone(t *testing.T) {
	engine := newEngine(t, inject.Options{})
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		ns     policy.Namespace
		want   policy.Reason
	}{
		"no edge":            {unrecognised, labelled("edge"), policy.NoProfile},
		"opted out":          {func(p *corev1.Pod) { p.Annotations["isthmus.dev/inject"] = "false" }, labelled("edge"), policy.OptedOut},
		"excluded namespace": {func(*corev1.Pod) {}, labelled("kube-system"), policy.ExcludedNamespace},
		"Windows":            {func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelOSStable: "windows"} }, labelled("edge"), policy.UnsupportedOS},
		"plain, and wrong otherwise": {func(p *corev1.Pod) {
			p.Annotations["isthmus.dev/mode"], p.Annotations["isthmus.dev/inject"] = "sidekar", "yes"
			p.Spec.Containers = p.Spec.Containers[:1]
			p.Spec.Containers[0].Env = p.Spec.Containers[0].Env[:1]
		}, labelled("edge"), ""},
		"two edges and nothing by hand": {func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{Name: "a", Image: "emissaryingress/emissary:3.9.1"}, {Name: "b", Image: "emissaryingress/emissary:3.9.1"}}
		}, labelled("edge"), policy.Conflict},
		"plain": {func(p *corev1.Pod) {
			p.Spec.Containers = p.Spec.Containers[:1]
			p.Spec.Containers[0].Env = p.Spec.Containers[0].Env[:1]
		}, labelled("edge"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			pod := sample(t, "sidecar")
			test.change(pod)
			adoption, err := adopt.Adopt(engine, inject.Request{Pod: pod, Namespace: test.ns, Template: true}, adopt.Options{})
			require.NoError(t, err)
			assert.Equal(t, test.want, adoption.Reason)
			assert.Empty(t, adoption.Patch)
			assert.Empty(t, adoption.Differences)
		})
	}
}

// TestAdoptWarnsOfAnUnknownEdge shows the warning about a container that reads certificates as
// only an edge does.
func TestAdoptWarnsOfAnUnknownEdge(t *testing.T) {
	engine := newEngine(t, inject.Options{})
	pod := sample(t, "sidecar")
	unrecognised(pod)
	request := inject.Request{Pod: pod, Namespace: labelled("edge"), Template: true}
	adoption, err := adopt.Adopt(engine, request, adopt.Options{})
	require.NoError(t, err)
	assert.Equal(t, policy.NoProfile, adoption.Reason)
	assert.Equal(t, []string{`container emissary-ingress sets AMBASSADOR_ISTIO_SECRET_DIR, but no profile recognises an edge in image "registry.example/front:1"; name one with annotation isthmus.dev/profile and adopt it again`}, adoption.Warnings)

	pod.Annotations[policy.ProfileKey], pod.Annotations[policy.ContainerKey] = "emissary", "emissary-ingress"
	adoption, err = adopt.Adopt(engine, request, adopt.Options{})
	require.NoError(t, err)
	checkAdopted(t, engine, request, adoption)
}

// TestAdoptFromACluster shows that the defaults of the API server do not prevent an adoption.
func TestAdoptFromACluster(t *testing.T) {
	engine := newEngine(t, inject.Options{})
	pod := sample(t, "sidecar")
	grace, mode := int64(30), corev1.ConfigMapVolumeSourceDefaultMode
	pod.Spec.RestartPolicy, pod.Spec.DNSPolicy, pod.Spec.SchedulerName = corev1.RestartPolicyAlways, corev1.DNSClusterFirst, corev1.DefaultSchedulerName
	pod.Spec.TerminationGracePeriodSeconds, pod.Spec.DeprecatedServiceAccount = &grace, pod.Spec.ServiceAccountName
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		c.TerminationMessagePath, c.TerminationMessagePolicy, c.ImagePullPolicy = corev1.TerminationMessagePathDefault, corev1.TerminationMessageReadFile, corev1.PullIfNotPresent
		for j := range c.Ports {
			c.Ports[j].Protocol = corev1.ProtocolTCP
		}
		for j := range c.Env {
			if from := c.Env[j].ValueFrom; from != nil {
				from.FieldRef.APIVersion = "v1"
			}
		}
		c.ReadinessProbe.HTTPGet.Scheme, c.ReadinessProbe.TimeoutSeconds, c.ReadinessProbe.SuccessThreshold = corev1.URISchemeHTTP, 1, 1
	}
	pod.Spec.Volumes[4].ConfigMap.DefaultMode, pod.Spec.Volumes[5].Projected.DefaultMode = &mode, &mode
	request := inject.Request{Pod: pod, Namespace: labelled("edge"), Template: true}
	adoption, err := adopt.Adopt(engine, request, adopt.Options{})
	require.NoError(t, err)
	checkAdopted(t, engine, request, adoption)
	withoutOptions, err := adopt.Adopt(engine, inject.Request{Pod: sample(t, "sidecar"), Namespace: labelled("edge"), Template: true}, adopt.Options{})
	require.NoError(t, err)
	assert.Equal(t, withoutOptions.Patch, adoption.Patch)
}

// TestAdoptKeepsTheMode shows that the pod gets its mode as an annotation if the default is another
// one.
func TestAdoptKeepsTheMode(t *testing.T) {
	engine := newEngine(t, inject.Options{Settings: inject.Settings{Defaults: policy.Defaults{Mode: policy.Secret, CertDir: "/certs"}}})
	pod := sample(t, "sidecar")
	request := inject.Request{Pod: pod, Namespace: labelled("edge"), Template: true}
	adoption, err := adopt.Adopt(engine, request, adopt.Options{})
	require.NoError(t, err)
	adoptedPod := patchPod(t, pod, adoption.Patch)
	assert.Equal(t, "sidecar", adoptedPod.Annotations[policy.ModeKey])
	assert.Equal(t, patches.DefaultCertDir, adoptedPod.Annotations[policy.CertDirKey])
	checkAdopted(t, engine, request, adoption)
}
