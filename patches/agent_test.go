package patches

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAgentFromImage(t *testing.T) {
	const digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for name, test := range map[string]struct {
		image, version string
		unknown, old   bool
	}{
		"if the tag is a version, expect it":                     {image: "docker.io/istio/proxyv2:1.20.8", version: "1.20.8"},
		"if it names a variant, expect the version":              {image: "istio/proxyv2:1.24.3-distroless", version: "1.24.3"},
		"if it begins with a v, expect the version":              {image: "istio/proxyv2:v1.31.1", version: "1.31.1"},
		"if it is a release to come, expect its version":         {image: "istio/proxyv2:1.31.0-rc.0", version: "1.31.0"},
		"if it has no patch, expect the minor":                   {image: "istio/proxyv2:1.24", version: "1.24"},
		"if a minor names a variant, expect the minor":           {image: "istio/proxyv2:1.24-debug", version: "1.24"},
		"if it comes from a mirror with a port, expect it":       {image: "registry.corp.example:5000/mesh/proxyv2:1.30.2", version: "1.30.2"},
		"if a digest comes after the tag, expect the tag's":      {image: "istio/proxyv2:1.20.8" + digest, version: "1.20.8"},
		"if it is newer than all that is known, expect it":       {image: "istio/proxyv2:1.99.0", version: "1.99.0"},
		"if it is below the oldest, expect it to be too old":     {image: "istio/proxyv2:1.19.10", version: "1.19.10", old: true},
		"if the tag is latest, expect it not known":              {image: "istio/proxyv2:latest", unknown: true},
		"if there is a digest alone, expect it not known":        {image: "istio/proxyv2" + digest, unknown: true},
		"if there is nothing but a port, expect it not known":    {image: "registry.corp.example:1.20/proxyv2", unknown: true},
		"if it is a major version alone, expect it not known":    {image: "istio/proxyv2:1", unknown: true},
		"if it is another product's, expect it not known":        {image: "registry.corp.example/proxyv2-rhel9:2.6.1", unknown: true},
		"if it is the hash of a commit, expect it not known":     {image: "istio/proxyv2:1234567", unknown: true},
		"if it is a branch of a release, expect it not known":    {image: "istio/proxyv2:release-1.20", unknown: true},
		"if there is no image, expect it not known":              {unknown: true},
		"if letters follow the minor at once, expect it unknown": {image: "istio/proxyv2:1.20beta", unknown: true},
	} {
		t.Run(name, func(t *testing.T) {
			agent, known := AgentFromImage(test.image)
			assert.Equal(t, !test.unknown, known)
			assert.Equal(t, test.version, agent.Version)
			assert.Equal(t, test.old, agent.TooOld())
		})
	}
}

func TestAgentSupports(t *testing.T) {
	const current = "istio/proxyv2:latest"
	for name, test := range map[string]struct {
		fact       string
		supporting []string
		others     []string
	}{
		"if all have it, expect it always": {fact: "OUTPUT_CERTS", supporting: []string{":1.20.0", ":1.31.1", current}},
		"if it ended, expect it up to then": {
			fact: DebugPortEnv, supporting: []string{":1.20.0", ":1.20", ":1.24.6-distroless"}, others: []string{":1.25.0", ":1.25", ":1.31.1", current},
		},
		"if it began, expect it from then on": {
			fact: NoInboundCapture, supporting: []string{":1.24.0", ":1.24", ":1.31.1", current}, others: []string{":1.20.8", ":1.23.6"},
		},
		"if it began with a patch, expect it from that on": {
			fact: "reconnect after a change of istiod's roots", supporting: []string{":1.20.1", ":1.21.0", current}, others: []string{":1.20.0"},
		},
		"if nobody knows it, expect it never": {fact: "ENABLE_TELEPATHY", others: []string{":1.20.0", ":1.31.1", current}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, image := range test.supporting {
				agent, _ := AgentFromImage(image)
				assert.True(t, agent.Supports(test.fact), image)
			}
			for _, image := range test.others {
				agent, _ := AgentFromImage(image)
				assert.False(t, agent.Supports(test.fact), image)
			}
		})
	}
}

// TestFactsCoverTheTemplate shows that the facts list the agent's settings in the template and no
// others, so that a new variable needs a source.
func TestFactsCoverTheTemplate(t *testing.T) {
	template, err := LoadSidecar()
	require.NoError(t, err)
	names := []string{strings.Join(template.Container.Args[:2], " ")}
	for _, argument := range template.Container.Args[2:] {
		if strings.HasPrefix(argument, "--") {
			names = append(names, argument)
		}
	}
	flags := Params{Overrides: Overrides{LogLevel: "x", AgentLogLevel: "x"}}.placeholders()
	for _, argument := range []string{flags["logLevel"], flags["agentLogLevel"]} {
		name, _, _ := strings.Cut(argument, "=")
		names = append(names, name)
	}
	for _, e := range template.Container.Env {
		names = append(names, e.Name)
	}
	var known []string
	for _, f := range agentSettings {
		known = append(known, f.Name)
	}
	assert.ElementsMatch(t, names, known)
}

func TestFactsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range facts {
		assert.False(t, seen[f.Name], "%s occurs twice", f.Name)
		seen[f.Name] = true
		assert.NotEmpty(t, f.Description, f.Name)
		assert.NotEmpty(t, f.Symbol, f.Name)
		assert.Regexp(t, `^([a-zA-Z0-9/-]+\.(go|yaml)|go\.mod)$`, f.File, f.Name)
		for _, bound := range []string{f.Since, f.Before} {
			if bound != "" {
				agent, known := AgentFromImage(":" + bound)
				assert.True(t, known && !agent.TooOld(), "%s: %s", f.Name, bound)
			}
		}
	}
	for _, f := range versionDifferences {
		assert.NotEqual(t, f.Since, f.Before, "%s is no difference", f.Name)
	}
	for _, name := range []string{DebugPortEnv, NoInboundCapture} {
		assert.True(t, seen[name], name)
	}
	assert.Equal(t, "1.24", SupportedSince(NoInboundCapture))
	assert.Empty(t, SupportedSince(DebugPortEnv))
}

// TestDebugPort shows that an agent that has the port gets the variable that keeps the port
// closed. An agent of unknown version gets it too.
func TestDebugPort(t *testing.T) {
	template, err := LoadSidecar()
	require.NoError(t, err)
	for name, test := range map[string]struct {
		image, override string
		podNetwork      bool
		envoy           bool
		want            bool
	}{
		"if an old agent is on the host's network, expect the variable": {image: "istio/proxyv2:1.24.6", want: true},
		"if it is a variant of one, expect the variable":                {image: "istio/proxyv2:1.20.8-distroless", want: true},
		"if it is of unknown version, expect the variable":              {image: "istio/proxyv2:latest", want: true},
		"if it is too old, expect the variable":                         {image: "istio/proxyv2:1.19.0", want: true},
		"if it is a current one, expect none":                           {image: "istio/proxyv2:1.25.0"},
		"if an old agent is on the pod's network, expect the variable":  {image: "istio/proxyv2:1.24.6", podNetwork: true, want: true},
		"if it runs with Envoy there, expect none":                      {image: "istio/proxyv2:1.24.6", podNetwork: true, envoy: true},
		"if it runs with Envoy on the host's, expect the variable":      {image: "istio/proxyv2:1.24.6", envoy: true, want: true},
		"if a current one is on the pod's network, expect none":         {image: "istio/proxyv2:1.25.0", podNetwork: true},
		"if the pod asks for a current one, expect none":                {image: "istio/proxyv2:1.24.0", override: "istio/proxyv2:1.30.0"},
		"if the pod asks for an old one, expect the variable":           {image: "istio/proxyv2:1.31.1", override: "istio/proxyv2:1.22.0", want: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := Params{
				Mesh: Mesh{ProxyImage: test.image}.WithDefaults(), CertDir: DefaultCertDir,
				HostNetwork: !test.podNetwork, Envoy: test.envoy, Overrides: Overrides{Image: test.override},
			}
			sidecar, err := template.Render(p)
			require.NoError(t, err)
			var names []string
			for _, e := range sidecar.Container.Env {
				names = append(names, e.Name)
			}
			assert.Equal(t, test.want, slices.Contains(names, DebugPortEnv))
			assert.Equal(t, p.Image(), sidecar.Container.Image)
		})
	}
}

func TestAgentGetsTheKeysAndTheNameOfTheMesh(t *testing.T) {
	template, err := LoadSidecar()
	require.NoError(t, err)
	agent := func(m Mesh) map[string]string {
		s, err := template.Render(Params{Mesh: m.WithDefaults(), CertDir: DefaultCertDir})
		require.NoError(t, err)
		env := map[string]string{}
		for _, e := range s.Container.Env {
			env[e.Name] = e.Value
		}
		return env
	}
	env := agent(Mesh{})
	for _, name := range []string{"ECC_SIGNATURE_ALGORITHM", "ECC_CURVE", "WORKLOAD_RSA_KEY_SIZE", "ISTIOD_SAN"} {
		assert.NotContains(t, env, name)
	}
	env = agent(Mesh{ECCSignatureAlgorithm: "ECDSA", ECCCurve: "P384", WorkloadRSAKeySize: "4096"})
	assert.Equal(t, "ECDSA", env["ECC_SIGNATURE_ALGORITHM"])
	assert.Equal(t, "P384", env["ECC_CURVE"])
	assert.Equal(t, "4096", env["WORKLOAD_RSA_KEY_SIZE"])

	env = agent(Mesh{DiscoveryAddress: "192.0.2.10:15012", CAServerName: "istiod.istio-system.svc"})
	assert.Equal(t, "istiod.istio-system.svc", env["ISTIOD_SAN"])
	assert.NotContains(t, env, "CA_ADDR", "the agent expects the name of its default authority only")
	env = agent(Mesh{CAAddress: "192.0.2.11:443", CAServerName: "ca.example.org"})
	assert.Equal(t, "192.0.2.11:443", env["CA_ADDR"])
	assert.NotContains(t, env, "ISTIOD_SAN", "it would be the name of istiod, which is elsewhere")
}
