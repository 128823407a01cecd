package inject

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"

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
	// TLSContextNames are the allowed names of TLSContexts. The value "true" of
	// isthmus.dev/tls-context stands for istio-upstream, or for the first of them when
	// that name is not allowed. Default istio-upstream.
	TLSContextNames []string `json:"tlsContextNames,omitempty"`
	// TLSContextALPN is what a TLSContext offers as alpn_protocols: names separated by
	// commas, without blanks. Default istio-http/1.1,istio: then Istio's sidecars also
	// apply rules about paths at ports without a declared protocol.
	TLSContextALPN string `json:"tlsContextALPN,omitempty"`
	// SecretLabels are labels of every Secret and TLSContext that the controller keeps,
	// for edges that select by label. Default: none.
	SecretLabels map[string]string `json:"secretLabels,omitempty"`
	// MirrorSecretNames are the Secrets that the source mirror may read. Default:
	// none.
	MirrorSecretNames []string `json:"mirrorSecretNames,omitempty"`
	// ControllerNamespaces are the namespaces in which the controller keeps Secrets.
	// Default: all.
	ControllerNamespaces []string `json:"controllerNamespaces,omitempty"`
	// ExcludedNamespaces are never injected. Default kube-system.
	ExcludedNamespaces []string `json:"excludedNamespaces,omitempty"`
	// PublisherImage is the image with the in-pod publisher, which is the image of
	// Isthmus. Default: the image of the release. A build that is not a release has no
	// default, and isthmus.dev/publish is then refused.
	PublisherImage string `json:"publisherImage,omitempty"`
	// Resources are the requests and limits of the containers that are added to pods.
	// Default: see patches/sidecar.yaml.
	Resources patches.Resources `json:"resources,omitempty"`
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
	if err := s.Resources.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("resources: %w", err))
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
		{"secretNames", s.SecretNames}, {"tlsContextNames", s.TLSContextNames}, {"mirrorSecretNames", s.MirrorSecretNames}, {"imagePullSecrets", s.ImagePullSecrets},
	} {
		for i, name := range list.names {
			if problem := policy.SecretNameProblem(name); problem != "" {
				errs = append(errs, fmt.Errorf("%s[%d] %q: %s", list.field, i, name, problem))
			}
		}
	}
	for i, name := range s.ControllerNamespaces {
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("controllerNamespaces[%d] %q: %s", i, name, strings.Join(problems, "; ")))
		}
	}
	if strings.ContainsFunc(s.TLSContextALPN, func(r rune) bool { return r <= ' ' || r > '~' }) || slices.Contains(strings.Split(s.TLSContextALPN, ","), "") {
		errs = append(errs, fmt.Errorf("tlsContextALPN %q: want names separated by commas, without blanks, such as istio-http/1.1,istio", s.TLSContextALPN))
	}
	errs = append(errs, s.validateTLSContextNames(), s.validateSecretLabels())
	if _, problem := policy.Resolve(nil, nil, policy.Namespace{}, s.Defaults, s.Names()); problem != nil {
		errs = append(errs, fmt.Errorf("defaults: %s", problem.Message))
	}
	return errors.Join(errs...)
}

// WithDefaults returns the settings with the documented defaults filled in.
func (s Settings) WithDefaults() Settings {
	if len(s.SecretNames) == 0 {
		s.SecretNames = []string{"istio-certs"}
	}
	if len(s.TLSContextNames) == 0 {
		s.TLSContextNames = []string{policy.DefaultTLSContext}
	}
	if s.TLSContextALPN == "" {
		s.TLSContextALPN = "istio-http/1.1,istio"
	}
	if !slices.Contains(s.ExcludedNamespaces, "kube-system") {
		s.ExcludedNamespaces = append(slices.Clone(s.ExcludedNamespaces), "kube-system")
	}
	return s
}

// KeepsSecretsIn reports whether the controller works in a namespace.
func (s Settings) KeepsSecretsIn(namespace string) bool {
	return len(s.ControllerNamespaces) == 0 || slices.Contains(s.ControllerNamespaces, namespace)
}

// leftOut says that the controller does not work in a namespace.
func (s Settings) leftOut(namespace string) string {
	return fmt.Sprintf("namespace %s is not one of those to which the chart's value controller.namespaces limits the controller (%s)",
		namespace, strings.Join(s.ControllerNamespaces, ", "))
}

// Names returns the names that the settings allow.
func (s Settings) Names() policy.Names {
	return policy.Names{Secrets: s.SecretNames, TLSContexts: s.TLSContextNames}
}

// validateTLSContextNames refuses names that are values of the annotation, and names
// that another name's companion has.
func (s Settings) validateTLSContextNames() error {
	for i, name := range s.TLSContextNames {
		switch {
		case name == "true" || name == "false":
			return fmt.Errorf("tlsContextNames[%d] %q: it is a value of %s with another meaning; choose another name", i, name, policy.TLSContextKey)
		case slices.Contains(s.TLSContextNames, name+policy.TCPSuffix):
			return fmt.Errorf("tlsContextNames[%d] %q: its companion for TCP has the name %s, which is in the list too; choose another name", i, name, name+policy.TCPSuffix)
		}
	}
	return nil
}

// validateSecretLabels refuses what Kubernetes refuses as a label, and the labels that
// have a meaning for Isthmus.
func (s Settings) validateSecretLabels() error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(s.SecretLabels)) {
		value := s.SecretLabels[key]
		switch problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); {
		case len(problems) > 0:
			errs = append(errs, fmt.Errorf("secretLabels: %s=%s: %s", key, value, strings.Join(problems, "; ")))
		case key == policy.ManagedByLabel || strings.HasPrefix(key, policy.Domain):
			errs = append(errs, fmt.Errorf("secretLabels: %s=%s: Isthmus itself sets labels of that name; choose another", key, value))
		}
	}
	return errors.Join(errs...)
}
