package patches

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"time"

	"github.com/distribution/reference"
)

// Mesh holds the mesh settings: what Isthmus must know about an Istio control plane to
// give a pod an identity in its mesh. The zero value of a field means that the setting
// is unknown; WithDefaults fills in the documented defaults.
type Mesh struct {
	// Revision is the control plane's revision, empty for the default one.
	Revision string `json:"revision,omitempty"`
	// DiscoveryAddress is host:port of istiod's xDS server. Default
	// istiod.istio-system.svc:15012, with the revision in the host if there is
	// one.
	DiscoveryAddress string `json:"discoveryAddress,omitempty"`
	// CAAddress is host:port of the certificate authority. Default:
	// DiscoveryAddress.
	CAAddress string `json:"caAddress,omitempty"`
	// CAServerName is the DNS name in the certificate of the authority (ISTIOD_SAN).
	// Default: the host in CAAddress.
	CAServerName string `json:"caServerName,omitempty"`
	// TrustDomain is the SPIFFE trust domain. Default cluster.local.
	TrustDomain string `json:"trustDomain,omitempty"`
	// ClusterDomain is the cluster's DNS suffix. Default cluster.local.
	ClusterDomain string `json:"clusterDomain,omitempty"`
	// ClusterID is the cluster's name in the mesh. No default: istiod refuses a
	// request that names another cluster, and accepts one that names none.
	ClusterID string `json:"clusterID,omitempty"`
	// MeshID identifies the mesh in telemetry. Default: TrustDomain.
	MeshID string `json:"meshID,omitempty"`
	// Network is the network of the pods. No default.
	Network string `json:"network,omitempty"`
	// ProxyImage is the proxyv2 image that the sidecar runs. Default
	// DefaultProxyImage.
	ProxyImage string `json:"proxyImage,omitempty"`
	// ImagePullPolicy is that of the sidecar. Default: Kubernetes' own.
	ImagePullPolicy string `json:"imagePullPolicy,omitempty"`
	// CertProvider is PILOT_CERT_PROVIDER. Default istiod.
	CertProvider string `json:"certProvider,omitempty"`
	// TokenAudience is the audience of the projected service account token.
	// Default istio-ca.
	TokenAudience string `json:"tokenAudience,omitempty"`
	// ECCSignatureAlgorithm is ECC_SIGNATURE_ALGORITHM of Istio's agent: ECDSA. No
	// default: Istio's agent then creates RSA keys, Isthmus ECDSA keys of P-256.
	ECCSignatureAlgorithm string `json:"eccSignatureAlgorithm,omitempty"`
	// ECCCurve is ECC_CURVE: P256 or P384. It applies with ECCSignatureAlgorithm only.
	// No default: Istio's agent then uses P256.
	ECCCurve string `json:"eccCurve,omitempty"`
	// WorkloadRSAKeySize is WORKLOAD_RSA_KEY_SIZE, the size of RSA keys in bits. No
	// default.
	WorkloadRSAKeySize string `json:"workloadRSAKeySize,omitempty"`
	// RootConfigMap is the ConfigMap that holds the mesh's root certificate in
	// every namespace. Default istio-ca-root-cert.
	RootConfigMap string `json:"rootConfigMap,omitempty"`
	// RootClusterTrustBundle is the ClusterTrustBundle that holds the root instead
	// of RootConfigMap, if istiod publishes one. No default.
	RootClusterTrustBundle string `json:"rootClusterTrustBundle,omitempty"`
	// MaxCertTTL is the longest lifetime that the CA grants
	// (MAX_WORKLOAD_CERT_TTL of istiod). istiod refuses a longer request instead of
	// shortening the lifetime. Zero means unknown.
	MaxCertTTL Duration `json:"maxCertTTL,omitempty"`
}

// DefaultProxyImage is the proxy image if neither the settings nor the cluster name
// one.
const DefaultProxyImage = "docker.io/istio/proxyv2:1.31.1"

// MeshField is a field of Mesh that holds text.
type MeshField struct {
	// Name is the field's name in JSON.
	Name  string
	index int
}

// In returns a pointer to the field of m.
func (f MeshField) In(m *Mesh) *string {
	return reflect.ValueOf(m).Elem().Field(f.index).Addr().Interface().(*string)
}

// MeshTextFields lists the fields of Mesh that hold text, in their order: all but
// MaxCertTTL.
func MeshTextFields() []MeshField {
	var fields []MeshField
	t := reflect.TypeFor[Mesh]()
	for i := range t.NumField() {
		if f := t.Field(i); f.Type.Kind() == reflect.String {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields = append(fields, MeshField{Name: name, index: i})
		}
	}
	return fields
}

// Overlay returns m with every field that is set in over taken from over.
func (m Mesh) Overlay(over Mesh) Mesh {
	from, to := reflect.ValueOf(over), reflect.ValueOf(&m).Elem()
	for i := range from.NumField() {
		if field := from.Field(i); !field.IsZero() {
			to.Field(i).Set(field)
		}
	}
	return m
}

// WithDefaults returns m with the documented default in every empty field that has one.
func (m Mesh) WithDefaults() Mesh {
	host := "istiod.istio-system.svc:15012"
	if m.Revision != "" && m.Revision != "default" {
		host = "istiod-" + m.Revision + ".istio-system.svc:15012"
	}
	base := Mesh{
		DiscoveryAddress: host,
		TrustDomain:      "cluster.local",
		ClusterDomain:    "cluster.local",
		ProxyImage:       DefaultProxyImage,
		CertProvider:     "istiod",
		TokenAudience:    "istio-ca",
		RootConfigMap:    "istio-ca-root-cert",
	}
	m = base.Overlay(m)
	if m.CAAddress == "" {
		m.CAAddress = m.DiscoveryAddress
	}
	if m.MeshID == "" {
		m.MeshID = m.TrustDomain
	}
	return m
}

// Validate checks the fields that are set. Each of the joined errors names the field,
// its value and what is allowed.
func (m Mesh) Validate() error {
	var errs []error
	for _, a := range []struct{ field, value string }{
		{"discoveryAddress", m.DiscoveryAddress}, {"caAddress", m.CAAddress},
	} {
		if a.value == "" {
			continue
		}
		if host, port, err := net.SplitHostPort(a.value); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("%s %q: want host:port", a.field, a.value))
		}
	}
	if m.ProxyImage != "" {
		if _, err := reference.ParseNormalizedNamed(m.ProxyImage); err != nil {
			errs = append(errs, fmt.Errorf("proxyImage %q: %w", m.ProxyImage, err))
		}
	}
	switch m.ImagePullPolicy {
	case "", "Always", "IfNotPresent", "Never":
	default:
		errs = append(errs, fmt.Errorf("imagePullPolicy %q: want Always, IfNotPresent or Never", m.ImagePullPolicy))
	}
	if m.TrustDomain != "" && strings.ContainsAny(m.TrustDomain, "/: \t\n") {
		errs = append(errs, fmt.Errorf("trustDomain %q: want a SPIFFE trust domain such as cluster.local", m.TrustDomain))
	}
	if m.MaxCertTTL < 0 {
		errs = append(errs, fmt.Errorf("maxCertTTL %s: want a positive duration such as 24h", m.MaxCertTTL))
	}
	return errors.Join(errs...)
}

// Duration is a time.Duration whose text form is that of Go, such as "24h".
type Duration time.Duration

// String returns the duration in the form of Go, such as "24h0m0s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 24h: %w", text, err)
	}
	*d = Duration(v)
	return nil
}
