package chart

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// schema is the subset of JSON Schema that values.schema.json uses.
type schema struct {
	Ref                  string            `json:"$ref"`
	Type                 any               `json:"type"`
	Description          string            `json:"description"`
	Properties           map[string]schema `json:"properties"`
	Items                *schema           `json:"items"`
	AdditionalProperties any               `json:"additionalProperties"`
	Definitions          map[string]schema `json:"definitions"`
}

func readSchema(t *testing.T) schema {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	require.NoError(t, err)
	var s schema
	require.NoError(t, json.Unmarshal(data, &s))
	return s
}

// at returns the schema of the value at a path of names.
func (s schema) at(t *testing.T, path ...string) schema {
	t.Helper()
	found := s
	for _, name := range path {
		next, ok := found.Properties[name]
		require.True(t, ok, "the schema has no %s", strings.Join(path, "."))
		found = next
		if name, ok := strings.CutPrefix(found.Ref, "#/definitions/"); ok {
			found = s.Definitions[name]
		}
	}
	return found
}

func TestSchemaKnowsEveryValue(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	require.NoError(t, err)
	var values map[string]any
	require.NoError(t, yaml.UnmarshalStrict(data, &values))
	values["global"] = "what Helm passes to a subchart"
	root := readSchema(t)
	var compare func(path []string, values map[string]any)
	compare = func(path []string, values map[string]any) {
		part := root.at(t, path...)
		if len(part.Properties) == 0 {
			return // the keys are the user's
		}
		if len(values) == 0 {
			return // an optional object, such as an issuer
		}
		known, set := slices.Sorted(maps.Keys(part.Properties)), slices.Sorted(maps.Keys(values))
		assert.Subset(t, known, set, strings.Join(path, "."))
		for name, value := range values {
			if object, ok := value.(map[string]any); ok {
				compare(append(slices.Clone(path), name), object)
			}
		}
		if len(path) == 0 || !slices.ContainsFunc(path, isResources) {
			assert.Equal(t, known, set, "values.yaml shows every value of %q", strings.Join(path, "."))
		}
	}
	compare(nil, values)
}

// isResources reports whether a value holds requests and limits, which have a free choice
// of keys.
func isResources(name string) bool { return strings.HasSuffix(strings.ToLower(name), "resources") }

// An object allows no other keys, or its keys are the user's strings, or its description
// says that the API server checks it.
func TestSchemaIsClosed(t *testing.T) {
	var walk func(path string, s schema)
	walk = func(path string, s schema) {
		if s.Type == "object" {
			switch rule := s.AdditionalProperties.(type) {
			case bool:
				assert.False(t, rule, path)
				assert.NotEmpty(t, s.Properties, path)
			case nil:
				assert.Regexp(t, `API server checks it|Helm passes to a subchart`, s.Description, path)
			default:
				assert.Empty(t, s.Properties, path)
			}
		}
		for name, property := range s.Properties {
			walk(path+"."+name, property)
		}
		for name, definition := range s.Definitions {
			walk(path+"#"+name, definition)
		}
		if s.Items != nil {
			walk(path+"[]", *s.Items)
		}
	}
	walk("", readSchema(t))
}

// fieldsOf returns the JSON names of a struct's fields.
func fieldsOf(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestSchemaHasTheFieldsOfTheProgram(t *testing.T) {
	root := readSchema(t)
	keys := func(s schema) []string { return slices.Sorted(maps.Keys(s.Properties)) }
	assert.Equal(t, fieldsOf(reflect.TypeFor[patches.Mesh]()), keys(root.at(t, "mesh")))
	assert.Equal(t, fieldsOf(reflect.TypeFor[policy.Defaults]()), keys(root.at(t, "defaults")))
	profile := append(keys(root.Definitions["profile"]), "name") // the key in profiles
	slices.Sort(profile)
	assert.Equal(t, fieldsOf(reflect.TypeFor[patches.Profile]()), profile)
	assert.Equal(t, fieldsOf(reflect.TypeFor[patches.Criteria]()), keys(root.Definitions["criteria"]))
	entry := root.Definitions["profile"].Properties["env"].Items
	assert.Equal(t, fieldsOf(reflect.TypeFor[patches.EnvVar]()), keys(*entry))
	assert.Equal(t, fieldsOf(reflect.TypeFor[patches.FileFacts]()), keys(root.Definitions["profile"].Properties["files"]))
}

// settingsOf renders the chart and returns its ConfigMap and the settings that
// the program reads from it.
func settingsOf(t *testing.T, values string) (*corev1.ConfigMap, inject.Settings) {
	t.Helper()
	config := findObject[corev1.ConfigMap](t, renderObjects(t, "front", "mesh-tools", values), "ConfigMap", "isthmus-settings")
	settings, err := inject.ParseSettings("settings.yaml", []byte(config.Data["settings.yaml"]))
	require.NoError(t, err)
	return config, settings
}

func TestProgramReadsTheSettings(t *testing.T) {
	_, settings := settingsOf(t, "")
	assert.Equal(t, patches.Mesh{}, settings.Mesh)
	assert.Equal(t, policy.Defaults{
		Mode: policy.Sidecar, Delivery: policy.DeliveryFiles, CertDir: "/etc/istio-certs", SecretName: "istio-certs",
		Source: policy.IstioCA,
	}, settings.Defaults)
	assert.Equal(t, []string{"istio-certs"}, settings.SecretNames)
	assert.Equal(t, []string{"kube-system", "mesh-tools"}, settings.ExcludedNamespaces)
	assert.Empty(t, settings.ImagePullSecrets)
}

func TestProgramReadsEverySetting(t *testing.T) {
	_, settings := settingsOf(t, `
mesh:
  revision: 1-31
  discoveryAddress: istiod-1-31.istio-system.svc:15012
  caAddress: cert-manager-istio-csr.cert-manager.svc:443
  caServerName: ca.example.org
  trustDomain: example.org
  clusterDomain: cluster.example.org
  clusterID: "0123"
  meshID: mesh1
  network: east
  proxyImage: registry.example.org:5000/istio/proxyv2:1.31.1
  imagePullPolicy: Always
  certProvider: custom
  tokenAudience: mesh-ca
  eccSignatureAlgorithm: ECDSA
  eccCurve: P384
  workloadRSAKeySize: "3072"
  rootConfigMap: mesh-root
  rootClusterTrustBundle: istio.io:istiod-ca:root-cert
  maxCertTTL: 12h
defaults: {mode: sidecar, delivery: secret, envoy: true, certDir: /run/certs, certTTL: 6h, secretName: front-certs, source: mirror, tlsContext: true}
controller: {mirrorSecretNames: [istio.default], namespaces: [edge]}
secretNames: [istio-certs, front-certs]
secretLabels: {edge: blue}
tlsContextNames: [mesh-upstream]
tlsContextALPN: istio
sidecar: {imagePullSecrets: [{name: registry}]}
webhook: {excludedNamespaces: [vault]}
`)
	for _, part := range []any{settings, settings.Mesh, settings.Defaults} {
		value := reflect.ValueOf(part)
		for i := range value.NumField() {
			assert.False(t, value.Field(i).IsZero(), "%s of %T", value.Type().Field(i).Name, part)
		}
	}
	assert.Equal(t, "0123", settings.Mesh.ClusterID)
	assert.Equal(t, []string{"kube-system", "mesh-tools", "vault"}, settings.ExcludedNamespaces)
	assert.Equal(t, []string{"registry"}, settings.ImagePullSecrets)
	assert.Equal(t, "ghcr.io/isthmus-mesh/isthmus:0.1.0", settings.PublisherImage)
}

func TestProgramReadsFurtherProfiles(t *testing.T) {
	config, _ := settingsOf(t, `
profiles:
  "42":
    description: "A gateway: every field of a profile."
    match: [{images: [kong/kong-gateway], containers: [proxy], commands: [""], firstWords: [kong], words: [start], env: [KONG_PREFIX], withoutEnv: [KONG_OFF], probePaths: [/status], labels: {app: kong}, restartPolicies: [Always]}]
    not: [{containers: [ingress-controller]}]
    env: [{name: KONG_CERTS, value: "${certDir}", when: files, since: "3.4"}]
    files: {reloadSince: never}
    secret: {forms: [tls, roots], ignoresRoots: true, missesChanges: true, selectors: {labels: A, fields: B, singleNamespace: C, namespace: D}}
  apisix: {description: Another., onlyNamed: true}
`)
	profiles, err := patches.BuiltIn()
	require.NoError(t, err)
	for file, content := range config.Data {
		if file != "settings.yaml" {
			require.NoError(t, profiles.Add(file, []byte(content)))
		}
	}
	require.NotNil(t, profiles.ByName("42"))
	assert.Equal(t, "${certDir}", profiles.ByName("42").Env[0].Value)
	assert.Equal(t, "B", profiles.ByName("42").Secret.Selectors.Fields)
	assert.True(t, profiles.ByName("apisix").OnlyNamed)
}

func TestNamesOfBuiltInProfilesAreTaken(t *testing.T) {
	profiles, err := patches.BuiltIn()
	require.NoError(t, err)
	for _, name := range profiles.Names() {
		_, err := renderChart(t, "front", "mesh-tools", "profiles: {"+name+": {description: Mine., onlyNamed: true}}")
		assert.ErrorContains(t, err, "profiles."+name+" has the name of a built-in profile: choose another name")
	}
}
