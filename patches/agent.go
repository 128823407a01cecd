package patches

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// OldestIstio is the first version of Istio that Isthmus supports.
const OldestIstio = "1.20"

// Names of facts that a decision depends on, for Agent.Supports.
const (
	// DebugPortEnv is the variable that keeps the agent's port 15004 closed.
	DebugPortEnv = "PROXY_XDS_DEBUG_VIA_AGENT"
	// NoInboundCapture is the annotation that keeps ztunnel from capturing the
	// inbound traffic of an ambient pod.
	NoInboundCapture = "ambient.istio.io/bypass-inbound-capture"
)

// Fact is a property of Istio that Isthmus relies on, and the versions that have it.
type Fact struct {
	// Name is the flag, variable, path or annotation, or the behaviour.
	Name string
	// Since is the first version that has the property. Empty means every supported
	// version.
	Since string
	// Before is the first version that no longer has the property. Empty means that
	// the current version has it.
	Before string
	// Description says what the property is for, or what it does.
	Description string
	// File and Symbol are the source: a file of istio.io/istio, and a text in it.
	File, Symbol string
}

// Facts returns everything that Isthmus relies on in Istio: the agent's settings in
// sidecar.yaml, the behaviour of the agent that the pod depends on, and the
// differences between versions.
func Facts() (settings, needs, differences []Fact) {
	return agentSettings, agentBehaviour, versionDifferences
}

var facts = slices.Concat(agentSettings, agentBehaviour, versionDifferences)

// Agent is the pilot-agent in an image.
type Agent struct {
	// Version is the version in the image's tag, such as 1.20.8. It is empty if the
	// tag is not a version.
	Version string

	version [3]int
}

// AgentFromImage reads the version of pilot-agent from an image's tag:
// 1.24.3-distroless and v1.24.3 are 1.24.3. A tag that is not a version of Istio
// (latest, a digest alone, another product's version) is unknown, and is treated as
// the current version.
func AgentFromImage(image string) (agent Agent, known bool) {
	t := strings.TrimPrefix(tag(image), "v")
	v, ok := parseVersion(t)
	if !ok || v[0] != 1 || !strings.Contains(t, ".") {
		return Agent{version: [3]int{math.MaxInt, 0, 0}}, false
	}
	text := fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
	if minor := fmt.Sprintf("%d.%d", v[0], v[1]); t == minor || strings.HasPrefix(t, minor+"-") {
		text = minor
	}
	return Agent{Version: text, version: v}, true
}

// TooOld reports whether the version is below OldestIstio. The facts are not checked
// for such an agent.
func (a Agent) TooOld() bool { return isBelow(a.version, OldestIstio) }

// Supports reports whether the named fact holds for this agent. An unknown fact holds
// for no agent.
func (a Agent) Supports(name string) bool {
	return slices.ContainsFunc(facts, func(f Fact) bool {
		return f.Name == name && (f.Since == "" || !isBelow(a.version, f.Since)) && (f.Before == "" || isBelow(a.version, f.Before))
	})
}

// SupportedSince returns the first version for which the named fact holds. Empty
// means every supported version.
func SupportedSince(name string) string {
	i := slices.IndexFunc(facts, func(f Fact) bool { return f.Name == name })
	if i < 0 {
		return ""
	}
	return facts[i].Since
}
