package policy

import (
	"path"
	"slices"
	"strings"
)

// defaultStatusPort is the agent's port by default. Unlike the other ports of a
// sidecar a pod may give it to the agent explicitly.
const defaultStatusPort = 15020

// sidecarPorts are the ports that Istio's sidecar, agent and Envoy, listens on
// (Istio's documentation, "Ports used by Istio").
var sidecarPorts = []int32{15000, 15001, 15004, 15006, 15008, defaultStatusPort, 15021, 15053, 15090}

// reservedPorts are the sidecarPorts that a pod may not give to the agent: all but
// the agent's default.
var reservedPorts = slices.DeleteFunc(slices.Clone(sidecarPorts), func(port int32) bool { return port == defaultStatusPort })

// envoyPorts are the sidecarPorts on which Envoy, or the agent for it, listens beside the
// status port: the admin interface, captured traffic, the agent's debug interface, health
// checks and metrics. 15008 and 15053 are used only where the mesh asks for them.
var envoyPorts = []int32{15000, 15001, 15004, 15006, 15021, 15090}

// EnvoyPorts returns the ports that the sidecar takes beside its status port if Envoy runs
// in it.
func EnvoyPorts() []int32 { return slices.Clone(envoyPorts) }

// IsSidecarPort reports whether Istio's sidecar itself listens on the port.
func IsSidecarPort(port int32) bool { return slices.Contains(sidecarPorts, port) }

// agentDirectories are the directories that Istio's agent reads, writes or mounts.
var agentDirectories = []struct {
	path string
	// reserved directories exclude a certificate directory at, above and below
	// themselves.
	reserved bool
	// mounted means that Istio's templates mount a volume there in the sidecar.
	mounted bool
}{
	{"/var/run/secrets/istio", true, true},
	{"/var/run/secrets/istio/crl", false, true},
	{"/var/run/secrets/tokens", true, true},
	// A restarted agent would treat its own output there as certificates that someone
	// else provides, and would never rotate them.
	{"/var/run/secrets/workload-spiffe-credentials", true, true},
	{"/var/run/secrets/workload-spiffe-uds", true, true},
	{"/var/run/secrets/credential-uds", true, true},
	{"/var/run/secrets/istio-dns", false, true},
	{"/var/run/secrets/kubernetes.io", true, false},
	{"/var/run/sds", false, true},
	{"/var/run/sds/tokens", false, true},
	{"/etc/istio", true, false},
	{"/etc/istio/proxy", false, true},
	{"/etc/istio/pod", false, true},
	{"/etc/istio/config", false, true},
	{"/etc/certs", true, false},
	{"/var/lib/istio", true, false},
	{"/var/lib/istio/data", false, true},
	{"/usr/local/bin", true, false},
}

// reservedDirs are the reserved agentDirectories.
var reservedDirs = reservedDirectories()

func reservedDirectories() []string {
	var dirs []string
	for _, d := range agentDirectories {
		if d.reserved {
			dirs = append(dirs, d.path)
		}
	}
	return dirs
}

// IsAgentMount reports whether Istio's templates mount a volume at this directory of
// the sidecar.
func IsAgentMount(dir string) bool {
	dir = path.Clean(dir)
	if strings.HasPrefix(dir, "/run/") { // in most images /var/run links to /run
		dir = "/var" + dir
	}
	for _, d := range agentDirectories {
		if d.path == dir {
			return d.mounted
		}
	}
	return false
}
