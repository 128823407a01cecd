//go:build soak

package kubelet

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	space    = "front"
	account  = "edge"
	edgeName = "ambassador"
)

// agent answers the startup probe of one pod's istio-proxy, as the agent does:
// 503 until the certificates are there.
type agent struct {
	ready atomic.Bool
	// turned counts the probes that it turned away.
	turned atomic.Int64
	port   string
}

func newAgent(t testing.TB) *agent {
	a := &agent{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz/ready" || !a.ready.Load() {
			a.turned.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	a.port = port
	return a
}

// open makes the namespace with what a mesh and the controller manager put there.
func open(t testing.TB) {
	t.Helper()
	ctx := t.Context()
	labels := map[string]string{policy.InjectionLabel: policy.InjectionEnabled}
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space, Labels: labels}}, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, client.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), space, metav1.DeleteOptions{}))
	})
	_, err = client.CoreV1().ServiceAccounts(space).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
	require.NoError(t, err)
	for name, key := range map[string]string{"istio-ca-root-cert": "root-cert.pem", "kube-root-ca.crt": "ca.crt"} {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{key: "a root"}}
		if _, err := client.CoreV1().ConfigMaps(space).Create(ctx, object, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			require.NoError(t, err)
		}
	}
}

// injected is an Emissary with the publisher, as the engine makes it.
func injected(t testing.TB, name, edge, publisher, agentPort string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space, Annotations: map[string]string{
			policy.PublishKey: "true", policy.IstioStatusPortKey: agentPort,
		}},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: account, AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{Name: edgeName, Image: edge}},
		},
	}
	engine, err := inject.New(inject.Options{Settings: inject.Settings{PublisherImage: publisher}})
	require.NoError(t, err)
	result := engine.Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{
		Name: space, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled},
	}})
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	patch, err := jsonpatch.DecodePatch(result.EncodedPatch)
	require.NoError(t, err)
	document, err := json.Marshal(pod)
	require.NoError(t, err)
	document, err = patch.Apply(document)
	require.NoError(t, err)
	out := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(document, out))
	return out
}

// native makes the publisher a native sidecar, at this place among the init
// containers.
func native(t testing.TB, pod *corev1.Pod, at func(initContainers int) int) {
	t.Helper()
	list := pod.Spec.Containers
	i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == patches.PublisherName })
	require.GreaterOrEqual(t, i, 0, "the engine adds the publisher as an ordinary container")
	c := list[i]
	c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	pod.Spec.Containers = slices.Delete(list, i, i+1)
	pod.Spec.InitContainers = slices.Insert(pod.Spec.InitContainers, at(len(pod.Spec.InitContainers)), c)
}
