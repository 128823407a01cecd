package patches_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/patches"
)

// TestCandidates shows which pods the built-in profiles recognise.
func TestCandidates(t *testing.T) {
	set, err := patches.BuiltIn()
	require.NoError(t, err)
	for name, c := range map[string]struct {
		spec string
		want string
	}{
		"emissary":                     {`containers: [{image: docker.io/emissaryingress/emissary:3.10.0}]`, "emissary"},
		"emissary, other registry":     {`containers: [{image: "ghcr.io/emissary-ingress/emissary:4.1.0"}]`, "emissary"},
		"emissary, registry with port": {`containers: [{image: "corp:5000/mirror/emissaryingress/emissary"}]`, "emissary"},
		"emissary, digest":             {`containers: [{image: "emissaryingress/emissary@sha256:0000000000000000000000000000000000000000000000000000000000000000"}]`, "emissary"},
		"emissary, tag and digest":     {`containers: [{image: "cgr.dev/chainguard/emissary:latest@sha256:0000000000000000000000000000000000000000000000000000000000000000"}]`, "emissary"},
		"emissary with Redis":          {`containers: [{image: emissaryingress/emissary:3.9.1, env: [{name: REDIS_URL}, {name: AMBASSADOR_NAMESPACE}], readinessProbe: {httpGet: {path: /ambassador/v0/check_ready, port: 8877}}}]`, "emissary"},
		"flattened mirror":             {`containers: [{image: "corp/mirror/emissary:3.9.1", env: [{name: AMBASSADOR_NAMESPACE}]}]`, "emissary"},
		"renamed image":                {`containers: [{image: "corp/edge:7", env: [{name: AMBASSADOR_NAMESPACE}], livenessProbe: {httpGet: {path: /ambassador/v0/check_alive, port: 8877}}}]`, "emissary"},
		"renamed image, Edge Stack":    {`containers: [{image: "corp/edge:7", env: [{name: AMBASSADOR_NAMESPACE}, {name: REDIS_URL}], livenessProbe: {httpGet: {path: /ambassador/v0/check_alive, port: 8877}}}]`, "aes"},
		"own entrypoint script":        {`containers: [{image: "emissaryingress/emissary:3.9.1", command: [/bin/sh, -c, "exec /buildroot/ambassador/python/entrypoint.sh"]}]`, "emissary"},
		"own command, probes":          {`containers: [{image: "emissaryingress/emissary:3.9.1", command: [/start], readinessProbe: {httpGet: {path: /ambassador/v0/check_ready, port: 8877}}}]`, "emissary"},
		"aes":                          {`containers: [{image: "docker.io/datawire/aes:1.14.4-rc.2"}]`, "aes"},
		"ambassador":                   {`containers: [{image: "dwflynn/ambassador:0.5.0"}]`, "ambassador"},
		"ambassador, mirror":           {`containers: [{image: "corp/ambassador:1.13", env: [{name: AMBASSADOR_NAMESPACE}]}]`, "ambassador"},
		"the edge is not the first":    {`containers: [{name: a, image: statsd}, {name: b, image: "datawire/aes:3.9.1"}]`, "aes"},
		"an app called ambassador":     {`containers: [{name: ambassador, image: "corp/ambassador:1"}]`, ""},
		"ambassadors":                  {`containers: [{image: "esatcbr/ambassadors-nginx:v2"}]`, ""},
		"not at a segment boundary":    {`containers: [{image: "corp/xdatawire/aes"}, {image: "corp/notemissary"}]`, ""},
		"apiext":                       {`containers: [{image: "emissaryingress/emissary:3.9.1", command: [apiext, emissary-apiext]}]`, ""},
		"apiext by arguments":          {`containers: [{image: "emissaryingress/emissary:3.9.1", args: [apiext]}]`, ""},
		"agent":                        {`containers: [{image: "emissaryingress/emissary:2.0.5", command: [agent]}]`, ""},
		"injector":                     {`containers: [{image: "datawire/aes:1.8.1", command: [aes-injector]}]`, ""},
		"traffic manager":              {`containers: [{image: "datawire/aes:1.8.1", command: [/usr/bin/traffic-manager], env: [{name: AMBASSADOR_NAMESPACE}]}]`, ""},
		"traffic agent":                {`containers: [{image: hello}, {name: agent, image: "datawire/aes:1.12.4", env: [{name: AGENT_SERVICE}, {name: AMBASSADOR_NAMESPACE}]}]`, ""},
		"pro":                          {`containers: [{image: "quay.io/datawire/ambassador_pro:amb-core-0.4.0", env: [{name: AMBASSADOR_NAMESPACE}], livenessProbe: {httpGet: {path: /ambassador/v0/check_alive, port: 8877}}}]`, "ambassador"},
		"pro's sidecar":                {`containers: [{image: "quay.io/datawire/ambassador_pro:amb-sidecar-0.4.0", env: [{name: AMBASSADOR_NAMESPACE}, {name: REDIS_URL}]}]`, ""},
		"a variable of both products":  {`containers: [{image: "corp/edge:7", env: [{name: AES_LOG_LEVEL}], livenessProbe: {httpGet: {path: /ambassador/v0/check_alive, port: 8877}}}]`, "emissary"},
		"agent by its variable":        {`containers: [{image: "datawire/aes:3.9.1", env: [{name: AGENT_NAMESPACE}]}]`, ""},
		"edge that an agent reports":   {`containers: [{image: "datawire/aes:3.9.1", env: [{name: AGENT_CONFIG_RESOURCE_NAME}]}]`, "aes"},
		"a watcher of an edge":         {`containers: [{image: corp/watch, env: [{name: AMBASSADOR_NAMESPACE}], livenessProbe: {httpGet: {host: edge.corp, path: /ambassador/v0/check_alive, port: 8877}}}]`, ""},
		"a watcher by name":            {`containers: [{image: corp/ambassador, env: [{name: AMBASSADOR_NAMESPACE}], startupProbe: {httpGet: {host: 10.1.2.3, path: /ambassador/v0/check_alive, port: 8877}}}]`, ""},
		"edge that probes its node":    {`{hostNetwork: true, containers: [{image: "datawire/aes:3.9.1", readinessProbe: {httpGet: {host: 127.0.0.1, path: /ambassador/v0/check_ready, port: 8877}}}]}`, "aes"},
		"pro's auth service":           {`containers: [{image: "quay.io/datawire/ambassador_pro:auth-0.0.6"}]`, ""},
		"job":                          {`{restartPolicy: Never, containers: [{image: "emissaryingress/emissary:3.9.1"}]}`, ""},
		"job that retries":             {`{restartPolicy: OnFailure, containers: [{image: "datawire/aes:3.9.1"}]}`, ""},
		"edge image as init container": {`{initContainers: [{image: "emissaryingress/emissary:3.9.1"}], containers: [{image: corp/app}]}`, ""},
		"test pod":                     {`{restartPolicy: Never, containers: [{image: busybox, command: [wget]}]}`, ""},
		"redis":                        {`containers: [{image: "redis:7"}]`, ""},
		"no image":                     {`containers: [{name: a}]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{}
			require.NoError(t, yaml.UnmarshalStrict([]byte(c.spec), &pod.Spec))
			found := set.Candidates(pod)
			if c.want == "" {
				assert.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			assert.Equal(t, c.want, found[0].Profile.Name)
		})
	}
}

// TestCandidatesOfRenamedImages shows how an image under another name is told apart by
// the labels that the charts of Emissary and Edge Stack share.
func TestCandidatesOfRenamedImages(t *testing.T) {
	set, err := patches.BuiltIn()
	require.NoError(t, err)
	const (
		both     = `product: aes, profile: main`
		emissary = both + `, app.kubernetes.io/name: emissary-ingress`
		probe    = `readinessProbe: {httpGet: {path: /ambassador/v0/check_ready, port: 8877}}`
		tcp      = `readinessProbe: {tcpSocket: {port: 8877}}`
		variable = `env: [{name: AMBASSADOR_NAMESPACE}]`
		redis    = `env: [{name: AMBASSADOR_NAMESPACE}, {name: REDIS_URL}]`
	)
	for name, c := range map[string]struct{ labels, container, want string }{
		"variables from elsewhere":           {both, probe, "aes"},
		"TCP probe":                          {both, tcp + ", " + variable, "aes"},
		"without Redis":                      {both, probe + ", " + variable, "aes"},
		"canary of the chart":                {`product: aes, profile: canary`, probe, "aes"},
		"Edge Stack by its chart":            {`product: aes, app.kubernetes.io/name: edge-stack`, probe + ", " + redis, "aes"},
		"Emissary by its chart":              {emissary, probe + ", " + variable, "emissary"},
		"Emissary, variables from elsewhere": {emissary, probe, "emissary"},
		"Emissary, TCP probe":                {emissary, tcp + ", " + variable, "emissary"},
		"Edge Stack called like Emissary":    {emissary, probe + ", " + redis, "aes"},
		"labels alone":                       {both, tcp, ""},
		"Emissary's labels alone":            {emissary, tcp, ""},
		"labels and a command":               {both, tcp + ", command: [/bin/migrate], " + variable, ""},
		"another product's labels":           {`product: shop`, tcp + ", " + variable, ""},
		"the name of a Service":              {`service: ambassador`, `image: corp/team/ambassador:1`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{}
			require.NoError(t, yaml.UnmarshalStrict([]byte("metadata: {labels: {"+c.labels+"}}\nspec: {containers: [{name: ambassador, "+c.container+"}]}"), pod))
			if pod.Spec.Containers[0].Image == "" {
				pod.Spec.Containers[0].Image = "corp/gateway:3.9.1"
			}
			found := set.Candidates(pod)
			if c.want == "" {
				assert.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			assert.Equal(t, c.want, found[0].Profile.Name)
		})
	}
}

func TestVersionFacts(t *testing.T) {
	set, err := patches.BuiltIn()
	require.NoError(t, err)
	emissary, aes := set.ByName("emissary"), set.ByName("aes")
	secretDir := emissary.Env[0]
	for image, want := range map[string]struct{ reads, reloads bool }{
		"ghcr.io/emissary-ingress/emissary:4.1.0": {true, true},
		"emissaryingress/emissary:v4.1.0-rc.1":    {true, true},
		"emissaryingress/emissary:4.0.9":          {true, false},
		"emissaryingress/emissary:3.10.0":         {true, false},
		"datawire/ambassador:1.9.9":               {false, false},
		"datawire/ambassador:1.10":                {true, false},
		"corp:5000/emissary":                      {true, true},
		"corp/emissary:latest":                    {true, true},
		"corp/emissary:2024":                      {true, true},
		"corp/emissary:2026.11":                   {true, true},
		"corp/emissary:2026.11.1":                 {true, true},
		"corp/emissary:20261130":                  {true, true},
		"corp/emissary:24.04":                     {true, true},
		"corp/emissary:1.04":                      {true, true},
		"corp/ambassador_pro:amb-core-0.11.0":     {false, false},
		"corp/emissary@sha256:00":                 {true, true},
	} {
		assert.Equal(t, want.reads, secretDir.Reads(image), image)
		assert.Equal(t, want.reloads, emissary.Files.Reloads(image), image)
		assert.False(t, aes.Files.Reloads(image), image)
	}
}
