package policy

import (
	"regexp"
	"slices"
	"strconv"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Proxy holds the values of Istio's own annotations for the sidecar. Empty means
// not set.
type Proxy struct {
	// Image is the sidecar's image.
	Image string
	// CPU and Memory are requests, CPULimit and MemoryLimit are limits, as quantities
	// of Kubernetes.
	CPU, Memory, CPULimit, MemoryLimit string
	// LogLevel is Envoy's log level.
	LogLevel string
	// AgentLogLevel holds the log levels of the agent, by scope.
	AgentLogLevel string
	// StatusPort is the port of the agent's probes. Zero means not set.
	StatusPort int32
}

// proxyLogLevels are the values of IstioLogLevelKey.
var proxyLogLevels = []string{"trace", "debug", "info", "warning", "error", "critical", "off"}

// agentLogLevels matches the values of IstioAgentLogLevelKey: levels, each with an
// optional scope.
var agentLogLevels = regexp.MustCompile(`^([A-Za-z0-9_-]+:)?(none|fatal|error|warn|info|debug)(,([A-Za-z0-9_-]+:)?(none|fatal|error|warn|info|debug))*$`)

// readProxy reads Istio's own annotations, which have an effect on a pod only.
func (r *resolver) readProxy(p *Proxy) {
	read := func(key string, dst *string, check func(string) string) {
		if v, ok := r.podAnnotations[key]; ok {
			*dst = v
			if problem := check(v); problem != "" {
				r.reportPod(key, v, problem)
			}
		}
	}
	read(IstioProxyImageKey, &p.Image, func(v string) string {
		if _, err := reference.ParseNormalizedNamed(v); err != nil {
			return "want an image such as docker.io/istio/proxyv2:1.31.1"
		}
		return ""
	})
	read(IstioProxyCPUKey, &p.CPU, quantityProblem)
	read(IstioProxyMemoryKey, &p.Memory, quantityProblem)
	read(IstioProxyCPULimitKey, &p.CPULimit, quantityProblem)
	read(IstioProxyMemLimitKey, &p.MemoryLimit, quantityProblem)
	read(IstioLogLevelKey, &p.LogLevel, func(v string) string {
		if !slices.Contains(proxyLogLevels, v) {
			return "want trace, debug, info, warning, error, critical or off"
		}
		return ""
	})
	read(IstioAgentLogLevelKey, &p.AgentLogLevel, func(v string) string {
		if !agentLogLevels.MatchString(v) {
			return "want scopes and levels such as default:info,ca:debug"
		}
		return ""
	})
	var port string
	read(IstioStatusPortKey, &port, func(v string) string {
		n, err := strconv.ParseInt(v, 10, 32)
		p.StatusPort = int32(n)
		switch {
		case err != nil || n < 1 || n > 65535:
			return "want a port from 1 to 65535"
		case slices.Contains(reservedPorts, int32(n)):
			return "Istio uses that port itself; want another one, by default 15020"
		default:
			return ""
		}
	})
}

func quantityProblem(v string) string {
	if q, err := resource.ParseQuantity(v); err != nil || q.Sign() <= 0 {
		return "want a positive quantity such as 100m or 128Mi"
	}
	return ""
}
