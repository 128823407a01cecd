package mesh

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
)

func TestSettingsErrorsNameObjectPathAndValue(t *testing.T) {
	const (
		injector = "ConfigMap istio-system/istio-sidecar-injector "
		mesh     = "ConfigMap istio-system/istio "
	)
	tests := map[string]struct {
		values, mesh string
		want         string
	}{
		"if the values are not YAML, expect their path": {
			values: "{global: [}",
			want:   injector + "values: not YAML: yaml: did not find expected node content",
		},
		"if the mesh is not YAML, expect its path": {
			mesh: "trustDomain: 'x\n",
			want: mesh + "mesh: not YAML: yaml: line 2: found unexpected end of stream",
		},
		"if the values are a sentence, expect the wanted type": {
			values: "just a sentence",
			want:   injector + "values: want a mapping, got string",
		},
		"if a string is a mapping, expect its path": {
			values: "global: {hub: {a: b}}",
			want:   injector + "values.global.hub: want a string, got object",
		},
		"if a string is a number, expect its path": {
			mesh: "trustDomain: 7",
			want: mesh + "mesh.trustDomain: want a string, got number",
		},
		"if a mapping is a string, expect its path": {
			mesh: "defaultConfig: everything",
			want: mesh + "mesh.defaultConfig: want a mapping, got string",
		},
		"if the tag is a list, expect the wanted type": {
			values: "global: {tag: [1.31.1]}",
			want:   injector + "values.global.tag: want a string, got array",
		},
		"if the image is invalid, expect the reference": {
			values: "global: {hub: Docker.IO/Istio, tag: 1.31.1}",
			want:   injector + `values.global.{hub,tag}: proxyImage "Docker.IO/Istio/proxyv2:1.31.1": invalid reference format: repository name (Istio/proxyv2) must be lowercase`,
		},
		"if the whole image is invalid, expect the reference": {
			values: "global: {proxy: {image: 'a/b:c:d'}}",
			want:   injector + `values.global.proxy.image: proxyImage "a/b:c:d": invalid reference format`,
		},
		"if there is a hub and no tag, expect both names": {
			values: "global: {hub: docker.io/istio}",
			want:   injector + `values: global.hub is "docker.io/istio" and global.tag is empty: the proxy image needs both`,
		},
		"if there is a tag and no hub, expect both names": {
			values: "global: {tag: 1.31.1}",
			want:   injector + `values: global.tag is "1.31.1" and global.hub is empty: the proxy image needs both`,
		},
		"if the pull policy is unknown, expect the known ones": {
			values: "global: {imagePullPolicy: Sometimes}",
			want:   injector + `values.global.imagePullPolicy: imagePullPolicy "Sometimes": want Always, IfNotPresent or Never`,
		},
		"if the CA's address has no port, expect its form": {
			values: "global: {caAddress: ca.example.org}",
			want:   injector + `values.global.caAddress: caAddress "ca.example.org": want host:port`,
		},
		"if istiod's address has no port, expect its form": {
			mesh: "defaultConfig: {discoveryAddress: istiod}",
			want: mesh + `mesh.defaultConfig.discoveryAddress: discoveryAddress "istiod": want host:port`,
		},
		"if the trust domain is a SPIFFE ID, expect a domain": {
			mesh: "trustDomain: spiffe://x",
			want: mesh + `mesh.trustDomain: trustDomain "spiffe://x": want a SPIFFE trust domain such as cluster.local`,
		},
		"if the name of the root is invalid, expect the rule": {
			values: "global: {trustBundleName: Our_Root}",
			want:   injector + `values.global.trustBundleName: trust bundle name "Our_Root": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := controlPlane(t, "testdata/default.yaml")
			if tt.values != "" {
				p.Injector.Data[keyValues] = tt.values
			}
			if tt.mesh != "" {
				p.MeshConfig.Data[keyMesh] = tt.mesh
			}
			_, err := p.Settings()
			require.Error(t, err)
			assert.True(t, strings.HasPrefix(err.Error(), tt.want), "%s", err)
		})
	}
}

func TestSettingsReportAllErrors(t *testing.T) {
	p := controlPlane(t, "testdata/default.yaml")
	p.Injector.Data[keyValues] = "global: {caAddress: ca, imagePullPolicy: Sometimes}"
	p.MeshConfig.Data[keyMesh] = "trustDomain: a/b"
	_, err := p.Settings()
	assert.ErrorContains(t, err, "values.global.caAddress")
	assert.ErrorContains(t, err, "values.global.imagePullPolicy")
	assert.ErrorContains(t, err, "mesh.trustDomain")
}

func TestSettingsWithoutKeys(t *testing.T) {
	p := controlPlane(t, "testdata/default.yaml")
	p.MeshConfig.Data = nil
	s, err := p.Settings()
	require.NoError(t, err, "istiod has a built-in mesh configuration")
	assert.Equal(t, "istiod.istio-system.svc:15012", s.Mesh.DiscoveryAddress)
	assert.Empty(t, s.Mesh.TrustDomain)

	p.Injector.Data = nil
	_, err = p.Settings()
	assert.EqualError(t, err, "ConfigMap istio-system/istio-sidecar-injector values: missing")

	_, err = ControlPlane{Revision: "none"}.Settings()
	assert.EqualError(t, err, `istio revision "none" has no ConfigMap`)
}

func TestTrustDomainFollowsIstiod(t *testing.T) {
	tests := map[string]struct {
		mesh *string
		want string
	}{
		"if the mesh names one, expect it":                   {new("trustDomain: mesh.example.org"), "mesh.example.org"},
		"if the mesh names none, expect Istio's default":     {new("rootNamespace: x"), ""},
		"if the mesh names an empty one, expect the chart's": {new(`trustDomain: ""`), "chart.example.org"},
		"if there is no mesh ConfigMap, expect the chart's":  {nil, "chart.example.org"},
		"if the mesh is a comment, expect Istio's default":   {new("# nothing"), ""},
		"if the mesh names null, expect Istio's default":     {new("trustDomain: null"), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := ControlPlane{
				Namespace: "istio-system",
				Injector:  &corev1.ConfigMap{Data: map[string]string{keyValues: "global: {trustDomain: chart.example.org}"}},
			}
			if tt.mesh != nil {
				p.MeshConfig = &corev1.ConfigMap{Data: map[string]string{keyMesh: *tt.mesh}}
			}
			s, err := p.Settings()
			require.NoError(t, err)
			assert.Equal(t, tt.want, s.Mesh.TrustDomain)
		})
	}
}

func TestISTIODSANNamesTheAuthority(t *testing.T) {
	const named = "ISTIOD_SAN: istiod.istio-system.svc"
	for name, tt := range map[string]struct {
		metadata string
		explicit patches.Mesh
		want     string
	}{
		"if the authority is istiod, expect the name":                {named, patches.Mesh{}, "istiod.istio-system.svc"},
		"if CA_ADDR is an IP address, expect the name":               {named + ", CA_ADDR: '192.0.2.10:15012'", patches.Mesh{}, "istiod.istio-system.svc"},
		"if CA_ADDR is an IPv6 address, expect the name":             {named + ", CA_ADDR: '[2001:db8::1]:15012'", patches.Mesh{}, "istiod.istio-system.svc"},
		"if CA_ADDR is another's host, expect none":                  {named + ", CA_ADDR: 'istio-csr.cert-manager.svc:443'", patches.Mesh{}, ""},
		"if an explicit address is another's host, expect none":      {named, patches.Mesh{CAAddress: "istio-csr.cert-manager.svc:443"}, ""},
		"if an explicit address is an IP address, expect the name":   {named, patches.Mesh{CAAddress: "192.0.2.10:15012"}, "istiod.istio-system.svc"},
		"if an explicit name is given, expect it":                    {named, patches.Mesh{CAServerName: "ours"}, "ours"},
		"if an explicit name is given with an address, expect it":    {named, patches.Mesh{CAServerName: "ours", CAAddress: "ca.example:443"}, "ours"},
		"if no name is set, expect none and so the address' own one": {"CA_ADDR: '192.0.2.10:15012'", patches.Mesh{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := controlPlane(t, "testdata/default.yaml")
			p.MeshConfig.Data[keyMesh] = "defaultConfig: {proxyMetadata: {" + tt.metadata + "}}"
			s, err := p.Settings()
			require.NoError(t, err)
			assert.Equal(t, tt.want, s.withExplicit(tt.explicit).Mesh.CAServerName)
		})
	}
}

func TestKeySettingsAreRead(t *testing.T) {
	const metadata = "ConfigMap istio-system/istio mesh.defaultConfig.proxyMetadata"
	for name, tt := range map[string]struct {
		metadata string
		want     patches.Mesh
		warning  string
	}{
		"if nothing is set, expect nothing": {"", patches.Mesh{}, ""},
		"if ECDSA of P384 is set, expect it": {
			"ECC_SIGNATURE_ALGORITHM: ECDSA, ECC_CURVE: P384", patches.Mesh{ECCSignatureAlgorithm: "ECDSA", ECCCurve: "P384"}, "",
		},
		"if a size of RSA keys is set, expect it":         {"WORKLOAD_RSA_KEY_SIZE: '4096'", patches.Mesh{WorkloadRSAKeySize: "4096"}, ""},
		"if it is set without quotes, expect it as well":  {"WORKLOAD_RSA_KEY_SIZE: 4096", patches.Mesh{WorkloadRSAKeySize: "4096"}, ""},
		"if the curve is not known, expect a warning too": {"ECC_SIGNATURE_ALGORITHM: ECDSA, ECC_CURVE: P521", patches.Mesh{ECCSignatureAlgorithm: "ECDSA", ECCCurve: "P521"}, `ECC_CURVE "P521": want P256 or P384`},
		"if the size is not known, expect a warning too":  {"WORKLOAD_RSA_KEY_SIZE: '512'", patches.Mesh{WorkloadRSAKeySize: "512"}, `WORKLOAD_RSA_KEY_SIZE "512": want a number of bits from 2048 to 8192`},
	} {
		t.Run(name, func(t *testing.T) {
			p := controlPlane(t, "testdata/default.yaml")
			p.MeshConfig.Data[keyMesh] = "defaultConfig: {proxyMetadata: {" + tt.metadata + "}}"
			s, err := p.Settings()
			require.NoError(t, err)
			m := s.Mesh
			assert.Equal(t, tt.want, patches.Mesh{ECCSignatureAlgorithm: m.ECCSignatureAlgorithm, ECCCurve: m.ECCCurve, WorkloadRSAKeySize: m.WorkloadRSAKeySize})
			if tt.warning == "" {
				assert.Empty(t, s.Warnings)
			} else {
				assert.Equal(t, []string{metadata + ": " + tt.warning + ": the controller requests no certificate with it"}, s.Warnings)
			}
		})
	}
}

func TestProxyImage(t *testing.T) {
	tests := map[string]struct {
		values, imageType string
		want              string
	}{
		"if no value is set, expect no image": {"{}", "", ""},
		"if the image has no name, expect proxyv2": {
			"global: {hub: docker.io/istio, tag: 1.31.1}", "", "docker.io/istio/proxyv2:1.31.1",
		},
		"if the variant is set, expect it as suffix": {
			"global: {hub: h, tag: 1.31.1, variant: distroless}", "", "h/proxyv2:1.31.1-distroless",
		},
		"if the image type is set, expect it over the variant": {
			"global: {hub: h, tag: 1.31.1, variant: distroless}", "debug", "h/proxyv2:1.31.1-debug",
		},
		"if the tag has a type, expect it replaced": {
			"global: {hub: h, tag: 1.31.1-debug}", "distroless", "h/proxyv2:1.31.1-distroless",
		},
		"if the tag has a type and no other is set, expect it kept": {
			"global: {hub: h, tag: 1.31.1-debug}", "", "h/proxyv2:1.31.1-debug",
		},
		"if the type is default, expect none": {
			"global: {hub: h, tag: 1.31.1-distroless}", "default", "h/proxyv2:1.31.1",
		},
		"if the tag is a number, expect it as text": {
			"global: {hub: h, tag: 1.31}", "", "h/proxyv2:1.31",
		},
		"if the image has a slash, expect it alone": {
			"global: {hub: h, tag: t, variant: debug, proxy: {image: r.example.org/p:v}}", "distroless", "r.example.org/p:v",
		},
		"if the image has another name, expect it under the hub": {
			"global: {hub: h, tag: t, proxy: {image: ours}}", "", "h/ours:t",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var v injectorValues
			require.NoError(t, decode(&corev1.ConfigMap{Data: map[string]string{keyValues: tt.values}}, keyValues, &v))
			got, err := proxyImage(v, tt.imageType)
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestMaxCertTTL(t *testing.T) {
	tests := map[string]struct {
		env     string
		want    string
		warning string
	}{
		"if it is set, expect it":                          {env: "90m", want: "1h30m0s"},
		"if it is empty, expect istiod's default":          {env: "", want: "2160h0m0s"},
		"if it is not a duration, expect istiod's default": {"90d", "2160h0m0s", `Deployment istio-system/istiod MAX_WORKLOAD_CERT_TTL is "90d", which is not a duration such as 24h: istiod uses 2160h0m0s instead`},
		"if it is negative, expect none":                   {"-1h", "0s", "Deployment istio-system/istiod MAX_WORKLOAD_CERT_TTL is -1h: istiod refuses every certificate request that names a lifetime"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := controlPlane(t, "testdata/default.yaml")
			c := &p.Istiod.Spec.Template.Spec.Containers[0]
			c.Env = append(c.Env, corev1.EnvVar{Name: "MAX_WORKLOAD_CERT_TTL", Value: tt.env})
			s, err := p.Settings()
			require.NoError(t, err)
			assert.Equal(t, tt.want, s.Mesh.MaxCertTTL.String())
			if tt.warning == "" {
				assert.Empty(t, s.Warnings)
			} else {
				assert.Equal(t, []string{tt.warning}, s.Warnings)
			}
		})
	}
}

// FuzzSettings looks for ConfigMaps that cause a panic, or settings that
// patches.Mesh.Validate rejects.
func FuzzSettings(f *testing.F) {
	for _, file := range []string{"default", "revisioned", "istio-1.20", "by-hand", "remote"} {
		p := controlPlane(f, "testdata/"+file+".yaml")
		f.Add(p.Injector.Data[keyValues], p.MeshConfig.Data[keyMesh], "24h")
	}
	f.Add("global: {tag: [}", "trustDomain: 7", "90d")
	base := controlPlane(f, "testdata/default.yaml")
	f.Fuzz(func(t *testing.T, values, mesh, ttl string) {
		p := base
		p.Injector, p.MeshConfig, p.Istiod = p.Injector.DeepCopy(), p.MeshConfig.DeepCopy(), p.Istiod.DeepCopy()
		p.Injector.Data[keyValues], p.MeshConfig.Data[keyMesh] = values, mesh
		c := &p.Istiod.Spec.Template.Spec.Containers[0]
		c.Env = append(c.Env, corev1.EnvVar{Name: "MAX_WORKLOAD_CERT_TTL", Value: ttl})
		s, err := p.Settings()
		if err != nil {
			assert.Contains(t, err.Error(), "ConfigMap istio-system/")
			return
		}
		assert.NoError(t, s.withExplicit(patches.Mesh{}).Mesh.Validate())
	})
}
