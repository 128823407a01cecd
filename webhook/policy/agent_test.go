package policy

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestAgentDirectories fixes both uses of the one list.
func TestAgentDirectories(t *testing.T) {
	assert.Equal(t, []string{
		"/var/run/secrets/istio", "/var/run/secrets/tokens",
		"/var/run/secrets/workload-spiffe-credentials", "/var/run/secrets/workload-spiffe-uds",
		"/var/run/secrets/credential-uds", "/var/run/secrets/kubernetes.io",
		"/etc/istio", "/etc/certs", "/var/lib/istio", "/usr/local/bin",
	}, reservedDirs)
	for dir, want := range map[string]bool{
		"/var/run/secrets/istio": true, "/run/secrets/istio/": true, "/var/run/sds/tokens": true, "/var/lib/istio/data": true,
		"/var/lib/istio": false, "/etc/certs": false, "/etc/istio": false, "/etc/istio/other": false,
	} {
		assert.Equal(t, want, IsAgentMount(dir), dir)
	}
}

// TestSidecarPorts fixes both uses of the one list.
func TestSidecarPorts(t *testing.T) {
	assert.Equal(t, []int32{15000, 15001, 15004, 15006, 15008, 15021, 15053, 15090}, reservedPorts)
	assert.True(t, IsSidecarPort(15020))
	assert.False(t, IsSidecarPort(8080))
}
