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

// Settings are the operator's settings: the file that the chart renders and that
// `isthmus inject --settings` reads. Every field is optional.
type Settings struct {
	// Mesh overrides what is discovered in the cluster.
	Mesh patches.Mesh `json:"mesh,omitempty"`
	// Defaults apply to what neither pod nor namespace sets.
	Defaults policy.Defaults `json:"defaults,omitempty"`
	// SecretNames are the allowed values of isthmus.dev/secret-name. Default
	// istio-certs.
	SecretNames []string `json:"secretNames,omitempty"`
	// MirrorSecretNames are the Secrets that the source mirror may read. Default:
	// none.
	MirrorSecretNames []string `json:"mirrorSecretNames,omitempty"`
	// ExcludedNamespaces are never injected. Default kube-system.
	ExcludedNamespaces []string `json:"excludedNamespaces,omitempty"`
	// PublisherImage is the image with the in-pod publisher, which is the image of
	// Isthmus. Default: the image of the release. A build that is not a release has no
	// default, and isthmus.dev/publish is then refused.
	PublisherImage string `json:"publisherImage,omitempty"`
	// ImagePullSecrets are appended to those of an injected pod. Default: none.
	ImagePullSecrets []string `json:"imagePullSecrets,omitempty"`
}

// ParseSettings reads a settings file strictly and checks every value. Its errors name
// the file and, if they are about YAML, the line.
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

// Validate checks every value. Each of the joined errors names the field, its value and
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
	for _, list := range []struct {
		field string
		names []string
	}{
		{"secretNames", s.SecretNames}, {"mirrorSecretNames", s.MirrorSecretNames}, {"imagePullSecrets", s.ImagePullSecrets},
	} {
		for i, name := range list.names {
			if problem := policy.SecretNameProblem(name); problem != "" {
				errs = append(errs, fmt.Errorf("%s[%d] %q: %s", list.field, i, name, problem))
			}
		}
	}
	if _, problem := policy.Resolve(nil, nil, policy.Namespace{}, s.Defaults, s.SecretNames); problem != nil {
		errs = append(errs, fmt.Errorf("defaults: %s", problem.Message))
	}
	return errors.Join(errs...)
}

// WithDefaults returns the settings with the documented defaults filled in.
func (s Settings) WithDefaults() Settings {
	if len(s.SecretNames) == 0 {
		s.SecretNames = []string{"istio-certs"}
	}
	if !slices.Contains(s.ExcludedNamespaces, "kube-system") {
		s.ExcludedNamespaces = append(slices.Clone(s.ExcludedNamespaces), "kube-system")
	}
	return s
}
