package inject

import (
	"errors"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	"go.yaml.in/yaml/v3"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/patches/strict"
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
	// MirrorSecretNames are the Secrets that the source mirror may read. Default
	// none.
	MirrorSecretNames []string `json:"mirrorSecretNames,omitempty"`
	// ExcludedNamespaces are never injected. Default kube-system.
	ExcludedNamespaces []string `json:"excludedNamespaces,omitempty"`
	// PublisherImage is the image with the in-pod publisher: Isthmus' own.
	// Default: the release's image; a build that is no release has none, and
	// isthmus.dev/publish is then refused.
	PublisherImage string `json:"publisherImage,omitempty"`
	// ImagePullSecrets are appended to an injected pod's own. Default none.
	ImagePullSecrets []string `json:"imagePullSecrets,omitempty"`
}

// ParseSettings reads a settings file strictly and checks every value. Its errors
// name the file and, where they are about YAML, the line.
func ParseSettings(file string, data []byte) (Settings, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return Settings{}, fmt.Errorf("%s: %s", file, strict.Message(err))
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
		return Settings{}, nil
	}
	var s Settings
	if err := strict.Decode(doc.Content[0], &s, "a settings file"); err != nil {
		return Settings{}, fmt.Errorf("%s:%w", file, err)
	}
	if err := s.Validate(); err != nil {
		return Settings{}, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// Validate says everything that is wrong, each error naming field, value and
// what is allowed.
func (s Settings) Validate() error {
	s = s.WithDefaults()
	var errs []error
	if err := s.Mesh.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("mesh: %w", err))
	}
	if s.PublisherImage != "" {
		if _, err := reference.ParseNormalizedNamed(s.PublisherImage); err != nil {
			errs = append(errs, fmt.Errorf("publisherImage %q: %w", s.PublisherImage, err))
		}
	}
	for i, name := range s.SecretNames {
		if wrong := policy.ValidSecretName(name); wrong != "" {
			errs = append(errs, fmt.Errorf("secretNames[%d] %q: %s", i, name, wrong))
		}
	}
	for i, name := range s.MirrorSecretNames {
		if wrong := policy.ValidSecretName(name); wrong != "" {
			errs = append(errs, fmt.Errorf("mirrorSecretNames[%d] %q: %s", i, name, wrong))
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

// WithDefaults fills in what is not set and has a default.
func (s Settings) WithDefaults() Settings {
	if len(s.SecretNames) == 0 {
		s.SecretNames = []string{"istio-certs"}
	}
	if !slices.Contains(s.ExcludedNamespaces, "kube-system") {
		s.ExcludedNamespaces = append(slices.Clone(s.ExcludedNamespaces), "kube-system")
	}
	return s
}
