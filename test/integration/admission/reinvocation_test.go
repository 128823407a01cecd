package admission

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// otherWebhook is another mutating webhook. It adds a container and a label to every pod, and
// a variable to every container, each once and with its own name.
type otherWebhook struct {
	name  string
	calls atomic.Int64
}

// installOtherWebhook starts the webhook and makes the API server call it for the pods of s.
func installOtherWebhook(t *testing.T, name string, s *testNamespace) *otherWebhook {
	t.Helper()
	o := &otherWebhook{name: name}
	authority := certtest.NewAuthority(t)
	leaf := authority.Leaf(t, certtest.IPAddresses(net.IPv4(127, 0, 0, 1)))
	server := httptest.NewUnstartedServer(o)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{leaf.TLS(t)}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	installWebhook(t, name, s, admissionregistrationv1.MutatingWebhook{
		ClientConfig:       admissionregistrationv1.WebhookClientConfig{URL: ptr.To(server.URL), CABundle: authority.CertificatePEM},
		Rules:              podRules(admissionregistrationv1.Create),
		ReinvocationPolicy: ptr.To(admissionregistrationv1.IfNeededReinvocationPolicy),
	})
	return o
}

// ServeHTTP implements http.Handler.
func (o *otherWebhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.calls.Add(1)
	var review admissionv1.AdmissionReview
	pod := &corev1.Pod{}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := json.Unmarshal(review.Request.Object.Raw, pod); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	patch, err := json.Marshal(o.edit(pod))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{
		UID: review.Request.UID, Allowed: true, Patch: patch, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch),
	}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func (o *otherWebhook) edit(pod *corev1.Pod) []operation {
	operations := []operation{}

	for list, containers := range map[string][]corev1.Container{"containers": pod.Spec.Containers, "initContainers": pod.Spec.InitContainers} {
		for i := range containers {
			path := "/spec/" + list + "/" + strconv.Itoa(i) + "/env"
			switch c := &containers[i]; {
			case variable(c, o.name) != "":
			case c.Env == nil:
				operations = append(operations, operation{"add", path, []corev1.EnvVar{{Name: o.name, Value: "here"}}})
			default:
				operations = append(operations, operation{"add", path + "/0", corev1.EnvVar{Name: o.name, Value: "here"}})
			}
		}
	}
	if _, hasLabel := pod.Labels[o.name]; hasLabel {
		return operations
	}
	if pod.Labels == nil {
		operations = append(operations, operation{"add", "/metadata/labels", map[string]string{}})
	}
	extra := restrictedPod("", "docker.io/library/redis:8").Spec.Containers[0]
	extra.Name, extra.Env = o.name, []corev1.EnvVar{{Name: o.name, Value: "here"}}
	return append(operations, operation{"add", "/metadata/labels/" + o.name, "here"}, operation{"add", "/spec/containers/0", extra})
}

func TestBesideAnotherWebhook(t *testing.T) {
	for name, others := range map[string][]string{
		"that runs before":           {"a-webhook"},
		"that runs after":            {"z-webhook"},
		"that runs before and after": {"a-webhook", "z-webhook"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newNamespace(t, enabled, restricted)
			webhooks := map[string]*otherWebhook{}
			for _, other := range others {
				webhooks[other] = installOtherWebhook(t, other, s)
			}
			awaitConfiguration(t, func() bool {
				pod, err := s.dryRun(otherPod("probe"))
				return err == nil && len(pod.Spec.Containers) == 1+len(others)
			})
			counters := snapshotCounters(t)

			pod, err := s.create(edgePod("edge"))

			require.NoError(t, err)
			assert.Equal(t, 1, sidecars(pod))
			assert.Len(t, pod.Spec.InitContainers, 1)
			require.NotNil(t, sidecar(pod))
			for _, other := range others {
				assert.Equal(t, "here", pod.Labels[other])
				for _, c := range append(pod.Spec.Containers, pod.Spec.InitContainers...) {
					assert.Equal(t, "here", variable(&c, other), "%s in container %s", other, c.Name)
				}
			}
			edge := container(pod, "main")
			require.NotNil(t, edge)
			assert.Equal(t, "/etc/istio-certs", variable(edge, "AMBASSADOR_ISTIO_SECRET_DIR"))
			assert.Equal(t, map[string]int{"istio-certs": 1}, mountsOf(edge, "istio-certs"))
			assert.Equal(t, "main", pod.Annotations["kubectl.kubernetes.io/default-container"])
			counters.assertGrowth(map[string]float64{"namespace": 2, "pod": 0, "injected": 1, "decided": 1})
			assert.Empty(t, s.warnings.Drain())
		})
	}
}

func container(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}

// mountsOf counts the container's mounts of a volume.
func mountsOf(c *corev1.Container, volume string) map[string]int {
	found := map[string]int{}
	for _, m := range c.VolumeMounts {
		if m.Name == volume {
			found[m.Name]++
		}
	}
	return found
}
