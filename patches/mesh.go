package patches

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/distribution/reference"
)

// Mesh is what Isthmus must know of an Istio control plane to give a pod an
// identity in it. The zero value of a field means "not known"; Defaults fills
// what has a documented default.
type Mesh struct {
	// Revision is the control plane's revision, empty for the default one.
	Revision string `json:"revision,omitempty"`
	// DiscoveryAddress is host:port of istiod's xDS server. Default
	// istiod.istio-system.svc:15012, with the revision in the host when there
	// is one.
	DiscoveryAddress string `json:"discoveryAddress,omitempty"`
	// CAAddress is host:port of the certificate authority. Default:
	// DiscoveryAddress.
	CAAddress string `json:"caAddress,omitempty"`
	// TrustDomain is the SPIFFE trust domain. Default cluster.local.
	TrustDomain string `json:"trustDomain,omitempty"`
	// ClusterDomain is the cluster's DNS suffix. Default cluster.local.
	ClusterDomain string `json:"clusterDomain,omitempty"`
	// ClusterID is the cluster's name in the mesh. No default: istiod refuses
	// a token that names another cluster, and accepts one that names none.
	ClusterID string `json:"clusterID,omitempty"`
	// MeshID identifies the mesh in telemetry. Default: TrustDomain.
	MeshID string `json:"meshID,omitempty"`
	// Network is the network the pods are on. No default.
	Network string `json:"network,omitempty"`
	// ProxyImage is the proxyv2 image that the sidecar runs. Default
	// DefaultProxyImage.
	ProxyImage string `json:"proxyImage,omitempty"`
	// ImagePullPolicy of the sidecar. Default: Kubernetes' own.
	ImagePullPolicy string `json:"imagePullPolicy,omitempty"`
	// CertProvider is PILOT_CERT_PROVIDER. Default istiod.
	CertProvider string `json:"certProvider,omitempty"`
	// TokenAudience is the audience of the projected service account token.
	// Default istio-ca.
	TokenAudience string `json:"tokenAudience,omitempty"`
	// RootConfigMap is the ConfigMap that holds the mesh's root certificate in
	// every namespace. Default istio-ca-root-cert.
	RootConfigMap string `json:"rootConfigMap,omitempty"`
	// RootClusterTrustBundle is the ClusterTrustBundle that holds the root
	// instead of RootConfigMap, where istiod publishes one. No default.
	RootClusterTrustBundle string `json:"rootClusterTrustBundle,omitempty"`
	// MaxCertTTL is the longest lifetime that the CA grants
	// (MAX_WORKLOAD_CERT_TTL of istiod); a longer request is refused, not
	// clamped. Zero means not known.
	MaxCertTTL Duration `json:"maxCertTTL,omitempty"`
}

// DefaultProxyImage is used when neither the settings nor the cluster name one.
const DefaultProxyImage = "docker.io/istio/proxyv2:1.31.1"

// Overlay returns m with every field that over sets taken from over.
func (m Mesh) Overlay(over Mesh) Mesh {
	set := func(dst *string, src string) {
		if src != "" {
			*dst = src
		}
	}
	set(&m.Revision, over.Revision)
	set(&m.DiscoveryAddress, over.DiscoveryAddress)
	set(&m.CAAddress, over.CAAddress)
	set(&m.TrustDomain, over.TrustDomain)
	set(&m.ClusterDomain, over.ClusterDomain)
	set(&m.ClusterID, over.ClusterID)
	set(&m.MeshID, over.MeshID)
	set(&m.Network, over.Network)
	set(&m.ProxyImage, over.ProxyImage)
	set(&m.ImagePullPolicy, over.ImagePullPolicy)
	set(&m.CertProvider, over.CertProvider)
	set(&m.TokenAudience, over.TokenAudience)
	set(&m.RootConfigMap, over.RootConfigMap)
	set(&m.RootClusterTrustBundle, over.RootClusterTrustBundle)
	if over.MaxCertTTL != 0 {
		m.MaxCertTTL = over.MaxCertTTL
	}
	return m
}

// Defaults returns m with the documented default in every field that has one
// and is empty.
func (m Mesh) Defaults() Mesh {
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

// Validate says everything that is wrong with the fields that are set, each
// error naming field, value and what is allowed.
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

// Duration is a time.Duration that is written as Go writes it ("24h").
type Duration time.Duration

// String returns the duration as Go writes it.
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
