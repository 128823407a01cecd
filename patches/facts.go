package patches

// Files of istio.io/istio that are the source of several facts.
const (
	commandFile = "pilot/cmd/pilot-agent/app/cmd.go"
	optionsFile = "pilot/cmd/pilot-agent/options/options.go"
	statusFile  = "pilot/cmd/pilot-agent/status/server.go"
	agentFile   = "pkg/istio-agent/agent.go"
	cacheFile   = "security/pkg/nodeagent/cache/secretcache.go"
	caFile      = "security/pkg/nodeagent/caclient/providers/citadel/client.go"
	pathsFile   = "pkg/config/constants/constants.go"
	metaFile    = "pkg/bootstrap/config.go"
	featureFile = "pilot/pkg/features/pilot.go"
	podTemplate = "manifests/charts/istio-control/istio-discovery/files/injection-template.yaml"
)

// agentSettings are the arguments and variables of the agent's container in
// sidecar.yaml. Every agent since OldestIstio reads all but the last under the same
// name.
var agentSettings = []Fact{
	{Name: "proxy sidecar", Description: "the command and the role of the proxy", File: commandFile, Symbol: "func newProxyCommand"},
	{Name: "--domain", Description: "the DNS suffix of the pod's namespace", File: commandFile, Symbol: `"domain"`},
	{Name: "--proxyLogLevel", Description: "Envoy's log level; set only when the pod sets one", File: commandFile, Symbol: `"proxyLogLevel"`},
	{Name: "--log_output_level", Description: "the agent's log level; set only when the pod sets one", File: "pkg/log/options.go", Symbol: "log_output_level"},
	{Name: "OUTPUT_CERTS", Description: "the folder of `key.pem`, `cert-chain.pem` and `root-cert.pem`", File: optionsFile, Symbol: "outputKeyCertToDir = env.Register"},
	{Name: "DISABLE_ENVOY", Description: "no Envoy: the agent itself fetches and rotates the files", File: optionsFile, Symbol: "disableEnvoyEnv = env.Register"},
	{Name: "CA_ADDR", Description: "the certificate authority; default the discovery address", File: optionsFile, Symbol: "caEndpointEnv = env.Register"},
	{Name: "ISTIOD_SAN", Description: "the name in istiod's certificate, for istiod's own authority only; set when the mesh has a name for it", File: optionsFile, Symbol: `"ISTIOD_SAN"`},
	{Name: "PILOT_CERT_PROVIDER", Description: "who signs istiod's certificate, which determines where its root is", File: featureFile, Symbol: `"PILOT_CERT_PROVIDER"`},
	{Name: "SECRET_TTL", Description: "the lifetime requested from the authority; default 24 h", File: optionsFile, Symbol: `"SECRET_TTL", 24*time.Hour`},
	{Name: "ECC_SIGNATURE_ALGORITHM", Description: "`ECDSA` keys instead of RSA; set when the mesh sets it", File: optionsFile, Symbol: `"ECC_SIGNATURE_ALGORITHM"`},
	{Name: "ECC_CURVE", Description: "the curve of ECDSA keys; set when the mesh sets it", File: optionsFile, Symbol: `"ECC_CURVE"`},
	{Name: "WORKLOAD_RSA_KEY_SIZE", Description: "the size of RSA keys; set when the mesh sets it", File: optionsFile, Symbol: `"WORKLOAD_RSA_KEY_SIZE"`},
	{Name: "TRUST_DOMAIN", Description: "the trust domain; default `cluster.local`", File: optionsFile, Symbol: `"TRUST_DOMAIN", "cluster.local"`},
	{Name: "PROXY_CONFIG", Description: "`discoveryAddress` and `statusPort`", File: optionsFile, Symbol: `"PROXY_CONFIG"`},
	{Name: "ISTIO_META_CLUSTER_ID", Description: "the cluster that the token is from", File: optionsFile, Symbol: `"ISTIO_META_CLUSTER_ID"`},
	{Name: "ISTIO_META_MESH_ID", Description: "metadata of the proxy", File: metaFile, Symbol: `IstioMetaPrefix = "ISTIO_META_"`},
	{Name: "ISTIO_META_NETWORK", Description: "metadata of the proxy", File: metaFile, Symbol: `IstioMetaPrefix = "ISTIO_META_"`},
	{Name: "ISTIO_META_NODE_NAME", Description: "metadata of the proxy", File: metaFile, Symbol: `IstioMetaPrefix = "ISTIO_META_"`},
	{Name: "CLOUD_PLATFORM", Description: "`none` saves up to 5 s of requests to a cloud's metadata server", File: "pkg/bootstrap/platform/discovery.go", Symbol: `"CLOUD_PLATFORM"`},
	{Name: "POD_NAME", Description: "the proxy's id", File: optionsFile, Symbol: `"POD_NAME"`},
	{Name: "POD_NAMESPACE", Description: "the proxy's id, and the namespace in the identity", File: optionsFile, Symbol: `"POD_NAMESPACE"`},
	{Name: "SERVICE_ACCOUNT", Description: "the service account in the identity", File: optionsFile, Symbol: `"SERVICE_ACCOUNT"`},
	{Name: "INSTANCE_IP", Description: "the pod's address", File: optionsFile, Symbol: `"INSTANCE_IP"`},
	{Name: "HOST_IP", Description: "the node's address, for a tracer there", File: "pkg/bootstrap/option/convert.go", Symbol: `"HOST_IP"`},
	{Name: "GOMEMLIMIT", Description: "read by Go itself, since Go 1.19; Istio 1.20 is built with 1.21", File: "go.mod", Symbol: "go 1."},
	{
		Name: DebugPortEnv, Before: "1.25", File: optionsFile, Symbol: `"PROXY_XDS_DEBUG_VIA_AGENT"`,
		Description: "`false` on the host's network and without Envoy: otherwise the agent listens on port 15004 of the loopback, and exits if that port is in use",
	},
}

// agentBehaviour is the behaviour that the pod depends on, in addition to
// agentSettings. In mode istio some of it is the behaviour of Istio's injector.
var agentBehaviour = []Fact{
	{
		Name: "/healthz/ready", File: "pilot/cmd/pilot-agent/status/grpcready/probe.go", Symbol: "func (p *probe) Check() error",
		Description: "503 until all three files exist, without Envoy too: the agent waits for the certificates that its gRPC bootstrap names",
	},
	{Name: "port 15020", Description: "`statusPort`, where that probe is answered", File: statusFile, Symbol: `"/healthz/ready"`},
	{Name: "rotation without Envoy", Description: "with `DISABLE_ENVOY` the agent itself renews, at half of the certificate's life", File: agentFile, Symbol: "if a.cfg.DisableEnvoy {"},
	{Name: "files for every user", Description: "mode 0644 in a cluster, each replaced in one step", File: "security/pkg/nodeagent/util/util.go", Symbol: "os.FileMode(0o644)"},
	{Name: "/var/run/secrets/tokens/istio-token", Description: "the token for the authority", File: pathsFile, Symbol: `"./var/run/secrets/tokens/istio-token"`},
	{Name: "/var/run/secrets/istio/root-cert.pem", Description: "the root that verifies istiod's certificate", File: agentFile, Symbol: `CitadelCACertPath = "./var/run/secrets/istio"`},
	{Name: "/etc/istio/proxy", Description: "the only folder besides the certificates' that the agent writes to", File: pathsFile, Symbol: `"./etc/istio/proxy"`},
	{Name: "proxy.istio.io/config", Description: "mode `istio`: the sidecar's settings, `proxyMetadata` as its variables", File: podTemplate, Symbol: ".ProxyConfig.ProxyMetadata"},
	{Name: "holdApplicationUntilProxyStarts", Description: "mode `istio`: the sidecar starts before the edge", File: podTemplate, Symbol: ".ProxyConfig.HoldApplicationUntilProxyStarts"},
	{Name: "sidecar.istio.io/userVolumeMount", Description: "mode `istio`: a mount in the sidecar, as a map or a list", File: "pkg/kube/inject/template.go", Symbol: "func fromJSON"},
	{Name: "traffic.sidecar.istio.io/includeInboundPorts", Description: "mode `istio`: empty captures no inbound traffic", File: podTemplate, Symbol: "traffic.sidecar.istio.io/includeInboundPorts"},
	{Name: "traffic.sidecar.istio.io/includeOutboundIPRanges", Description: "mode `istio`: empty captures no outbound traffic", File: podTemplate, Symbol: "traffic.sidecar.istio.io/includeOutboundIPRanges"},
}

// versionDifferences are the behaviours that not every supported version has.
var versionDifferences = []Fact{
	{
		Name: "reconnect after a change of istiod's roots", Since: "1.20.1", File: caFile, Symbol: "c.reconnect()",
		Description: "the agent reconnects when it does not know the root of istiod's certificate; after a change of roots 1.20.0 does not renew until its pod is recreated",
	},
	{
		Name: "reconnect after any failed renewal", Since: "1.21", File: caFile, Symbol: `citadelClientLog.Errorf("failed to sign CSR`,
		Description: "the agent reconnects after any failure, not only after one about roots",
	},
	{
		Name: "JWT_POLICY=first-party-jwt", Before: "1.22", File: "pilot/cmd/pilot-agent/options/security.go", Symbol: "securityModel.K8sSAJwtFileName",
		Description: "the agent uses the API server's token; Isthmus never sets it, and always mounts a token for `istio-ca`, the default of every version",
	},
	{
		Name: "PILOT_CERT_PROVIDER=kubernetes", Before: "1.24", File: agentFile, Symbol: "constants.CertProviderKubernetes",
		Description: "istiod's root is the cluster's own; later agents treat the value as `istiod`",
	},
	{
		Name: "SECRET_GRACE_PERIOD_RATIO_JITTER", Since: "1.24", File: cacheFile, Symbol: "graceRatioJitter",
		Description: "agents renew at half of the life, give or take 1 % of it; earlier ones at exactly half",
	},
	{
		Name: NoInboundCapture, Since: "1.24", File: "cni/pkg/nodeagent/net.go", Symbol: "AmbientBypassInboundCapture",
		Description: "mode `ambient` needs it, so that clients outside the mesh reach the edge",
	},
	{
		Name: "--proxyLogLevel warning,misc:error", Before: "1.25", File: commandFile, Symbol: "warning,misc:error",
		Description: "Envoy's log level when the pod sets none; later `warning`",
	},
	{
		Name: "ClusterTrustBundle", Since: "1.26", File: featureFile, Symbol: `"ENABLE_CLUSTER_TRUST_BUNDLE_API"`,
		Description: "istiod can publish its roots as one instead of a ConfigMap in every namespace; Isthmus mounts what istiod says",
	},
	{
		Name: "native sidecar by Istio's injector", Since: "1.27", File: featureFile, Symbol: `"ENABLE_NATIVE_SIDECARS", "auto"`,
		Description: "the default where the nodes support it; the container that Isthmus adds is a native sidecar with every version",
	},
	{
		Name: "automatic memory limit", Since: "1.30", File: "pilot/cmd/pilot-agent/main.go", Symbol: "automemlimit",
		Description: "the agent reads its container's limit when `GOMEMLIMIT` is not set",
	},
}
