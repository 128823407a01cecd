package inject_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

func TestParseSettings(t *testing.T) {
	s, err := inject.ParseSettings("s.yaml", []byte("mesh: {trustDomain: corp.example, maxCertTTL: 1h}\ndefaults: {delivery: secret}\nsecretNames: [a, istio-certs]\n"))
	require.NoError(t, err)
	assert.Equal(t, "corp.example", s.Mesh.TrustDomain)
	assert.Equal(t, "1h0m0s", s.Mesh.MaxCertTTL.String())
	assert.Equal(t, []string{"a", "istio-certs"}, s.SecretNames)
	for name, empty := range map[string]string{"nothing": "", "a comment": "# none\n", "null": "null\n", "no fields": "{}\n"} {
		s, err := inject.ParseSettings("s.yaml", []byte(empty))
		require.NoError(t, err, name)
		assert.Equal(t, inject.Settings{}, s, name)
	}
}

func TestParseSettingsErrors(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"no YAML":            {"mesh: [", "s.yaml: line 1: did not find expected node content"},
		"a list":             {"- a\n", "s.yaml:1: want a mapping with the fields of a settings file"},
		"unknown field":      {"defaults: {}\nmessh: {}\n", `s.yaml:2: a settings file has no field "messh"; known are controllerNamespaces, defaults, excludedNamespaces, imagePullSecrets, mesh, mirrorSecretNames, publisherImage, resources, secretLabels, secretNames, tlsContextALPN, tlsContextNames`},
		"unknown mesh field": {"mesh:\n  trustDomian: x\n", `s.yaml:2: mesh has no field "trustDomian"; known are caAddress, caServerName, certProvider, clusterDomain, clusterID, discoveryAddress, eccCurve, eccSignatureAlgorithm, imagePullPolicy, maxCertTTL, meshID, network, proxyImage, revision, rootClusterTrustBundle, rootConfigMap, tokenAudience, trustDomain, workloadRSAKeySize`},
		"field twice":        {"mesh: {}\nmesh: {}\n", `s.yaml:2: a settings file has the field "mesh" twice`},
		"wrong type":         {"secretNames: istio-certs\n", "s.yaml:1: json: cannot unmarshal string"},
		"bad duration":       {"mesh: {maxCertTTL: 1 day}\n", `s.yaml:1: "1 day" is not a duration such as 24h`},
		"no host":            {"mesh: {caAddress: istiod}\n", `s.yaml: mesh: caAddress "istiod": want host:port`},
		"no image":           {"mesh: {proxyImage: Not An Image}\n", `s.yaml: mesh: proxyImage "Not An Image": `},
		"pull policy":        {"mesh: {imagePullPolicy: Sometimes}\n", `s.yaml: mesh: imagePullPolicy "Sometimes": want Always, IfNotPresent or Never`},
		"mode":               {"defaults: {mode: waypoint}\n", `s.yaml: defaults: default for isthmus.dev/mode: "waypoint" is not allowed; want sidecar, istio, secret or ambient`},
		"publisher's image":  {"publisherImage: Not An Image\n", `s.yaml: publisherImage "Not An Image": `},
		"source":             {"defaults: {source: vault}\n", `s.yaml: defaults: default for isthmus.dev/source: "vault" is not allowed; want istio-ca, agent, cert-manager or mirror`},
		"secret name":        {"secretNames: [A_B]\n", `s.yaml: secretNames[0] "A_B": a lowercase RFC 1123 subdomain`},
		"mirrored secret":    {"mirrorSecretNames: [A_B]\n", `s.yaml: mirrorSecretNames[0] "A_B": a lowercase RFC 1123 subdomain`},
		"TLSContext name":    {"tlsContextNames: [A_B]\n", `s.yaml: tlsContextNames[0] "A_B": a lowercase RFC 1123 subdomain`},
		"TLSContext true":    {"tlsContextNames: [mesh, \"true\"]\n", `s.yaml: tlsContextNames[1] "true": it is a value of isthmus.dev/tls-context with another meaning; choose another name`},
		"companion's name":   {"tlsContextNames: [mesh-tcp, mesh]\n", `s.yaml: tlsContextNames[1] "mesh": its companion for TCP has the name mesh-tcp, which is in the list too; choose another name`},
		"blank in ALPN":      {"tlsContextALPN: istio, h2\n", `s.yaml: tlsContextALPN "istio, h2": want names separated by commas, without blanks`},
		"empty ALPN":         {"tlsContextALPN: \"istio,\"\n", `s.yaml: tlsContextALPN "istio,": want names separated`},
		"no label":           {"secretLabels: {edge: not a label}\n", `s.yaml: secretLabels: edge=not a label: a valid label must be`},
		"our own label":      {"secretLabels: {app.kubernetes.io/managed-by: helm}\n", `s.yaml: secretLabels: app.kubernetes.io/managed-by=helm: Isthmus itself sets labels of that name; choose another`},
		"resources":          {"resources:\n  sidecar: {limits: {cpu: lots}}\n", `s.yaml: resources: sidecar: limits.cpu "lots": want a positive quantity such as 100m or 128Mi`},
		"resources of zero":  {"resources: {envoy: {requests: {memory: 0}}}\n", `s.yaml: resources: envoy: requests.memory "0": want a positive quantity such as 100m or 128Mi`},
		"request over limit": {"resources: {publisher: {requests: {cpu: 1}, limits: {cpu: 500m}}}\n", `s.yaml: resources: publisher: requests.cpu 1 is above limits.cpu 500m; want at most the limit`},
		"unknown resource":   {"resources: {sidecar: {limits: {gpu: 1}}}\n", `s.yaml:1: limits has no field "gpu"; known are cpu, ephemeral-storage, memory`},
		"default secret":     {"defaults: {secretName: x}\n", `s.yaml: defaults: default for isthmus.dev/secret-name: "x" is not allowed; want one of the names that the chart allows: istio-certs`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := inject.ParseSettings("s.yaml", []byte(c.yaml))
			require.Error(t, err)
			assert.Contains(t, err.Error(), c.want)
		})
	}
}
