// Package policy decides which pods are opted in and with which options. It is
// pure: it has no clock, client, file or logger.
package policy

// Domain is the prefix of every label and annotation key of Isthmus.
const Domain = "isthmus.dev/"

// Keys that users write.
const (
	// InjectionLabel is a label of a namespace: InjectionEnabled or
	// InjectionDisabled.
	InjectionLabel = Domain + "injection"
	// InjectKey is an annotation or label of a pod: "true" or "false".
	InjectKey = Domain + "inject"

	// ModeKey is an annotation of a pod or namespace: a Mode. Default sidecar.
	ModeKey = Domain + "mode"
	// DeliveryKey is an annotation of a pod or namespace: a Delivery. Default
	// files.
	DeliveryKey = Domain + "delivery"
	// ProfileKey is an annotation of a pod or namespace: the name of a profile. A
	// pod's profile bypasses matching; a namespace's profile restricts matching to
	// that profile.
	ProfileKey = Domain + "profile"
	// CertDirKey is an annotation of a pod or namespace: the absolute path of the
	// certificate directory. Default /etc/istio-certs.
	CertDirKey = Domain + "cert-dir"
	// SecretNameKey is an annotation of a pod or namespace: one of the Secret names
	// that the settings allow. Default istio-certs.
	SecretNameKey = Domain + "secret-name"
	// PublishKey is an annotation of a pod or namespace: "true" adds the in-pod
	// publisher. Default "false".
	PublishKey = Domain + "publish"
	// EnvoyKey is an annotation of a pod or namespace: "true" runs the full proxy.
	// Default "false".
	EnvoyKey = Domain + "envoy"
	// CertTTLKey is an annotation of a pod or namespace: the certificate lifetime
	// requested from the CA, as a Go duration.
	CertTTLKey = Domain + "cert-ttl"
	// ContainerKey is an annotation of a pod: the name of the edge container.
	ContainerKey = Domain + "container"

	// SourceKey is an annotation of a namespace: a Source. Default istio-ca.
	SourceKey = Domain + "source"
	// ServiceAccountKey is an annotation of a namespace: the service account whose
	// Secret the controller maintains even while no edge pod uses it.
	ServiceAccountKey = Domain + "service-account"
	// MirrorSecretKey is an annotation of a namespace: the Secret that source mirror
	// follows. Default istio.<service account>.
	MirrorSecretKey = Domain + "mirror-secret"
	// TLSContextKey is an annotation of a namespace: "true" requests a TLSContext, and
	// a name that the settings allow requests one of that name. Default "false".
	TLSContextKey = Domain + "tls-context"

	// RestartKey is an annotation of a workload or namespace: with "true" the
	// controller restarts the workload when its pods are stale, if the chart enables
	// restarts. The workload wins over the namespace. Default "false".
	RestartKey = Domain + "restart-when-stale"
)

// Values of InjectionLabel.
const (
	InjectionEnabled  = "enabled"
	InjectionDisabled = "disabled"
)

// Keys that Isthmus writes on pods and workloads.
const (
	// StatusKey is an annotation of an injected pod: the exact list of what Isthmus
	// added.
	StatusKey = Domain + "status"
	// InjectedLabel is a label of an injected pod: its mode.
	InjectedLabel = Domain + "injected"
	// RestartedForKey is an annotation of a workload: the template hash that the
	// controller last restarted it for.
	RestartedForKey = Domain + "restarted-for"
)

// Keys of a Secret. All but AdoptKey are written when a certificate is published,
// together with SourceKey: they describe the certificate to users that may list
// the metadata of Secrets but not read their data.
const (
	// AdoptKey is an annotation that a user writes on an existing Secret: "true"
	// lets Isthmus take the Secret over.
	AdoptKey = Domain + "adopt"
	// SPIFFEIDKey is the identity of the certificate.
	SPIFFEIDKey = Domain + "spiffe-id"
	// SerialKey is the serial number of the certificate, in hexadecimal.
	SerialKey = Domain + "serial"
	// NotBeforeKey is when the certificate becomes valid, in RFC 3339.
	NotBeforeKey = Domain + "not-before"
	// NotAfterKey is when the certificate expires, in RFC 3339.
	NotAfterKey = Domain + "not-after"
	// RenewAfterKey is when the certificate is due for renewal, in RFC 3339.
	RenewAfterKey = Domain + "renew-after"
	// PublishedAtKey is when the Secret was last written, in RFC 3339.
	PublishedAtKey = Domain + "published-at"
	// NudgeKey is when the Secret was last nudged, in RFC 3339: this annotation alone
	// changed, so that an edge which missed the last write reads the Secret again.
	NudgeKey = Domain + "nudge"
	// ManagedByLabel is the label that names the manager of an object.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of ManagedByLabel on objects managed by Isthmus.
	ManagedBy = "isthmus"
)

// Keys of Istio, Kubernetes, Consul and OpenShift.
const (
	IstioInjectKey        = "sidecar.istio.io/inject"
	IstioRevisionLabel    = "istio.io/rev"
	IstioDataplaneLabel   = "istio.io/dataplane-mode"
	IstioTLSModeLabel     = "security.istio.io/tlsMode"
	IstioProxyConfigKey   = "proxy.istio.io/config"
	IstioUserVolumeMount  = "sidecar.istio.io/userVolumeMount"
	IstioProxyImageKey    = "sidecar.istio.io/proxyImage"
	IstioProxyCPUKey      = "sidecar.istio.io/proxyCPU"
	IstioProxyMemoryKey   = "sidecar.istio.io/proxyMemory"
	IstioProxyCPULimitKey = "sidecar.istio.io/proxyCPULimit"
	IstioProxyMemLimitKey = "sidecar.istio.io/proxyMemoryLimit"
	IstioLogLevelKey      = "sidecar.istio.io/logLevel"
	IstioAgentLogLevelKey = "sidecar.istio.io/agentLogLevel"
	IstioStatusPortKey    = "status.sidecar.istio.io/port"
	ConsulInjectKey       = "consul.hashicorp.com/connect-inject"
	DefaultContainerKey   = "kubectl.kubernetes.io/default-container"
	OpenShiftUIDRangeKey  = "openshift.io/sa.scc.uid-range"

	// IstioInjectionLabel is a label of a namespace: "enabled" sends its pods to the
	// injector of the default revision, any other value to none
	// (mutatingwebhook.yaml of Istio's chart).
	IstioInjectionLabel = "istio-injection"
	// IstioTemplatesKey lists the templates that Istio's injector uses. Default: those
	// of the injector's configuration, usually sidecar.
	IstioTemplatesKey = "inject.istio.io/templates"
	// IstioStatusKey is the annotation that Istio's injector writes.
	IstioStatusKey = "sidecar.istio.io/status"
	// IstioUserVolumeKey adds volumes to a pod that Istio injects.
	IstioUserVolumeKey = "sidecar.istio.io/userVolume"
	// IstioInboundPortsKey lists the ports that Istio captures; "" captures none.
	IstioInboundPortsKey = "traffic.sidecar.istio.io/includeInboundPorts"
	// IstioOutboundRangesKey lists the address ranges that Istio captures; ""
	// captures none.
	IstioOutboundRangesKey = "traffic.sidecar.istio.io/includeOutboundIPRanges"
	// AmbientInboundKey keeps ztunnel from capturing the pod's inbound traffic.
	// Since Istio 1.24.
	AmbientInboundKey = "ambient.istio.io/bypass-inbound-capture"
	// IstioUseWaypointLabel names the waypoint for traffic to the pod.
	IstioUseWaypointLabel = "istio.io/use-waypoint"
	// IstioIngressWaypointLabel is a label of Services and namespaces. Only Istio's
	// own gateways honour it.
	IstioIngressWaypointLabel = "istio.io/ingress-use-waypoint"
	// RestartedAtKey is the annotation that kubectl rollout restart sets on a pod
	// template (defaultObjectRestarter of kubectl).
	RestartedAtKey = "kubectl.kubernetes.io/restartedAt"
	// PodSecurityEnforceLabel is a label of a namespace: the Pod Security level that
	// its pods must pass.
	PodSecurityEnforceLabel = "pod-security.kubernetes.io/enforce"
)

// keyLocation is a set of places where a key of Isthmus has an effect.
type keyLocation uint8

const (
	podAnnotation keyLocation = 1 << iota
	podLabel
	namespaceAnnotation
	namespaceLabel
	workloadAnnotation
)

// keyLocations maps every key for pods, namespaces and workloads to the places
// where it has an effect. The keys of Secrets are not part of it.
var keyLocations = map[string]keyLocation{
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
