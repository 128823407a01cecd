package mesh

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/patches"
)

// defaultMaxCertTTL is istiod's default for MAX_WORKLOAD_CERT_TTL (security/pkg/cmd
// of Istio).
const defaultMaxCertTTL = 90 * 24 * time.Hour

// readAddresses reads the addresses of istiod and of the certificate authority.
func (r *settingsReader) readAddresses() {
	global, metadata := r.values.Global, r.mesh.DefaultConfig.ProxyMetadata
	composedDiscovery := sourcedValue{value: IstiodAddress(r.Namespace, r.Revision), source: r.revisionSource()}
	r.setField("discoveryAddress", r.fromMesh("defaultConfig.discoveryAddress", r.mesh.DefaultConfig.DiscoveryAddress), composedDiscovery)

	// The injection template composes the CA's address when none is given. When
	// the composed address equals the discovery address, caAddress stays unset, so
	// that it follows an explicit discovery address.
	var composedCA sourcedValue
	if r.Injector != nil && global.IstioNamespace != "" {
		composedCA = r.fromValues("global.istioNamespace", IstiodAddress(global.IstioNamespace, r.Revision))
		if composedCA.value == r.settings.Mesh.DiscoveryAddress {
			composedCA = sourcedValue{}
		}
	}
	r.setField("caAddress",
		r.fromMetadata("CA_ADDR", metadata.CAAddr),
		r.fromValues("global.caAddress", global.CAAddress),
		composedCA)
	if hasIstiodName(r.settings.Mesh) {
		r.setField(fieldCAServerName, r.fromMetadata("ISTIOD_SAN", metadata.IstiodSAN))
	}
}

// hasIstiodName reports whether ISTIOD_SAN is the name in the certificate of the
// authority. Istio's agent expects it of istiod's own authority. An authority at an IP
// address needs a name too. Any other authority has a name of its own.
func hasIstiodName(m patches.Mesh) bool {
	if m.CAAddress == "" || m.CAAddress == m.DiscoveryAddress {
		return true
	}
	host, _, err := net.SplitHostPort(m.CAAddress)
	return err == nil && net.ParseIP(host) != nil
}

// readKeySettings reads what the mesh wants of its workloads' keys. A value that Istio
// does not know is kept: it concerns certificates alone, and a request for one
// reports it.
func (r *settingsReader) readKeySettings() {
	metadata := r.mesh.DefaultConfig.ProxyMetadata
	r.setField("eccSignatureAlgorithm", r.fromMetadata("ECC_SIGNATURE_ALGORITHM", metadata.SignatureAlgorithm))
	r.setField("eccCurve", r.fromMetadata("ECC_CURVE", metadata.ECCCurve))
	r.setField("workloadRSAKeySize", r.fromMetadata("WORKLOAD_RSA_KEY_SIZE", string(metadata.RSAKeySize)))
	m := r.settings.Mesh
	settings := certs.KeySettings{SignatureAlgorithm: m.ECCSignatureAlgorithm, Curve: m.ECCCurve, RSASize: m.WorkloadRSAKeySize}
	if _, err := settings.Algorithm(); err != nil {
		r.warn("%s: %v: the controller requests no certificate with it", configMapPath(r.MeshConfig, keyMesh+".defaultConfig.proxyMetadata"), err)
	}
}

// revisionSource names the object that shows that the revision is installed.
func (r *settingsReader) revisionSource() string {
	if r.Injector != nil {
		return configMapPath(r.Injector, "metadata")
	}
	return configMapPath(r.MeshConfig, "metadata")
}

// readIdentity reads what makes up the identity of a pod: trust domain, mesh,
// cluster and network, and the certificate provider.
func (r *settingsReader) readIdentity() {
	global, metadata := r.values.Global, r.mesh.DefaultConfig.ProxyMetadata

	trustDomain := r.fromValues("global.trustDomain", global.TrustDomain)
	if r.mesh.TrustDomain != nil && *r.mesh.TrustDomain != "" {
		trustDomain = r.fromMesh("trustDomain", *r.mesh.TrustDomain)
	} else if r.MeshConfig != nil && r.mesh.TrustDomain == nil {
		// istiod signs for the trust domain of its MeshConfig, which has a default.
		// The chart's value has no effect here.
		trustDomain = sourcedValue{}
	}
	if r.MeshConfig == nil {
		r.warn("no ConfigMap %s/%s with label %s found: Istio's built-in mesh configuration is assumed",
			r.Namespace, objectName(meshConfigName, r.Revision), revisionLabel)
	}
	r.setField("trustDomain", r.fromMetadata("TRUST_DOMAIN", metadata.TrustDomain), trustDomain)
	r.setField("meshID",
		r.fromMetadata("ISTIO_META_MESH_ID", metadata.MeshID),
		r.fromValues("global.meshID", global.MeshID),
		r.fromMesh("defaultConfig.meshId", r.mesh.DefaultConfig.MeshID))
	r.setField("clusterDomain", r.fromValues("global.proxy.clusterDomain", global.Proxy.ClusterDomain))
	r.setField("network",
		r.fromMetadata("ISTIO_META_NETWORK", metadata.Network),
		r.fromValues("global.network", global.Network))
	// Istio's injection template and istiod's Deployment both use "Kubernetes"
	// when the chart names no cluster.
	r.setField("clusterID",
		r.fromMetadata("ISTIO_META_CLUSTER_ID", metadata.ClusterID),
		r.fromValues("global.multiCluster.clusterName", global.MultiCluster.ClusterName),
		r.fromIstiod("CLUSTER_ID"),
		r.fromValues("global.multiCluster.clusterName unset: Istio's default", "Kubernetes"))
	r.setField("certProvider",
		r.fromMetadata("PILOT_CERT_PROVIDER", metadata.CertProvider),
		r.fromValues("global.pilotCertProvider", global.PilotCertProvider),
		r.fromIstiod("PILOT_CERT_PROVIDER"))
	r.setField("tokenAudience", r.fromValues("global.sds.token.aud", global.SDS.Token.Aud))
	if global.JWTPolicy == "first-party-jwt" {
		r.warn("%s is first-party-jwt: istiod may refuse the audience-bound token that Isthmus mounts; use third-party-jwt",
			configMapPath(r.Injector, keyValues+".global.jwtPolicy"))
	}
}

// readImage reads the image of the sidecar and its pull policy.
func (r *settingsReader) readImage() {
	image, err := proxyImage(r.values, r.mesh.DefaultConfig.Image.ImageType)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", configMapPath(r.Injector, keyValues), err))
		return
	}
	path := "global.{hub,tag}"
	if strings.Contains(r.values.Global.Proxy.Image, "/") {
		path = "global.proxy.image"
	}
	r.setField("proxyImage", r.fromValues(path, image))
	r.setField("imagePullPolicy", r.fromValues("global.imagePullPolicy", r.values.Global.ImagePullPolicy))
}

// readRootLocation reads which object holds the mesh's root certificate.
func (r *settingsReader) readRootLocation() {
	name := r.fromValues("global.trustBundleName", r.values.Global.TrustBundleName)
	if name.value == "" {
		name = r.fromIstiod("PILOT_CA_CERT_CONFIGMAP")
	}
	if problems := validation.IsDNS1123Subdomain(name.value); name.value != "" && len(problems) > 0 {
		r.errs = append(r.errs, fmt.Errorf("%s: trust bundle name %q: %s", name.source, name.value, problems[0]))
		return
	}
	if r.values.Pilot.Env.ClusterTrustBundles != "true" {
		r.setField(fieldRootConfigMap, name)
		return
	}
	bundle := r.fromValues("pilot.env.ENABLE_CLUSTER_TRUST_BUNDLE_API", "root-cert")
	if r.values.Global.TrustBundleName != "" {
		bundle.value = r.values.Global.TrustBundleName
	}
	bundle.value = "istio.io:istiod-ca:" + bundle.value
	r.setField("rootClusterTrustBundle", bundle)
}

// readExtraRoots reads the roots in MeshConfig.caCertificates.
func (r *settingsReader) readExtraRoots() {
	s, problems := &r.settings, []error(nil)
	for i, c := range r.mesh.CACertificates {
		source := configMapPath(r.MeshConfig, fmt.Sprintf("%s.caCertificates[%d]", keyMesh, i))
		if c.PEM == "" {
			if c.SPIFFEBundleURL != "" {
				r.warn("%s.spiffeBundleUrl is not read: put the roots of %s into pem", source, c.SPIFFEBundleURL)
			}
			continue
		}
		roots, err := certs.ParseRoots([]byte(c.PEM))
		if err != nil {
			problems = append(problems, fmt.Errorf("%s.pem: %w", source, err))
		}
		s.ExtraRoots = certs.MergeRoots(s.ExtraRoots, roots)
		s.Sources[fieldExtraRoots] = configMapPath(r.MeshConfig, keyMesh+".caCertificates")
	}
	s.ExtraRootsErr = errors.Join(problems...)
}

// readMaxCertTTL reads the maximum certificate lifetime that istiod grants.
func (r *settingsReader) readMaxCertTTL() {
	ttl := r.fromIstiod("MAX_WORKLOAD_CERT_TTL")
	switch {
	case r.Istiod == nil:
		ttl = r.fromValues("pilot.env.MAX_WORKLOAD_CERT_TTL", string(r.values.Pilot.Env.MaxCertTTL))
		if ttl.value == "" {
			r.warn("no Deployment of istiod found in namespace %s: the maximum certificate lifetime is unknown", r.Namespace)
			return
		}
	case isSetFrom(r.Istiod, "MAX_WORKLOAD_CERT_TTL"):
		r.warn("%s is not a literal value: the maximum certificate lifetime is unknown", ttl.source)
		return
	case ttl.value == "":
		ttl.value = defaultMaxCertTTL.String()
		ttl.source += " unset: istiod's default"
	}
	d, err := time.ParseDuration(ttl.value)
	if err != nil {
		// istiod logs the parse error and continues with its default.
		r.warn("%s is %q, which is not a duration such as 24h: istiod uses %s instead", ttl.source, ttl.value, defaultMaxCertTTL)
		d = defaultMaxCertTTL
	}
	if d <= 0 {
		r.warn("%s is %s: istiod refuses every certificate request that names a lifetime", ttl.source, ttl.value)
		return
	}
	r.settings.Mesh.MaxCertTTL = patches.Duration(d)
	r.settings.Sources[fieldMaxCertTTL] = ttl.source
}
