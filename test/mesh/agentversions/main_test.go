// Package agentversions proves that the pilot-agents of every supported Istio work with what
// Isthmus gives them, beside a real API server and a real istiod.
package agentversions_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// istiod is shared: the tests run one after the other. TestMain sets it.
var istiod *istio.Istiod

func TestMain(m *testing.M) {
	os.Exit(istio.Main(m, istio.Options{}, func(_ *rest.Config, i *istio.Istiod) { istiod = i }))
}

// pilotAgentsVariable is the environment variable that names older agents:
// ISTHMUS_PILOT_AGENTS="1.20.8=/some/pilot-agent 1.24.2=/another". An agent is the file
// /usr/local/bin/pilot-agent of an image istio/proxyv2.
const pilotAgentsVariable = "ISTHMUS_PILOT_AGENTS"

// program is a pilot-agent under test.
type program struct {
	// version is the version in the tag of its image.
	version string
	// path is empty for the agent that test/tools/cluster builds.
	path string
}

func (p program) image() string { return "docker.io/istio/proxyv2:" + p.version }

// programs returns the current agent and those that the environment variable names.
func programs(t *testing.T) []program {
	t.Helper()
	_, current, _ := strings.Cut(patches.DefaultProxyImage, ":")
	found := []program{{version: current}}
	for _, entry := range strings.Fields(os.Getenv(pilotAgentsVariable)) {
		version, path, _ := strings.Cut(entry, "=")
		p := program{version, path}
		agent, known := patches.AgentFromImage(p.image())
		require.True(t, known && !agent.TooOld() && path != "", "%s has %q: want a version of %s or later, =, and the path of its pilot-agent",
			pilotAgentsVariable, entry, patches.OldestIstio)
		found = append(found, p)
	}
	return found
}

// label returns the program's version as a part of Kubernetes names.
func (p program) label() string { return fmt.Sprintf("v%s", strings.ReplaceAll(p.version, ".", "-")) }
