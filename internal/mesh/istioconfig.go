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

// The keys of Istio's ConfigMaps that are read.
const (
	keyValues = "values"
	keyMesh   = "mesh"
)

// injectorValues is the part that matters of the injector ConfigMap's key
// values: the chart's values, as the injection template sees them. Everything
// else in there is Istio's own business and may change as it likes.
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
		// Env is in here since Istio 1.26.
		Env struct {
			ClusterTrustBundles scalar `json:"ENABLE_CLUSTER_TRUST_BUNDLE_API"`
			MaxCertTTL          scalar `json:"MAX_WORKLOAD_CERT_TTL"`
		} `json:"env"`
	} `json:"pilot"`
}

// meshConfig is the part that matters of the mesh ConfigMap's key mesh, which
// is a MeshConfig of istio.io/api. The generated type would link the protos of
// half of Istio's API into the webhook for these few fields.
type meshConfig struct {
	// TrustDomain is nil when it is not there: Istio then takes cluster.local.
	TrustDomain   *string `json:"trustDomain"`
	DefaultConfig struct {
		DiscoveryAddress string `json:"discoveryAddress"`
		MeshID           string `json:"meshId"`
		Image            struct {
			ImageType string `json:"imageType"`
		} `json:"image"`
		// ProxyMetadata becomes environment of the sidecar, after and thereby
		// over what the injection template sets.
		ProxyMetadata struct {
			CAAddr       string `json:"CA_ADDR"`
			CertProvider string `json:"PILOT_CERT_PROVIDER"`
			ClusterID    string `json:"ISTIO_META_CLUSTER_ID"`
			MeshID       string `json:"ISTIO_META_MESH_ID"`
			Network      string `json:"ISTIO_META_NETWORK"`
			TrustDomain  string `json:"TRUST_DOMAIN"`
		} `json:"proxyMetadata"`
	} `json:"defaultConfig"`
}

// scalar is text that people also write as a bare number or boolean, as in
// "tag: 1.31".
type scalar string

// UnmarshalJSON implements json.Unmarshaler.
func (s *scalar) UnmarshalJSON(data []byte) error {
	// The decoder adds the path to an error of this type.
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

// decode reads the YAML or JSON under key of cm into out. Unknown fields are
// fine; a known one of the wrong type is an error that names its path.
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

// yamlType says in words of YAML what a field that has the wrong type should be.
func yamlType(e *json.UnmarshalTypeError) string {
	if e.Type.Kind() == reflect.Struct {
		return "a mapping"
	}
	return "a " + e.Type.Kind().String()
}

// configMapPath names a place inside a ConfigMap, for errors and for Settings.Sources.
func configMapPath(cm *corev1.ConfigMap, path string) string {
	return fmt.Sprintf("ConfigMap %s/%s %s", cm.Namespace, cm.Name, path)
}
