package environment

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

var namespaceCount atomic.Int64

// CreateNamespace creates an opted-in namespace with service accounts, and returns its name.
func (env *Environment) CreateNamespace(t testing.TB, annotations map[string]string, accounts ...string) string {
	t.Helper()
	name := fmt.Sprintf("front-%d", namespaceCount.Add(1))
	_, err := env.Kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, Annotations: annotations,
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	for _, account := range accounts {
		_, err := env.Kube.CoreV1().ServiceAccounts(name).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	return name
}

// CreateEdge creates a pod of Emissary as the webhook would have injected it. There is no
// node, so the pod never runs.
func (env *Environment) CreateEdge(t testing.TB, namespace, name, account string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: account, AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:3.9.1"}},
		},
	}
	ns, err := env.Kube.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	require.NoError(t, err)
	engine, err := inject.New(inject.Options{Settings: inject.Settings{PublisherImage: "ghcr.io/isthmus-mesh/isthmus:dev"}})
	require.NoError(t, err)
	result := engine.Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{Name: namespace, Labels: ns.Labels, Annotations: ns.Annotations}})
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	patch, err := jsonpatch.DecodePatch(result.EncodedPatch)
	require.NoError(t, err)
	document, err := json.Marshal(pod)
	require.NoError(t, err)
	document, err = patch.Apply(document)
	require.NoError(t, err)
	injected := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(document, injected))
	created, err := env.Kube.CoreV1().Pods(namespace).Create(t.Context(), injected, metav1.CreateOptions{})
	require.NoError(t, err)
	return created
}
