// Package policy decides who is opted in and in which way. It is pure.
package policy

// Domain is the prefix of every key of Isthmus'.
const Domain = "isthmus.dev/"

// Keys that users write.
const (
	// InjectionLabel on a namespace: InjectionEnabled or InjectionDisabled.
	InjectionLabel = Domain + "injection"
	// InjectKey on a pod, as annotation or label: "true" or "false".
	InjectKey = Domain + "inject"

	// ModeKey is an annotation of pod or namespace. Default sidecar.
	ModeKey = Domain + "mode"
	// DeliveryKey: files or secret. Default files.
	DeliveryKey = Domain + "delivery"
	// ProfileKey names a profile; on a pod it bypasses matching, on a
	// namespace it restricts it.
	ProfileKey = Domain + "profile"
	// CertDirKey is an absolute path. Default /etc/istio-certs.
	CertDirKey = Domain + "cert-dir"
	// SecretNameKey is one of the names that the settings allow. Default
	// istio-certs.
	SecretNameKey = Domain + "secret-name"
	// PublishKey: "true" adds the in-pod publisher. Default "false".
	PublishKey = Domain + "publish"
	// EnvoyKey: "true" runs the full proxy. Default "false".
	EnvoyKey = Domain + "envoy"
	// CertTTLKey is a Go duration, the lifetime asked of the CA.
	CertTTLKey = Domain + "cert-ttl"
	// ContainerKey, on a pod, names the edge container.
	ContainerKey = Domain + "container"

	// Keys of a namespace that the controller reads.
	SourceKey         = Domain + "source"
	ServiceAccountKey = Domain + "service-account"
	MirrorSecretKey   = Domain + "mirror-secret"
	TLSContextKey     = Domain + "tls-context"

	// RestartKey, on a workload or a namespace: "true" has the controller restart
	// the workload when its pods are stale, where the chart lets it. The workload
	// wins over the namespace. Default "false".
	RestartKey = Domain + "restart-when-stale"
)

// Values of InjectionLabel.
const (
	InjectionEnabled  = "enabled"
	InjectionDisabled = "disabled"
)

// Keys that Isthmus writes.
const (
	// StatusKey is the annotation that says exactly what was added.
	StatusKey = Domain + "status"
	// InjectedLabel is the marker; its value is the mode.
	InjectedLabel = Domain + "injected"
	// RestartedForKey is an annotation of a workload: the template hash that the
	// controller last restarted it for.
	RestartedForKey = Domain + "restarted-for"
)

// Keys of a Secret that the publisher writes, SourceKey among them: what is in
// it, for whoever may list Secrets' metadata and not read them.
const (
	// AdoptKey is an annotation that a user writes on a Secret of someone else's:
	// "true" gives it to Isthmus.
	AdoptKey = Domain + "adopt"
	// SPIFFEIDKey is the identity of the certificate.
	SPIFFEIDKey = Domain + "spiffe-id"
	// SerialKey is its serial number in hexadecimal.
	SerialKey = Domain + "serial"
	// NotBeforeKey is where its validity begins, in RFC 3339.
	NotBeforeKey = Domain + "not-before"
	// NotAfterKey is where its validity ends, in RFC 3339.
	NotAfterKey = Domain + "not-after"
	// RenewAfterKey is when it is due to be replaced, in RFC 3339.
	RenewAfterKey = Domain + "renew-after"
	// ManagedByLabel says who keeps a Secret; ManagedBy is us.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of ManagedByLabel on what Isthmus keeps.
	ManagedBy = "isthmus"
)

// Keys of others.
const (
	IstioInjectKey         = "sidecar.istio.io/inject"
	IstioRevisionLabel     = "istio.io/rev"
	IstioDataplaneLabel    = "istio.io/dataplane-mode"
	IstioTLSModeLabel      = "security.istio.io/tlsMode"
	IstioProxyConfigKey    = "proxy.istio.io/config"
	IstioUserVolumeMount   = "sidecar.istio.io/userVolumeMount"
	IstioProxyImageKey     = "sidecar.istio.io/proxyImage"
	IstioProxyCPUKey       = "sidecar.istio.io/proxyCPU"
	IstioProxyMemoryKey    = "sidecar.istio.io/proxyMemory"
	IstioProxyCPULimitKey  = "sidecar.istio.io/proxyCPULimit"
	IstioProxyMemLimitKey  = "sidecar.istio.io/proxyMemoryLimit"
	IstioLogLevelKey       = "sidecar.istio.io/logLevel"
	IstioAgentLogLevelKey  = "sidecar.istio.io/agentLogLevel"
	IstioStatusPortKey     = "status.sidecar.istio.io/port"
	ConsulInjectKey        = "consul.hashicorp.com/connect-inject"
	DefaultContainerKey    = "kubectl.kubernetes.io/default-container"
	OpenShiftUIDRangeKey   = "openshift.io/sa.scc.uid-range"
	NamespaceNameLabel     = "kubernetes.io/metadata.name"
	MirrorPodAnnotationKey = "kubernetes.io/config.mirror"

	// IstioInjectionLabel on a namespace: "enabled" sends its pods to the injector
	// of the default revision, any other value to none (mutatingwebhook.yaml of
	// Istio's chart).
	IstioInjectionLabel = "istio-injection"
	// IstioStatusKey is the annotation that Istio's injector leaves.
	IstioStatusKey = "sidecar.istio.io/status"
	// IstioUserVolumeKey adds volumes to a pod that Istio injects.
	IstioUserVolumeKey = "sidecar.istio.io/userVolume"
	// IstioInboundPortsKey are the ports that Istio captures; "" captures none.
	IstioInboundPortsKey = "traffic.sidecar.istio.io/includeInboundPorts"
	// IstioOutboundRangesKey are the addresses that Istio captures; "" captures
	// none.
	IstioOutboundRangesKey = "traffic.sidecar.istio.io/includeOutboundIPRanges"
	// AmbientInboundKey keeps ztunnel from capturing what comes to the pod. Since
	// Istio 1.24.
	AmbientInboundKey = "ambient.istio.io/bypass-inbound-capture"
	// IstioUseWaypointLabel names the waypoint that traffic to the pod goes through.
	IstioUseWaypointLabel = "istio.io/use-waypoint"
	// IstioIngressWaypointLabel is for Services and namespaces, and heeded by
	// Istio's own gateways alone.
	IstioIngressWaypointLabel = "istio.io/ingress-use-waypoint"
	// PodSecurityEnforceLabel on a namespace: the Pod Security level that its pods
	// have to pass.
	PodSecurityEnforceLabel = "pod-security.kubernetes.io/enforce"
)

// place says where a key of ours belongs.
type place uint8

const (
	podAnnotation place = 1 << iota
	podLabel
	namespaceAnnotation
	namespaceLabel
	workloadAnnotation
)

// places is every key of ours and where it may stand.
var places = map[string]place{
	InjectionLabel:    namespaceLabel,
	InjectKey:         podAnnotation | podLabel,
	ModeKey:           podAnnotation | namespaceAnnotation,
	DeliveryKey:       podAnnotation | namespaceAnnotation,
	ProfileKey:        podAnnotation | namespaceAnnotation,
	CertDirKey:        podAnnotation | namespaceAnnotation,
	SecretNameKey:     podAnnotation | namespaceAnnotation,
	PublishKey:        podAnnotation | namespaceAnnotation,
	EnvoyKey:          podAnnotation | namespaceAnnotation,
	CertTTLKey:        podAnnotation | namespaceAnnotation,
	ContainerKey:      podAnnotation,
	SourceKey:         namespaceAnnotation,
	ServiceAccountKey: namespaceAnnotation,
	MirrorSecretKey:   namespaceAnnotation,
	TLSContextKey:     namespaceAnnotation,
	RestartKey:        workloadAnnotation | namespaceAnnotation,
	RestartedForKey:   workloadAnnotation,
	StatusKey:         podAnnotation,
	InjectedLabel:     podLabel,
}
