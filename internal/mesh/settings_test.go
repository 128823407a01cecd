package mesh

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/patches"
)

func TestTextFieldsCoverMesh(t *testing.T) {
	var want, got []string
	for f := range reflect.TypeFor[patches.Mesh]().Fields() {
		want = append(want, strings.TrimSuffix(f.Tag.Get("json"), ",omitempty"))
	}
	for _, f := range textFields() {
		got = append(got, f.name)
	}
	assert.Equal(t, want, append(got, fieldMaxCertTTL), "a field of patches.Mesh is missing")
}

func TestExplicitOverridesDiscoveredOverridesDefault(t *testing.T) {
	found, err := controlPlane(t, "testdata/revisioned.yaml").Settings()
	require.NoError(t, err)
	used := found.withExplicit(patches.Mesh{
		Revision:      "another",
		TrustDomain:   "explicit.example.org",
		RootConfigMap: "explicit-root",
		MaxCertTTL:    patches.Duration(time.Hour),
	})
	assert.Equal(t, "canary", used.Mesh.Revision, "the explicit revision only selects the default one")
	assert.Equal(t, []string{
		"revision=canary (ConfigMap istio-system/istio-sidecar-injector-canary metadata)",
		"discoveryAddress=istiod-canary.istio-system.svc:15012 (ConfigMap istio-system/istio-canary mesh.defaultConfig.discoveryAddress)",
		"caAddress=cert-manager-istio-csr.cert-manager.svc:443 (ConfigMap istio-system/istio-sidecar-injector-canary values.global.caAddress)",
		"trustDomain=explicit.example.org (flag or settings file)",
		"clusterDomain=corp.example (ConfigMap istio-system/istio-sidecar-injector-canary values.global.proxy.clusterDomain)",
		"clusterID=east (ConfigMap istio-system/istio-sidecar-injector-canary values.global.multiCluster.clusterName)",
		"meshID=mesh1 (ConfigMap istio-system/istio-sidecar-injector-canary values.global.meshID)",
		"network=net-a (ConfigMap istio-system/istio-sidecar-injector-canary values.global.network)",
		"proxyImage=registry.example.org:5000/mirror/istio/proxyv2:1.31.1-distroless (ConfigMap istio-system/istio-sidecar-injector-canary values.global.{hub,tag})",
		"imagePullPolicy=IfNotPresent (ConfigMap istio-system/istio-sidecar-injector-canary values.global.imagePullPolicy)",
		"certProvider=istiod (ConfigMap istio-system/istio-sidecar-injector-canary values.global.pilotCertProvider)",
		"tokenAudience=our-ca (ConfigMap istio-system/istio-sidecar-injector-canary values.global.sds.token.aud)",
		"rootConfigMap=explicit-root (flag or settings file)",
		"maxCertTTL=1h0m0s (flag or settings file)",
	}, used.Describe(), "an explicit root ConfigMap also replaces the bundle that was found")
}

func TestCAAddressFollowsExplicitDiscoveryAddress(t *testing.T) {
	found, err := controlPlane(t, "testdata/default.yaml").Settings()
	require.NoError(t, err)
	used := found.withExplicit(patches.Mesh{DiscoveryAddress: "elsewhere.example.org:15012"})
	assert.Equal(t, "elsewhere.example.org:15012", used.Mesh.CAAddress)
	assert.Equal(t, SourceDefault, used.Sources["caAddress"])
}
