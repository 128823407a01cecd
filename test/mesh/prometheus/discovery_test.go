package prometheus

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// discovery replaces Prometheus' Kubernetes discovery, which Debian's build leaves out: it
// answers over HTTP with the targets and the labels __meta_kubernetes_ that Prometheus'
// documentation defines for the roles "endpoints" and "pod". Pods without a node get no
// endpoints, so discovery matches Services and pods itself. The relabelling rules of Istio's
// addon decide which targets are scraped.
type discovery struct {
	client kubernetes.Interface
}

// targetGroup is a target with its labels, in the format of http_sd_configs.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// startDiscovery runs a discovery with the permissions of the addon's service account, and
// returns its URL; the role is the path.
func (env *environment) startDiscovery(t *testing.T) string {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", env.kubeconfig(t, "istio-system", "prometheus"))
	require.NoError(t, err)
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	s := httptest.NewServer(discovery{client})
	t.Cleanup(s.Close)
	return s.URL
}

// ServeHTTP implements http.Handler.
func (d discovery) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	groups, err := d.targetGroups(request)
	if err != nil {
		http.Error(response, err.Error(), http.StatusInternalServerError)
		return
	}
	response.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(response).Encode(groups)
}

func (d discovery) targetGroups(request *http.Request) ([]targetGroup, error) {
	ctx := request.Context()
	list, err := d.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	groups := []targetGroup{}
	switch request.URL.Path {
	case "/pod":
		for i := range list.Items {
			groups = append(groups, podTargets(&list.Items[i], nil)...)
		}
		return groups, nil
	case "/endpoints":
	default:
		return nil, fmt.Errorf("no role %s", request.URL.Path)
	}
	services, err := d.client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for i := range services.Items {
		service := &services.Items[i]
		selector := labels.SelectorFromSet(service.Spec.Selector)
		for i := range list.Items {
			pod := &list.Items[i]
			if len(service.Spec.Selector) > 0 && pod.Namespace == service.Namespace && pod.Status.PodIP != "" && selector.Matches(labels.Set(pod.Labels)) {
				groups = append(groups, endpointTargets(service, pod)...)
			}
		}
	}
	return groups, nil
}

// endpointTargets returns the targets of a pod behind a Service: the Service's ports, and
// all other ports of the pod.
func endpointTargets(service *corev1.Service, pod *corev1.Pod) []targetGroup {
	var groups []targetGroup
	serviceLabels := metaLabels("service", service.ObjectMeta)
	for _, port := range service.Spec.Ports {
		endpoint := maps.Clone(serviceLabels)
		endpoint["__meta_kubernetes_endpoint_port_name"] = port.Name
		endpoint["__meta_kubernetes_endpoint_ready"] = "true"
		groups = append(groups, targetGroup{[]string{net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(targetPort(port, pod)))}, endpoint})
	}
	return append(groups, podTargets(pod, serviceLabels)...)
}

// targetPort returns the port of a pod that a Service's port leads to.
func targetPort(port corev1.ServicePort, pod *corev1.Pod) int {
	if port.TargetPort.Type == intstr.Int {
		return port.TargetPort.IntValue()
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == port.TargetPort.StrVal {
				return int(p.ContainerPort)
			}
		}
	}
	return 0
}

// podTargets returns the targets of a pod: the ports of its containers.
func podTargets(pod *corev1.Pod, serviceLabels map[string]string) []targetGroup {
	all := metaLabels("pod", pod.ObjectMeta)
	all["__meta_kubernetes_pod_ip"] = pod.Status.PodIP
	all["__meta_kubernetes_pod_phase"] = string(pod.Status.Phase)
	all["__meta_kubernetes_pod_node_name"] = pod.Spec.NodeName
	maps.Copy(all, serviceLabels)
	var groups []targetGroup
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			groups = append(groups, targetGroup{[]string{net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port.ContainerPort)))}, all})
		}
	}
	return groups
}

var invalidLabelCharacter = regexp.MustCompile(`[^a-zA-Z0-9_]`)

// metaLabels returns the labels for the name, the labels and the annotations of an object.
func metaLabels(kind string, o metav1.ObjectMeta) map[string]string {
	prefix := "__meta_kubernetes_" + kind
	all := map[string]string{"__meta_kubernetes_namespace": o.Namespace, prefix + "_name": o.Name}
	for key, value := range o.Labels {
		all[prefix+"_label_"+invalidLabelCharacter.ReplaceAllString(key, "_")] = value
	}
	for key, value := range o.Annotations {
		all[prefix+"_annotation_"+invalidLabelCharacter.ReplaceAllString(key, "_")] = value
	}
	return all
}
