package mesh

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/patches"
)

// discoverSettings discovers a cluster and returns the settings of one revision.
func discoverSettings(t *testing.T, client kubernetes.Interface, namespace, revision string, explicit patches.Mesh) (Settings, error) {
	t.Helper()
	s, err := Discover(t.Context(), client, namespace, explicit)
	if err != nil {
		return Settings{}, err
	}
	return s.Settings(revision)
}

func TestDiscoverWithoutIstio(t *testing.T) {
	s, err := discoverSettings(t, newCluster(), "mesh-ns", "", patches.Mesh{Revision: "blue", TrustDomain: "x.example.org"})
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
	assert.Equal(t, []string{"no Istio found in namespace mesh-ns: settings that are not given explicitly have their documented defaults"}, s.Warnings)
}

func TestDiscoverOneOfSeveral(t *testing.T) {
	c := newCluster(append(loadObjects(t, "testdata/revisioned.yaml"), loadObjects(t, "testdata/remote.yaml")...)...)
	_, err := discoverSettings(t, c, "", "", patches.Mesh{})
	assert.EqualError(t, err, "istio in namespace istio-system has the revisions canary, prod and no default one: name one of them with label istio.io/rev, or set the tag default")
	s, err := discoverSettings(t, c, "", "prod", patches.Mesh{Revision: "canary"})
	require.NoError(t, err)
	assert.Equal(t, "prod", s.Mesh.Revision)
	s, err = discoverSettings(t, c, "", "", patches.Mesh{Revision: "canary"})
	require.NoError(t, err)
	assert.Equal(t, "canary", s.Mesh.Revision)
}

func TestDiscoverReportsForbiddenObjects(t *testing.T) {
	c := newCluster(loadObjects(t, "testdata/istio-1.20.yaml")...)
	c.deny("deployments", forbidden("deployments"))
	s, err := discoverSettings(t, c, "", "", patches.Mesh{})
	require.NoError(t, err)
	assert.Zero(t, s.Mesh.MaxCertTTL)
	require.Len(t, s.Warnings, 2)
	assert.Contains(t, s.Warnings[1], "no role says so")

	c.deny("deployments", nil)
	c.deny("mutatingwebhookconfigurations", forbidden("mutatingwebhookconfigurations"))
	s, err = discoverSettings(t, c, "", "", patches.Mesh{})
	require.NoError(t, err, "few users may read the cluster's webhooks")
	require.Len(t, s.Warnings, 1)
	assert.Contains(t, s.Warnings[0], "istio's revision tags and injectors are not known: mutatingwebhookconfigurations is forbidden: no role says so")
	_, err = discoverSettings(t, c, "", "prod", patches.Mesh{})
	assert.EqualError(t, err, `istio revision "prod" is not installed in namespace istio-system, only default`+
		" (its tags are not known: mutatingwebhookconfigurations is forbidden: no role says so)")

	c.deny("mutatingwebhookconfigurations", errors.New("connection refused"))
	_, err = discoverSettings(t, c, "", "", patches.Mesh{})
	assert.EqualError(t, err, "read the MutatingWebhookConfigurations of Istio's injector: connection refused")

	c.deny("deployments", errors.New("connection refused"))
	_, err = discoverSettings(t, c, "", "", patches.Mesh{})
	assert.EqualError(t, err, "read istiod's Deployments in namespace istio-system: connection refused")

	c.deny("configmaps", forbidden("configmaps"))
	_, err = discoverSettings(t, c, "", "", patches.Mesh{})
	assert.ErrorContains(t, err, "read Istio's ConfigMaps in namespace istio-system: configmaps is forbidden")

	_, err = discoverSettings(t, c, "", "", patches.Mesh{ImagePullPolicy: "Sometimes"})
	assert.ErrorContains(t, err, `mesh settings: imagePullPolicy "Sometimes"`)
}
