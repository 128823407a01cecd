package security

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/environment"
)

// chart holds the objects of the chart that decide who can reach a pod.
type chart struct {
	policies    []networkingv1.NetworkPolicy
	deployments map[string]appsv1.Deployment
}

func renderChart(t testing.TB, values string) chart {
	t.Helper()
	helm, err := controlplane.Tool(t.Context(), "helm")
	require.NoError(t, err)
	render := exec.CommandContext(t.Context(), helm, "template", "isthmus", "../../../charts/isthmus", "--namespace", environment.Namespace, "--kube-version", "1.36.0", "--values", "-")
	render.Stdin = strings.NewReader(values)
	out, err := render.Output()
	require.NoError(t, err)
	c := chart{deployments: map[string]appsv1.Deployment{}}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), 4096)
	for {
		object := map[string]any{}
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			return c
		}
		convert := runtime.DefaultUnstructuredConverter.FromUnstructured
		switch object["kind"] {
		case "NetworkPolicy":
			var p networkingv1.NetworkPolicy
			require.NoError(t, convert(object, &p))
			c.policies = append(c.policies, p)
		case "Deployment":
			var d appsv1.Deployment
			require.NoError(t, convert(object, &d))
			c.deployments[d.Name] = d
		}
	}
}

// peer is the client of a connection, by the labels of its namespace and its pod.
type peer struct{ namespace, pod map[string]string }

// admits evaluates the policies as Kubernetes defines them: a pod that no policy selects is
// open, otherwise a rule has to allow the peer.
func (c chart) admits(t testing.TB, deployment string, port int32, from peer) bool {
	t.Helper()
	template := c.deployments[deployment].Spec.Template
	require.NotEmpty(t, template.Labels, deployment)
	open := true
	for _, p := range c.policies {
		if !matches(t, &p.Spec.PodSelector, template.Labels) {
			continue
		}
		require.Contains(t, p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
		open = false
		for _, rule := range p.Spec.Ingress {
			if isPort(t, rule.Ports, template.Spec.Containers[0], port) && isPeer(t, rule.From, from) {
				return true
			}
		}
	}
	return open
}

func matches(t testing.TB, s *metav1.LabelSelector, of map[string]string) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	require.NoError(t, err)
	return selector.Matches(labels.Set(of))
}

func isPort(t testing.TB, ports []networkingv1.NetworkPolicyPort, c corev1.Container, port int32) bool {
	t.Helper()
	require.NotEmpty(t, ports, "a rule without ports is for all of them")
	for _, p := range ports {
		require.Nil(t, p.EndPort)
		if p.Port.IntVal == port {
			return true
		}
		for _, containerPort := range c.Ports {
			if p.Port.StrVal == containerPort.Name && containerPort.Name != "" && containerPort.ContainerPort == port && *p.Protocol == containerPort.Protocol {
				return true
			}
		}
	}
	return false
}

func isPeer(t testing.TB, peers []networkingv1.NetworkPolicyPeer, from peer) bool {
	t.Helper()
	if len(peers) == 0 {
		return true
	}
	for _, p := range peers {
		require.Nil(t, p.IPBlock)
		if (p.NamespaceSelector == nil || matches(t, p.NamespaceSelector, from.namespace)) && (p.PodSelector == nil || matches(t, p.PodSelector, from.pod)) {
			return true
		}
	}
	return false
}

// TestNetworkPolicy evaluates the chart's policies; the cluster's network enforces them.
func TestNetworkPolicy(t *testing.T) {
	stranger := peer{map[string]string{"kubernetes.io/metadata.name": "shop"}, map[string]string{"app": "shop"}}
	monitor := peer{map[string]string{"kubernetes.io/metadata.name": "monitoring"}, map[string]string{"app": "prometheus"}}
	byDefault := renderChart(t, "{}")
	only := renderChart(t, "networkPolicy: {metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}")
	none := renderChart(t, "metrics: {enabled: false}")
	off := renderChart(t, "networkPolicy: {enabled: false}")
	for name, test := range map[string]struct {
		chart      chart
		deployment string
		port       int32
		from       peer
		want       bool
	}{
		"if it is a review, expect access for everyone, because the addresses of API servers are unknown": {byDefault, "isthmus-webhook", 10250, stranger, true},
		"if it is a probe of the webhook, expect access for everyone":                                     {byDefault, "isthmus-webhook", 8081, stranger, true},
		"if it is a probe of the controller, expect access for everyone":                                  {byDefault, "isthmus-controller", 8081, stranger, true},
		"if it is the webhook's metrics, expect access for everyone":                                      {byDefault, "isthmus-webhook", 8080, stranger, true},
		"if metricsFrom names others, expect no access for others":                                        {only, "isthmus-webhook", 8080, stranger, false},
		"if metricsFrom names others, expect access for those":                                            {only, "isthmus-webhook", 8080, monitor, true},
		"if metricsFrom names others, expect the same of the controller":                                  {only, "isthmus-controller", 8080, stranger, false},
		"if metricsFrom names others, expect reviews as before":                                           {only, "isthmus-webhook", 10250, stranger, true},
		"if there are no metrics, expect no access":                                                       {none, "isthmus-webhook", 8080, monitor, false},
		"if it is another port of the webhook, expect no access":                                          {byDefault, "isthmus-webhook", 6060, monitor, false},
		"if it is the controller's port for reviews, expect no access":                                    {byDefault, "isthmus-controller", 10250, stranger, false},
		"if it is another port of the controller, expect no access":                                       {byDefault, "isthmus-controller", 22, stranger, false},
		"if it is switched off, expect access for everyone":                                               {off, "isthmus-webhook", 6060, stranger, true},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, test.chart.admits(t, test.deployment, test.port, test.from))
		})
	}
	t.Run("if egress is not named, expect it open; else as named", func(t *testing.T) {
		for _, p := range byDefault.policies {
			assert.NotContains(t, p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
		closed := renderChart(t, "networkPolicy: {egress: [{ports: [{port: 6443}]}], controllerEgress: [{ports: [{port: 6443}]}]}")
		for _, p := range closed.policies {
			assert.Contains(t, p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
			assert.Len(t, p.Spec.Egress, 1)
		}
	})
}
