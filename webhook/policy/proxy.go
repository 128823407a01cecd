package policy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Proxy holds the values of Istio's own annotations for the sidecar. Empty means
// not set.
type Proxy struct {
	// Image is the sidecar's image. A name without a slash, such as proxyv2, is no
	// image: Istio uses the mesh's image for it.
	Image string
	// CPU and Memory are requests, CPULimit and MemoryLimit are limits, as quantities
	// of Kubernetes.
	CPU, Memory, CPULimit, MemoryLimit string
	// LogLevel holds Envoy's log levels, by component.
	LogLevel string
	// AgentLogLevel holds the log levels of the agent, by scope.
	AgentLogLevel string
	// StatusPort is the port of the agent's probes. Zero means not set.
	StatusPort int32
}

// envoyLevels are the levels that Envoy knows.
const envoyLevels = "trace|debug|info|warning|warn|error|critical|off"

var (
	// proxyLogLevels matches the values of IstioLogLevelKey. The agent splits a list
	// into Envoy's level and the levels of its components (splitComponentLog in
	// pkg/envoy/proxy.go of Istio).
	proxyLogLevels = levels(envoyLevels)
	// agentLogLevels matches the values of IstioAgentLogLevelKey: levels, each with
	// an optional scope.
	agentLogLevels = levels("none|fatal|error|warn|info|debug")
)

// levels matches a list of levels, each with an optional component.
func levels(known string) *regexp.Regexp {
	level := `([A-Za-z0-9_.-]+:)?(` + known + `)`
	return regexp.MustCompile(`^` + level + `(,` + level + `)*$`)
}

// ReadProxy reads Istio's own annotations, which have an effect on a pod only. They are
// held to what Istio accepts (pkg/kube/inject/validate.go), as far as a pod with the
// value can start. The problem is a sentence about the first value that is not
// allowed, or "". In mode istio that is the port of the probes only: the other keys are
// for Istio's injector, and a value of theirs that is not allowed counts as not set.
func ReadProxy(podAnnotations map[string]string, mode Mode) (p Proxy, warnings []Warning, problem string) {
	read := func(key string, dst *string, check func(string) string) {
		v, ok := podAnnotations[key]
		if !ok {
			return
		}
		want := parseBounded(key, v, check)
		switch {
		case want == "":
			*dst = v
		case problem == "" && (mode != Istio || key == IstioStatusPortKey):
			problem = "annotation " + notAllowed(key, v, want)
		}
	}
	read(IstioProxyImageKey, &p.Image, unlessEmpty(func(v string) string {
		if _, err := reference.ParseNormalizedNamed(v); err != nil {
			return "want an image such as docker.io/istio/proxyv2:1.31.1"
		}
		return ""
	}))
	if !strings.Contains(p.Image, "/") { // injection-template.yaml of Istio's chart
		p.Image = ""
	}
	read(IstioProxyCPUKey, &p.CPU, quantityProblem)
	read(IstioProxyMemoryKey, &p.Memory, quantityProblem)
	read(IstioProxyCPULimitKey, &p.CPULimit, quantityProblem)
	read(IstioProxyMemLimitKey, &p.MemoryLimit, quantityProblem)
	if problem == "" && mode != Istio {
		problem = cmp.Or(limitProblem(IstioProxyCPUKey, p.CPU, IstioProxyCPULimitKey, p.CPULimit),
			limitProblem(IstioProxyMemoryKey, p.Memory, IstioProxyMemLimitKey, p.MemoryLimit))
	}
	read(IstioLogLevelKey, &p.LogLevel, unlessEmpty(func(v string) string {
		if !proxyLogLevels.MatchString(v) {
			return "want levels and components such as info or warning,rbac:debug, with the levels trace, debug, info, warning, error, critical or off"
		}
		return ""
	}))
	read(IstioAgentLogLevelKey, &p.AgentLogLevel, unlessEmpty(func(v string) string {
		if !agentLogLevels.MatchString(v) {
			return "want scopes and levels such as default:info,ca:debug"
		}
		return ""
	}))
	var port string
	read(IstioStatusPortKey, &port, func(v string) string {
		n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 16)
		switch {
		case err != nil:
			return "want a port from 1 to 65535"
		case slices.Contains(reservedPorts, int32(n)):
			return "Istio uses that port itself; want another one, by default 15020"
		}
		if p.StatusPort = int32(n); n == 0 {
			warnings = append(warnings, Warning{"no-effect", fmt.Sprintf("annotation %s: %q leaves out the probe of Istio's own sidecar, and has no effect here: the edge waits for its certificate with a probe on port %d; remove the annotation",
				IstioStatusPortKey, v, defaultStatusPort)})
		}
		return ""
	})
	return p, warnings, problem
}

// unlessEmpty accepts an empty value, which Istio renders as an image or a flag without
// one: the default is used.
func unlessEmpty(check func(string) string) func(string) string {
	return func(v string) string {
		if v == "" {
			return ""
		}
		return check(v)
	}
}

// limitProblem says in a sentence that a request is above its limit, or returns "". The
// API server would refuse the pod, Istio's sidecar in it or ours.
func limitProblem(requestKey, request, limitKey, limit string) string {
	if request == "" || limit == "" {
		return ""
	}
	r, l := resource.MustParse(request), resource.MustParse(limit)
	if r.Cmp(l) <= 0 {
		return ""
	}
	return "annotation " + notAllowed(requestKey, request, fmt.Sprintf("want at most %s: %q", limitKey, limit))
}

func quantityProblem(v string) string {
	if q, err := resource.ParseQuantity(v); err != nil || q.Sign() < 0 {
		return "want a quantity such as 100m or 128Mi"
	}
	return ""
}
