package adopt

import (
	"regexp"
	"strings"
)

// flagReasons are the arguments of `pilot-agent proxy` from Istio 1.1 to the current
// version (pilot/cmd/pilot-agent in its releases). The value says why the sidecar of
// Isthmus does not set the argument, or sets it differently.
var flagReasons = map[string]string{ //nolint:gosec // --lightstepAccessToken is a flag's name, no credential
	"0":                              "the agent's command: proxy",
	"1":                              "the agent's role: sidecar",
	"--domain":                       "the cluster's domain, " + fromMeshSettings,
	"--serviceCluster":               "a name for Envoy's telemetry; the flag is deprecated, and no Envoy runs",
	"--discoveryAddress":             "deprecated flag; PROXY_CONFIG has the address, " + fromMeshSettings,
	"--connectTimeout":               "deprecated flag for Envoy, and no Envoy runs",
	"--statusPort":                   "deprecated flag; PROXY_CONFIG has the port",
	"--trust-domain":                 "deprecated flag; TRUST_DOMAIN has it, " + fromMeshSettings,
	"--trustDomain":                  "deprecated flag; TRUST_DOMAIN has it, " + fromMeshSettings,
	"--controlPlaneBootstrap":        "removed from Istio",
	"--controlPlaneAuthPolicy":       "removed from Istio: istiod is always reached by TLS",
	"--proxyLogLevel":                "Envoy's log level, and no Envoy runs",
	"--proxyComponentLogLevel":       "Envoy's log level, and no Envoy runs",
	"--log_output_level":             "the agent's default level",
	"--concurrency":                  "Envoy's threads, and no Envoy runs",
	"--parentShutdownDuration":       "for Envoy's restarts, and no Envoy runs",
	"--drainDuration":                "for Envoy's restarts, and no Envoy runs",
	"--discoveryRefreshDelay":        "deprecated flag for Envoy, and no Envoy runs",
	"--proxyAdminPort":               "Envoy's port, and no Envoy runs",
	"--configPath":                   "where Envoy's configuration is, and no Envoy runs",
	"--binaryPath":                   "where Envoy is, and no Envoy runs",
	"--zipkinAddress":                "Envoy's tracing, and no Envoy runs",
	"--lightstepAddress":             "Envoy's tracing, and no Envoy runs",
	"--lightstepAccessToken":         "Envoy's tracing, and no Envoy runs",
	"--lightstepSecure":              "Envoy's tracing, and no Envoy runs",
	"--lightstepCacertPath":          "Envoy's tracing, and no Envoy runs",
	"--datadogAgentAddress":          "Envoy's tracing, and no Envoy runs",
	"--statsdUdpAddress":             "Envoy's statistics, and no Envoy runs",
	"--envoyMetricsService":          "Envoy's statistics, and no Envoy runs",
	"--envoyMetricsServiceAddress":   "Envoy's statistics, and no Envoy runs",
	"--envoyAccessLogService":        "Envoy's access log, and no Envoy runs",
	"--envoyAccessLogServiceAddress": "Envoy's access log, and no Envoy runs",
	"--outlierLogPath":               "Envoy's log, and no Envoy runs",
	"--disableInternalTelemetry":     "Envoy's telemetry, and no Envoy runs",
	"--dnsRefreshRate":               "for Envoy, and no Envoy runs",
	"--applicationPorts":             "ports that Envoy would wait for, and no Envoy runs",
	"--mixerIdentity":                "removed from Istio with Mixer",
	"--pilotIdentity":                "removed from Istio",
	"--controlPlanePort":             "removed from Istio",
	"--log_as_json":                  "the agent's default format",
	"--log_caller":                   "the agent's default format",
	"--log_stacktrace_level":         "the agent's default format",
	"--log_target":                   "the agent's default: standard output",
	"--vklog":                        "the agent's default level",
	"--id":                           "the pod's name, which the agent knows",
	"--ip":                           "the pod's address, which the agent knows",
	"--meshConfig":                   "the mesh's settings come from Isthmus",
	"--profiling":                    "the agent's default",
	"--kubeAppProberName":            "removed from Istio",
	"--serviceregistry":              "Kubernetes, the default",
	"--tokenManagerPlugin":           "for the token server, which is not used",
}

// unsupportedFlags give the agent tasks that the agent of Isthmus does not have.
var unsupportedFlags = map[string]string{
	"--customConfigFile": "Envoy runs with a configuration of your own",
	"--templateFile":     "Envoy runs with a configuration of your own",
	"--stsPort":          "the agent serves tokens to others",
	"--caCertFile":       "the agent trusts a CA of your own",
}

// variableReasons are the environment variables that the agent reads (pkg/istio-agent,
// pilot/cmd/pilot-agent and pkg/bootstrap of Istio). The reason says why the sidecar of
// Isthmus does not set the variable, or sets it differently. A name that ends in * is a
// prefix.
var variableReasons = []struct{ name, reason string }{
	{"OUTPUT_CERTS", "one directory for agent and edge"},
	{"DISABLE_ENVOY", noEnvoy},
	{"CA_ADDR", fromMeshSettings},
	{"CA_PROVIDER", "istiod, the default"},
	{"PILOT_CERT_PROVIDER", fromMeshSettings},
	{"TRUST_DOMAIN", fromMeshSettings},
	{"SECRET_TTL", "the lifetime requested from the CA, at most what it grants"},
	{"PROXY_CONFIG", "istiod's address and the agent's port, " + fromMeshSettings},
	{"JWT_POLICY", "the agent takes the mounted token: third-party-jwt, the default"},
	{"CLOUD_PLATFORM", "otherwise the agent queries metadata servers for up to 5 s"},
	{"GCP_METADATA", "no metadata server is queried"},
	{"TOKEN_AUDIENCES", fromMeshSettings},
	{"PROXY_CONFIG_XDS_AGENT", "Envoy's configuration, and no Envoy runs"},
	{"INITIAL_EPOCH", "Envoy's restarts, and no Envoy runs"},
	{"GOMEMLIMIT", "the agent respects its memory limit"},
	{"GOMAXPROCS", "Go respects the CPU limit by itself"},
	{"POD_NAME", identity},
	{"POD_NAMESPACE", identity},
	{"INSTANCE_IP", identity},
	{"SERVICE_ACCOUNT", identity},
	{"HOST_IP", identity},
	{"ISTIO_META_CLUSTER_ID", fromMeshSettings + ": a wrong one fails authentication, so it is unset when unknown"},
	{"ISTIO_META_MESH_ID", fromMeshSettings},
	{"ISTIO_META_NETWORK", fromMeshSettings},
	{"ISTIO_META_NODE_NAME", identity},
	{"ISTIO_META_DNS_CAPTURE", "DNS of an edge is not captured"},
	{"ISTIO_META_DNS_AUTO_ALLOCATE", "DNS of an edge is not captured"},
	{"ISTIO_META_*", telemetry},
	{"ISTIO_METAJSON_*", telemetry},
	{"ISTIO_PROMETHEUS_ANNOTATIONS", "Envoy's statistics, and no Envoy runs"},
	{"ISTIO_AUTO_MTLS_ENABLED", "removed from Istio"},
	{"ISTIO_BOOTSTRAP", "Envoy's configuration, and no Envoy runs"},
	{"ISTIO_BOOTSTRAP_OVERRIDE", "Envoy's configuration, and no Envoy runs"},
	{"ISTIO_CPU_LIMIT", "Envoy's threads, and no Envoy runs"},
	{"ISTIO_NAMESPACE", "removed from Istio"},
	{"ISTIO_DELTA_XDS", "Envoy's configuration, and no Envoy runs"},
	{"ISTIO_AGENT_*", "the agent's defaults"},
	{"CANONICAL_SERVICE", telemetry},
	{"CANONICAL_REVISION", telemetry},
	{"SDS_ENABLED", "removed from Istio: always enabled"},
	{"SDS_UDS_PATH", "removed from Istio"},
	{"ENABLE_INGRESS_GATEWAY_SDS", "removed from Istio"},
	{"INGRESS_GATEWAY_NAMESPACE", "removed from Istio"},
	{"PILOT_SKIP_VALIDATE_TRUST_DOMAIN", "Envoy's configuration, and no Envoy runs"},
	{"PILOT_ENABLE_*", "istiod reads it, not the agent"},
	{"PROXY_XDS_VIA_AGENT", "Envoy's configuration, and no Envoy runs"},
	{"PROXY_XDS_DEBUG_VIA_AGENT", "closes a port, which would be a port of the node on the host's network"},
	{"PROXY_XDS_LRS_ENABLED", "Envoy's statistics, and no Envoy runs"},
	{"TERMINATION_DRAIN_DURATION_SECONDS", "no Envoy to drain"},
	{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "no Envoy to drain"},
	{"MINIMUM_DRAIN_DURATION", "no Envoy to drain"},
	{"BOOTSTRAP_XDS_AGENT", "Envoy's configuration, and no Envoy runs"},
	{"ENVOY_*", "Envoy's settings, and no Envoy runs"},
	{"WASM_*", "Envoy's extensions, and no Envoy runs"},
	{"DNS_*", "DNS of an edge is not captured"},
	{"SECRET_GRACE_PERIOD_RATIO", "the agent renews at half of a lifetime"},
	{"SECRET_GRACE_PERIOD_RATIO_JITTER", "the agent renews at half of a lifetime"},
	{"SECRET_ROTATION_CHECK_INTERVAL", "removed from Istio"},
	{"SECRET_JOB_RUN_INTERVAL", "removed from Istio"},
	{"STALED_CONNECTION_RECYCLE_RUN_INTERVAL", "removed from Istio"},
	{"INITIAL_BACKOFF_MSEC", "the agent's default"},
	{"USE_TOKEN_FOR_CSR", "removed from Istio: always enabled"},
	{"XDS_AUTH_PROVIDER", "the agent's default"},
	{"CLUSTER_ID", "removed from Istio; ISTIO_META_CLUSTER_ID took its place"},
	{"NAMESPACE", "removed from Istio; POD_NAMESPACE took its place"},
	{"POD_IP", "removed from Istio; INSTANCE_IP took its place"},
	{"PKCS8_KEY", "the agent's default: every edge reads the key that it writes"},
}

// unsupportedVariables give the agent tasks that the agent of Isthmus does not have.
var unsupportedVariables = map[string]string{
	"PROV_CERT":               "the agent takes a certificate that is given to it",
	"FILE_MOUNTED_CERTS":      "the agent takes certificates that are given to it",
	"CA_ROOT_CA":              "the agent trusts a CA of your own",
	"XDS_ROOT_CA":             "the agent trusts a root of your own",
	"ISTIO_KUBE_APP_PROBERS":  "the agent answers the probes of other containers",
	"GRPC_XDS_BOOTSTRAP":      "the agent serves gRPC without proxies",
	"ECC_SIGNATURE_ALGORITHM": "the agent generates keys of a type that you chose",
	"ECC_CURVE":               "the agent generates keys of a type that you chose",
	"WORKLOAD_RSA_KEY_SIZE":   "the agent generates keys of a type that you chose",
}

// variableReason returns the reason for a variable, or "" if it is unknown.
func variableReason(name string) string {
	for _, v := range variableReasons {
		prefix, isPrefix := strings.CutSuffix(v.name, "*")
		if name == v.name || isPrefix && strings.HasPrefix(name, prefix) {
			return v.reason
		}
	}
	return ""
}

// pilotAgent matches the path of the agent's program.
var pilotAgent = regexp.MustCompile(`(^|/)pilot-agent$`)
