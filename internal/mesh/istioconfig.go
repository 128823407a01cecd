package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// The keys that are read from Istio's ConfigMaps.
const (
	keyValues = "values"
	keyMesh   = "mesh"
)

// injectorValues holds the fields that Isthmus reads from the key values of the
// injector ConfigMap: the chart's values, as the injection template sees them. All
// other fields are ignored and may change with any version of Istio.
type injectorValues struct {
	Global struct {
		CAAddress         string `json:"caAddress"`
		Hub               string `json:"hub"`
		ImagePullPolicy   string `json:"imagePullPolicy"`
		IstioNamespace    string `json:"istioNamespace"`
		JWTPolicy         string `json:"jwtPolicy"` // until Istio 1.23
		MeshID            string `json:"meshID"`
		Network           string `json:"network"`
		PilotCertProvider string `json:"pilotCertProvider"`
		Tag               scalar `json:"tag"`
		TrustBundleName   string `json:"trustBundleName"`
		TrustDomain       string `json:"trustDomain"`
		Variant           string `json:"variant"`
		MultiCluster      struct {
			ClusterName string `json:"clusterName"`
		} `json:"multiCluster"`
		Proxy struct {
			ClusterDomain string `json:"clusterDomain"`
			Image         string `json:"image"`
		} `json:"proxy"`
		SDS struct {
			Token struct {
				Aud string `json:"aud"`
			} `json:"token"`
		} `json:"sds"`
	} `json:"global"`
	Pilot struct {
		// Env is part of the values since Istio 1.26.
		Env struct {
			ClusterTrustBundles scalar `json:"ENABLE_CLUSTER_TRUST_BUNDLE_API"`
			MaxCertTTL          scalar `json:"MAX_WORKLOAD_CERT_TTL"`
		} `json:"env"`
	} `json:"pilot"`
}

// meshConfig holds the fields that Isthmus reads from the key mesh of the mesh
// ConfigMap, which is a MeshConfig of istio.io/api. The generated type would link
// the protos of half of Istio's API into the webhook for these few fields.
type meshConfig struct {
	// TrustDomain is nil when it is not set: Istio then uses cluster.local.
	TrustDomain *string `json:"trustDomain"`
	// CACertificates are roots beside that of istiod's own CA. istiod distributes
	// all of them, whatever trust domains and signers they name
	// (pilot/pkg/trustbundle).
	CACertificates []struct {
		PEM             string `json:"pem"`
		SPIFFEBundleURL string `json:"spiffeBundleUrl"`
	} `json:"caCertificates"`
	DefaultConfig struct {
		DiscoveryAddress string `json:"discoveryAddress"`
		MeshID           string `json:"meshId"`
		Image            struct {
			ImageType string `json:"imageType"`
		} `json:"image"`
		// ProxyMetadata becomes environment variables of the sidecar. They come
		// after those of the injection template and override them.
		ProxyMetadata struct {
			CAAddr             string `json:"CA_ADDR"`
			CertProvider       string `json:"PILOT_CERT_PROVIDER"`
			ClusterID          string `json:"ISTIO_META_CLUSTER_ID"`
			ECCCurve           string `json:"ECC_CURVE"`
			IstiodSAN          string `json:"ISTIOD_SAN"`
			MeshID             string `json:"ISTIO_META_MESH_ID"`
			Network            string `json:"ISTIO_META_NETWORK"`
			RSAKeySize         scalar `json:"WORKLOAD_RSA_KEY_SIZE"`
			SignatureAlgorithm string `json:"ECC_SIGNATURE_ALGORITHM"`
			TrustDomain        string `json:"TRUST_DOMAIN"`
		} `json:"proxyMetadata"`
	} `json:"defaultConfig"`
}

// scalar is a string that users also write as a bare number or boolean, as in
// "tag: 1.31".
type scalar string

// UnmarshalJSON implements json.Unmarshaler.
func (s *scalar) UnmarshalJSON(data []byte) error {
	// The decoder adds the field's path to an UnmarshalTypeError.
	typeError := &json.UnmarshalTypeError{Type: reflect.TypeFor[string]()}
	switch data[0] {
	case '"':
		return json.Unmarshal(data, (*string)(s))
	case '{':
		typeError.Value = "object"
		return typeError
	case '[':
		typeError.Value = "array"
		return typeError
	case 'n':
		return nil
	default:
		*s = scalar(data)
		return nil
	}
}

// decode reads the YAML or JSON under a key of a ConfigMap into out. It ignores
// unknown fields. A known field of the wrong type is an error that names its path.
func decode(cm *corev1.ConfigMap, key string, out any) error {
	data, err := yaml.YAMLToJSON([]byte(cm.Data[key]))
	if err != nil {
		return fmt.Errorf("%s: not YAML: %w", configMapPath(cm, key), err)
	}
	err = kjson.UnmarshalCaseSensitivePreserveInts(data, out)
	var typeError *json.UnmarshalTypeError
	switch {
	case errors.As(err, &typeError) && typeError.Field == "":
		return fmt.Errorf("%s: want a mapping, got %s", configMapPath(cm, key), typeError.Value)
	case errors.As(err, &typeError):
		return fmt.Errorf("%s.%s: want %s, got %s", configMapPath(cm, key), typeError.Field, yamlType(typeError), typeError.Value)
	case err != nil:
		return fmt.Errorf("%s: %w", configMapPath(cm, key), err)
	}
	return nil
}

// yamlType returns the type that a field should have, in the words of YAML.
func yamlType(e *json.UnmarshalTypeError) string {
	if e.Type.Kind() == reflect.Struct {
		return "a mapping"
	}
	return "a " + e.Type.Kind().String()
}

// configMapPath names a path inside a ConfigMap, for errors and for
// Settings.Sources.
func configMapPath(cm *corev1.ConfigMap, path string) string {
	return fmt.Sprintf("ConfigMap %s/%s %s", cm.Namespace, cm.Name, path)
}
