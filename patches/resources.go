package patches

import (
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resources are the requests and limits of the containers that Isthmus adds. A
// container that is not set has those of sidecar.yaml.
type Resources struct {
	// Sidecar is for the agent without Envoy.
	Sidecar *ContainerResources `json:"sidecar,omitempty"`
	// Envoy is for the agent with Envoy.
	Envoy *ContainerResources `json:"envoy,omitempty"`
	// Publisher is for the in-pod publisher.
	Publisher *ContainerResources `json:"publisher,omitempty"`
}

// ContainerResources are the requests and limits of a container. What is empty is not
// requested or not limited.
type ContainerResources struct {
	Requests ResourceList `json:"requests,omitempty"`
	Limits   ResourceList `json:"limits,omitempty"`
}

// ResourceList holds quantities.
type ResourceList struct {
	CPU              Quantity `json:"cpu,omitempty"`
	Memory           Quantity `json:"memory,omitempty"`
	EphemeralStorage Quantity `json:"ephemeral-storage,omitempty"`
}

// Quantity is the text of a quantity of Kubernetes, such as 100m or 128Mi. Empty means
// not set.
type Quantity string

// UnmarshalJSON takes a number too, as Kubernetes does.
func (q *Quantity) UnmarshalJSON(data []byte) error {
	var text string
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	} else if text = string(data); text == "null" {
		text = ""
	}
	*q = Quantity(text)
	return nil
}

// quantities returns the quantities that are set, by the name of the resource.
func (l ResourceList) quantities() map[corev1.ResourceName]Quantity {
	out := map[corev1.ResourceName]Quantity{}
	for name, q := range map[corev1.ResourceName]Quantity{
		corev1.ResourceCPU: l.CPU, corev1.ResourceMemory: l.Memory, corev1.ResourceEphemeralStorage: l.EphemeralStorage,
	} {
		if q != "" {
			out[name] = q
		}
	}
	return out
}

// Validate checks every quantity. Each of the joined errors names the field, its value
// and what is allowed.
func (r Resources) Validate() error {
	var errs []error
	for _, c := range []struct {
		field string
		*ContainerResources
	}{{"sidecar", r.Sidecar}, {"envoy", r.Envoy}, {"publisher", r.Publisher}} {
		if c.ContainerResources == nil {
			continue
		}
		if _, err := c.parse(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.field, err))
		}
	}
	return errors.Join(errs...)
}

// parse returns the resources in the form of Kubernetes.
func (c *ContainerResources) parse() (corev1.ResourceRequirements, error) {
	var errs []error
	list := func(field string, l ResourceList) corev1.ResourceList {
		out := corev1.ResourceList{}
		for name, text := range l.quantities() {
			q, err := resource.ParseQuantity(string(text))
			if err != nil || q.Sign() <= 0 {
				errs = append(errs, fmt.Errorf("%s.%s %q: want a positive quantity such as 100m or 128Mi", field, name, text))
				continue
			}
			out[name] = q
		}
		return out
	}
	r := corev1.ResourceRequirements{Requests: list("requests", c.Requests), Limits: list("limits", c.Limits)}
	for name, limit := range r.Limits {
		if request, ok := r.Requests[name]; ok && request.Cmp(limit) > 0 {
			errs = append(errs, fmt.Errorf("requests.%s %s is above limits.%s %s; want at most the limit", name, request.String(), name, limit.String()))
		}
	}
	return r, errors.Join(errs...)
}

// SetResources replaces the template's requests and limits by those that are set. The
// caller has validated them.
func (t *SidecarTemplate) SetResources(r Resources) error {
	for _, c := range []struct {
		from *ContainerResources
		to   *corev1.ResourceRequirements
	}{{r.Sidecar, &t.Resources}, {r.Envoy, &t.Envoy.Resources}, {r.Publisher, &t.Publisher.Container.Resources}} {
		if c.from == nil {
			continue
		}
		parsed, err := c.from.parse()
		if err != nil {
			return err
		}
		*c.to = parsed
	}
	return nil
}

// resources returns the sidecar's requests and limits. It follows Istio's rule for its
// annotations, with one exception: a request above the default limit raises the limit,
// because the API server would refuse the pod otherwise.
func (t *SidecarTemplate) resources(p Params) (corev1.ResourceRequirements, error) {
	r := t.Resources.DeepCopy()
	if p.Envoy {
		r = t.Envoy.Resources.DeepCopy()
	}
	for _, o := range []struct {
		list  corev1.ResourceList
		name  corev1.ResourceName
		value string
	}{
		{r.Requests, corev1.ResourceCPU, p.Overrides.CPU},
		{r.Requests, corev1.ResourceMemory, p.Overrides.Memory},
		{r.Limits, corev1.ResourceCPU, p.Overrides.CPULimit},
		{r.Limits, corev1.ResourceMemory, p.Overrides.MemoryLimit},
	} {
		if o.value == "" || p.PodResources.covers(o.name) {
			continue
		}
		q, err := resource.ParseQuantity(o.value)
		if err != nil {
			return *r, fmt.Errorf("%q is not a quantity: %w", o.value, err)
		}
		o.list[o.name] = q
	}
	for _, k := range []struct {
		name           corev1.ResourceName
		request, limit string
	}{
		{corev1.ResourceCPU, p.Overrides.CPU, p.Overrides.CPULimit},
		{corev1.ResourceMemory, p.Overrides.Memory, p.Overrides.MemoryLimit},
	} {
		request, requested := r.Requests[k.name]
		limit, limited := r.Limits[k.name]
		if !requested || !limited || request.Cmp(limit) <= 0 {
			continue
		}
		switch {
		case k.request != "" && k.limit != "":
			return *r, fmt.Errorf("%s request %s is above its limit %s", k.name, request.String(), limit.String())
		case k.request != "":
			r.Limits[k.name] = request
		default:
			r.Requests[k.name] = limit
		}
	}
	fitPod(r, p)
	return *r, nil
}

// fitPod fits a container's resources to those of the pod. In a Guaranteed pod requests
// equal limits. The container names nothing that the pod's own figure covers: the API
// server refuses a pod whose containers ask for more than the pod.
func fitPod(r *corev1.ResourceRequirements, p Params) {
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		limit, limited := r.Limits[name]
		request, requested := r.Requests[name]
		switch {
		case p.PodResources.covers(name):
			delete(r.Requests, name)
			delete(r.Limits, name)
		case p.Guaranteed && limited:
			r.Requests[name] = limit
		case p.Guaranteed && requested:
			r.Limits[name] = request
		}
	}
}

// dropMemoryLimitEnv removes the variables that are set from the container's memory limit
// if it has none: the kubelet would put in the node's memory.
func dropMemoryLimitEnv(c *corev1.Container) {
	if _, limited := c.Resources.Limits[corev1.ResourceMemory]; limited {
		return
	}
	env := c.Env[:0]
	for _, e := range c.Env {
		if e.ValueFrom == nil || e.ValueFrom.ResourceFieldRef == nil || e.ValueFrom.ResourceFieldRef.Resource != "limits.memory" {
			env = append(env, e)
		}
	}
	c.Env = env
}

// PodResources says which resources the pod itself requests or limits
// (spec.resources).
type PodResources struct{ CPU, Memory bool }

// PodResourcesOf returns those of a pod.
func PodResourcesOf(pod *corev1.Pod) PodResources {
	has := func(name corev1.ResourceName) bool {
		r := pod.Spec.Resources
		if r == nil {
			return false
		}
		_, requested := r.Requests[name]
		_, limited := r.Limits[name]
		return requested || limited
	}
	return PodResources{CPU: has(corev1.ResourceCPU), Memory: has(corev1.ResourceMemory)}
}

func (p PodResources) covers(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU && p.CPU || name == corev1.ResourceMemory && p.Memory
}
