package mesh

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/patches"
)

func TestDiscoverWithoutIstio(t *testing.T) {
	s, err := Discover(t.Context(), newCluster(), "mesh-ns", "", patches.Mesh{Revision: "blue", TrustDomain: "x.example.org"})
	require.NoError(t, err)
	assert.Equal(t, []string{
		"revision=blue (flag or settings file)",
		"discoveryAddress=istiod-blue.mesh-ns.svc:15012 (default)",
		"caAddress=istiod-blue.mesh-ns.svc:15012 (default)",
		"trustDomain=x.example.org (flag or settings file)",
		"clusterDomain=cluster.local (default)",
		"meshID=x.example.org (default)",
		"proxyImage=" + patches.DefaultProxyImage + " (default)",
		"certProvider=istiod (default)",
		"tokenAudience=istio-ca (default)",
		"rootConfigMap=istio-ca-root-cert (default)",
	}, s.Describe())
	assert.Equal(t, []string{"no Istio found in namespace mesh-ns: what is not given explicitly has its documented default"}, s.Warnings)
}

func TestDiscoverOneOfSeveral(t *testing.T) {
	c := newCluster(append(load(t, "testdata/revisioned.yaml"), load(t, "testdata/remote.yaml")...)...)
	_, err := Discover(t.Context(), c, "", "", patches.Mesh{})
	assert.EqualError(t, err, "istio in namespace istio-system has the revisions canary, prod and no default one: name one of them")
	s, err := Discover(t.Context(), c, "", "prod", patches.Mesh{Revision: "canary"})
	require.NoError(t, err)
	assert.Equal(t, "prod", s.Mesh.Revision)
	s, err = Discover(t.Context(), c, "", "", patches.Mesh{Revision: "canary"})
	require.NoError(t, err)
	assert.Equal(t, "canary", s.Mesh.Revision)
}

func TestDiscoverSaysWhatItCouldNotRead(t *testing.T) {
	c := newCluster(load(t, "testdata/istio-1.20.yaml")...)
	c.deny("deployments", forbidden("deployments"))
	s, err := Discover(t.Context(), c, "", "", patches.Mesh{})
	require.NoError(t, err)
	assert.Zero(t, s.Mesh.MaxCertTTL)
	require.Len(t, s.Warnings, 2)
	assert.Contains(t, s.Warnings[1], "no role says so")

	c.deny("deployments", errors.New("connection refused"))
	_, err = Discover(t.Context(), c, "", "", patches.Mesh{})
	assert.EqualError(t, err, "read istiod's Deployments in namespace istio-system: connection refused")

	c.deny("configmaps", forbidden("configmaps"))
	_, err = Discover(t.Context(), c, "", "", patches.Mesh{})
	assert.ErrorContains(t, err, "read Istio's ConfigMaps in namespace istio-system: configmaps is forbidden")

	_, err = Discover(t.Context(), c, "", "", patches.Mesh{ImagePullPolicy: "Sometimes"})
	assert.ErrorContains(t, err, `mesh settings: imagePullPolicy "Sometimes"`)
}
