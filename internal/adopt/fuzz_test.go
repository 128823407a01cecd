package adopt_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/isthmus-mesh/isthmus/internal/adopt"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// mutate changes a pod that is integrated by hand as the bytes say: it adds things that are not
// part of the integration, and removes parts of it.
func mutate(pod *corev1.Pod, data []byte) {
	edge := func() *corev1.Container { return &pod.Spec.Containers[0] }
	for i, b := range data {
		name := fmt.Sprintf("x%d", i)
		n := int(b) / 16
		switch b % 16 {
		case 0:
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "x", Args: []string{"sidecar"}})
		case 1:
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: name, Image: "x", VolumeMounts: []corev1.VolumeMount{{Name: pod.Spec.Volumes[n%len(pod.Spec.Volumes)].Name, MountPath: "/x"}}})
		case 2:
			pod.Spec.Volumes = slices.Insert(pod.Spec.Volumes, n%len(pod.Spec.Volumes), corev1.Volume{Name: name})
		case 3:
			edge().Env = slices.Insert(edge().Env, min(n, len(edge().Env)), corev1.EnvVar{Name: name, Value: "$(AMBASSADOR_NAMESPACE)"})
		case 4:
			edge().VolumeMounts = slices.Insert(edge().VolumeMounts, min(n, len(edge().VolumeMounts)), corev1.VolumeMount{Name: pod.Spec.Volumes[0].Name, MountPath: "/" + name})
		case 5:
			if pod.Annotations == nil {
				pod.Annotations = map[string]string{}
			}
			pod.Annotations[name] = "sidecar.istio.io/inject"
		case 6:
			if len(edge().Env) > 0 {
				edge().Env = slices.Delete(edge().Env, n%len(edge().Env), n%len(edge().Env)+1)
			}
		case 7:
			if config, ok := pod.Annotations["proxy.istio.io/config"]; ok {
				pod.Annotations["proxy.istio.io/config"] = strings.Repeat(name+": {a: [1]}\n", 1) + config
			}
		case 8:
			if mounts := pod.Annotations["sidecar.istio.io/userVolumeMount"]; strings.HasPrefix(mounts, "[") {
				pod.Annotations["sidecar.istio.io/userVolumeMount"] = `[{"name":"` + name + `","mountPath":"/x","readOnly":true},` + mounts[1:]
			}
		case 9:
			delete(pod.Annotations, []string{"proxy.istio.io/config", "sidecar.istio.io/userVolumeMount", "sidecar.istio.io/inject"}[n%3])
		case 10:
			pod.Spec.Containers = append(pod.Spec.Containers[1:], pod.Spec.Containers[0])
		case 11:
			pod.Labels[name] = "y"
		case 12:
			if c := agent(pod); c != nil {
				c.Env = append(c.Env, corev1.EnvVar{Name: []string{"ISTIO_META_X", "TZ", "PROV_CERT"}[n%3], Value: "x"})
			}
		}
	}
}

// withoutIntegration removes from a pod what an adoption may remove or add.
func withoutIntegration(pod *corev1.Pod, proxyVolumes []string) *corev1.Pod {
	out := pod.DeepCopy()
	out.Spec.Containers = slices.DeleteFunc(out.Spec.Containers, func(c corev1.Container) bool { return c.Name == "istio-proxy" })
	out.Spec.Volumes = slices.DeleteFunc(out.Spec.Volumes, func(v corev1.Volume) bool { return slices.Contains(proxyVolumes, v.Name) })
	for i := range out.Spec.Containers {
		c := &out.Spec.Containers[i]
		if strings.HasPrefix(c.Name, "x") {
			continue // not the edge: nothing may go
		}
		c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool {
			return e.Name == "AMBASSADOR_ISTIO_SECRET_DIR" || e.Name == "AMBASSADOR_ENVOY_BASE_ID"
		})
		c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "istio-certs" })
	}
	for _, list := range []map[string]string{out.Annotations, out.Labels} {
		for key := range list {
			switch {
			case strings.HasPrefix(key, "isthmus.dev/"), strings.Contains(key, "istio.io/"):
				delete(list, key)
			}
		}
	}
	return out
}

// FuzzAdopt looks for a pod that loses something that is not part of its integration by hand, for a
// difference without a reason, and for an adopted pod that is not plain.
func FuzzAdopt(f *testing.F) {
	for _, seed := range []string{"", "\x00\x01\x02\x03\x04\x05", "\x11\x21\x31\x41\x51", "\x06\x16\x26\x36", "\x07\x08\x18\x07", "\x09\x19\x29", "\x0a\x0a\x03", "\x0b\x0c\x1c\x2c", "\x02\x12\x22\x32\x42\x01\x61"} {
		f.Add(false, []byte(seed))
		f.Add(true, []byte(seed))
	}
	engine := newEngine(f, inject.Options{})
	f.Fuzz(func(t *testing.T, byAnnotations bool, data []byte) {
		if len(data) > 64 {
			return
		}
		pod := sample(t, map[bool]string{false: "sidecar", true: "annotations"}[byAnnotations])
		mutate(pod, data)
		request := inject.Request{Pod: pod, Namespace: policy.Namespace{Name: "edge"}, Template: true}
		adoption, err := adopt.Adopt(engine, request, adopt.Options{})
		if err != nil || adoption.Reason == "" {
			require.Empty(t, adoption.Patch)
			return
		}
		checkAdopted(t, engine, request, adoption)
		adoptedPod := patchPod(t, pod, adoption.Patch)
		volumes := []string{"istio-certs", "istio-envoy", "istio-data", "istiod-ca-cert", "istio-token"}
		before, after := withoutIntegration(pod, volumes), withoutIntegration(adoptedPod, volumes)
		require.True(t, equality.Semantic.DeepEqual(before, after), "%v\nbecame\n%v", before, after)
		for i := range data {
			name := fmt.Sprintf("x%d:", i)
			require.Equal(t, strings.Contains(pod.Annotations["proxy.istio.io/config"], name), strings.Contains(adoptedPod.Annotations["proxy.istio.io/config"], name))
			mount := fmt.Sprintf(`"x%d"`, i)
			require.Equal(t, strings.Contains(pod.Annotations["sidecar.istio.io/userVolumeMount"], mount), strings.Contains(adoptedPod.Annotations["sidecar.istio.io/userVolumeMount"], mount))
		}
		for _, c := range adoptedPod.Spec.Containers {
			for _, m := range c.VolumeMounts {
				require.True(t, slices.ContainsFunc(adoptedPod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }), "%s mounts %s, which is gone", c.Name, m.Name)
			}
		}
	})
}
