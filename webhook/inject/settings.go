package inject

import (
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Settings is the operator's say: the file that the chart renders and that
// `isthmus inject --settings` reads. Every field is optional.
type Settings struct {
	// Mesh wins over what is discovered in the cluster.
	Mesh patches.Mesh `json:"mesh,omitempty"`
	// Defaults for what neither pod nor namespace says.
	Defaults policy.Defaults `json:"defaults,omitempty"`
	// SecretNames are the names that isthmus.dev/secret-name may take. Default
	// istio-certs alone.
	SecretNames []string `json:"secretNames,omitempty"`
	// ExcludedNamespaces are never injected. Default kube-system.
	ExcludedNamespaces []string `json:"excludedNamespaces,omitempty"`
	// ImagePullSecrets are appended to an injected pod's own. Default none.
	ImagePullSecrets []string `json:"imagePullSecrets,omitempty"`
}

// ParseSettings reads a settings file strictly and checks every value.
func ParseSettings(data []byte) (Settings, error) {
	var s Settings
	if err := yaml.UnmarshalStrict(data, &s); err != nil {
		return Settings{}, err
	}
	return s, s.Validate()
}

// Validate says everything that is wrong, each error naming field, value and
// what is allowed.
func (s Settings) Validate() error {
	s = s.withDefaults()
	var errs []error
	if err := s.Mesh.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("mesh: %w", err))
	}
	for i, name := range s.SecretNames {
		if wrong := policy.ValidSecretName(name); wrong != "" {
			errs = append(errs, fmt.Errorf("secretNames[%d] %q: %s", i, name, wrong))
		}
	}
	for i, name := range s.ImagePullSecrets {
		if wrong := policy.ValidSecretName(name); wrong != "" {
			errs = append(errs, fmt.Errorf("imagePullSecrets[%d] %q: %s", i, name, wrong))
		}
	}
	if _, problem := policy.Resolve(nil, nil, policy.Namespace{}, s.Defaults, s.SecretNames); problem != nil {
		errs = append(errs, fmt.Errorf("defaults: %s", problem.Message))
	}
	return errors.Join(errs...)
}

func (s Settings) withDefaults() Settings {
	if len(s.SecretNames) == 0 {
		s.SecretNames = []string{"istio-certs"}
	}
	if !slices.Contains(s.ExcludedNamespaces, "kube-system") {
		s.ExcludedNamespaces = append(slices.Clone(s.ExcludedNamespaces), "kube-system")
	}
	return s
}
