package patches

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// OldestIstio is the first version of Istio that Isthmus supports.
const OldestIstio = "1.20"

// Facts that decide something; Agent.Has asks for them.
const (
	// DebugPort is the agent's port 15004, and the variable that keeps it closed.
	DebugPort = "PROXY_XDS_DEBUG_VIA_AGENT"
	// NoInboundCapture is the annotation by which an ambient pod keeps its
	// inbound traffic to itself.
	NoInboundCapture = "ambient.istio.io/bypass-inbound-capture"
)

// Fact is something that Isthmus relies on in Istio, and the versions in which it
// holds.
type Fact struct {
	// Name is the flag, variable, path or annotation, or what is done.
	Name string
	// Since is the first version in which it holds; empty means all of those that
	// are supported.
	Since string
	// Before is the first version in which it holds no more; empty means that it
	// holds in the current one.
	Before string
	// Says what it is for, or does.
	Says string
	// File and Symbol are the source: a file of istio.io/istio, and a text in it.
	File, Symbol string
}

// Facts returns everything that Isthmus relies on in Istio: what sidecar.yaml
// gives the agent, what else the pod needs of it, and where versions differ.
func Facts() (settings, needs, differences []Fact) { return given, promised, differing }

var facts = slices.Concat(given, promised, differing)

// Agent is what is known of the pilot-agent in an image.
type Agent struct {
	// Version is what the image's tag says, such as 1.20.8; empty when it says
	// none.
	Version string

	version [3]int
}

// AgentOf reads the version of pilot-agent off an image's tag: 1.24.3-distroless
// and v1.24.3 are 1.24.3. A tag that is no version of Istio (latest, none beside
// a digest, another product's) is not known, and counts as current.
func AgentOf(image string) (agent Agent, known bool) {
	t := strings.TrimPrefix(tag(image), "v")
	v, ok := version(t)
	if !ok || v[0] != 1 || !strings.Contains(t, ".") {
		return Agent{version: [3]int{math.MaxInt, 0, 0}}, false
	}
	text := fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
	if minor := fmt.Sprintf("%d.%d", v[0], v[1]); t == minor || strings.HasPrefix(t, minor+"-") {
		text = minor
	}
	return Agent{Version: text, version: v}, true
}

// TooOld reports whether the version is below OldestIstio. What holds for such an
// agent is not known.
func (a Agent) TooOld() bool { return isBelow(a.version, OldestIstio) }

// Has reports whether a fact holds for this agent. A fact that nobody knows holds
// for none.
func (a Agent) Has(name string) bool {
	return slices.ContainsFunc(facts, func(f Fact) bool {
		return f.Name == name && (f.Since == "" || !isBelow(a.version, f.Since)) && (f.Before == "" || isBelow(a.version, f.Before))
	})
}

// Since is the first version in which a fact holds; empty means all.
func Since(name string) string {
	i := slices.IndexFunc(facts, func(f Fact) bool { return f.Name == name })
	if i < 0 {
		return ""
	}
	return facts[i].Since
}

// Image is the image that the sidecar runs: the pod's override, or the mesh's.
func (p Params) Image() string {
	if p.Overrides.Image != "" {
		return p.Overrides.Image
	}
	return p.Mesh.ProxyImage
}
