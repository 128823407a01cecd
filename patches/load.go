package patches

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/isthmus-mesh/isthmus/patches/strict"
)

//go:embed profiles/*.yaml
var profileFiles embed.FS

// Profiles is a list of profiles with unique names.
type Profiles struct {
	list []*Profile
}

// BuiltIn returns the profiles that are embedded in the program.
func BuiltIn() (*Profiles, error) {
	entries, err := fs.ReadDir(profileFiles, "profiles")
	if err != nil {
		return nil, fmt.Errorf("read built-in profiles: %w", err)
	}
	set := &Profiles{}
	for _, e := range entries {
		name := path.Join("profiles", e.Name())
		data, err := profileFiles.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read built-in profile: %w", err)
		}
		if err := set.Add(name, data); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// Add loads the profiles of one YAML file into the set, documents separated by
// "---". It is strict: an unknown field, a missing field, an invalid value or a name
// that exists is an error that names file and line. After an error the set is
// unchanged.
func (s *Profiles) Add(file string, data []byte) error {
	added := slices.Clone(s.list)
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for n := 0; ; n++ {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			if n == 0 {
				return fmt.Errorf("%s: no profile in it", file)
			}
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %s", file, strict.Message(err))
		}
		if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
			continue
		}
		p, err := decodeProfile(&doc)
		if err != nil {
			return fmt.Errorf("%s:%w", file, err)
		}
		if slices.ContainsFunc(added, func(q *Profile) bool { return q.Name == p.Name }) {
			return fmt.Errorf("%s:%d: profile %q is defined already; choose another name", file, doc.Content[0].Line, p.Name)
		}
		added = append(added, p)
	}
	s.list = added
	return nil
}

// Names returns the names of the profiles, sorted.
func (s *Profiles) Names() []string {
	names := make([]string, 0, len(s.list))
	for _, p := range s.list {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}

// ByName returns the profile of that name, or nil if there is none.
func (s *Profiles) ByName(name string) *Profile {
	for _, p := range s.list {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// decodeProfile decodes one document. Its errors begin with the line, so that the
// caller can prefix the file.
func decodeProfile(doc *yaml.Node) (*Profile, error) {
	root, p := doc.Content[0], &Profile{}
	if err := strict.Decode(root, p, "a profile"); err != nil {
		return nil, err
	}
	if err := p.validate(root); err != nil {
		return nil, err
	}
	return p, nil
}

var (
	profileName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	envName     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	placeholder = regexp.MustCompile(`\$\{[^}]*\}`)
)

func (p *Profile) validate(root *yaml.Node) error {
	line := func(field string) int { return strict.Line(root, field) }
	switch {
	case !profileName.MatchString(p.Name):
		return fmt.Errorf("%d: name %q: want lower case letters, digits and dashes, at most 63", line("name"), p.Name)
	case p.Description == "":
		return fmt.Errorf("%d: profile %q: description is missing", root.Line, p.Name)
	case !p.OnlyNamed && len(p.Match) == 0:
		return fmt.Errorf("%d: profile %q: match is empty; set onlyNamed: true for a profile that only isthmus.dev/profile can choose", root.Line, p.Name)
	case p.OnlyNamed && len(p.Match)+len(p.Not) > 0:
		return fmt.Errorf("%d: profile %q: onlyNamed excludes match and not", line("onlyNamed"), p.Name)
	case p.Files.ReloadSince != "" && p.Files.ReloadSince != "never" && !isVersion(p.Files.ReloadSince):
		return fmt.Errorf("%d: files.reloadSince %q: want a version such as 4.1, or never", line("files"), p.Files.ReloadSince)
	}
	for _, list := range []struct {
		field    string
		criteria []Criteria
	}{{"match", p.Match}, {"not", p.Not}} {
		for i, c := range list.criteria {
			if c.isEmpty() {
				return fmt.Errorf("%d: %s[%d] is empty and would hold for every pod", line(list.field), list.field, i)
			}
			for _, img := range c.Images {
				if img == "" || strings.ContainsAny(img, ":@* ") || strings.HasPrefix(img, "/") {
					return fmt.Errorf("%d: %s[%d].images %q: want the end of a repository path such as datawire/aes, without tag or wildcard", line(list.field), list.field, i, img)
				}
			}
		}
	}
	for i, form := range p.Secret.Forms {
		if form != FormTLS && form != FormRoots {
			return fmt.Errorf("%d: secret.forms[%d] %q: want tls or roots", line("secret"), i, form)
		}
	}
	for _, variable := range []struct{ field, name string }{
		{"labels", p.Secret.Selectors.Labels}, {"fields", p.Secret.Selectors.Fields},
		{"singleNamespace", p.Secret.Selectors.SingleNamespace}, {"namespace", p.Secret.Selectors.Namespace},
	} {
		if variable.name != "" && !envName.MatchString(variable.name) {
			return fmt.Errorf("%d: secret.selectors.%s %q: want the name of an environment variable", line("secret"), variable.field, variable.name)
		}
	}
	seen := map[string]bool{}
	for i, e := range p.Env {
		switch {
		case !envName.MatchString(e.Name):
			return fmt.Errorf("%d: env[%d].name %q: want the name of an environment variable", line("env"), i, e.Name)
		case seen[e.Name]:
			return fmt.Errorf("%d: env[%d].name %q occurs twice", line("env"), i, e.Name)
		case e.When != WhenFiles && e.When != WhenEnvoy && e.When != WhenAlways:
			return fmt.Errorf("%d: env[%d].when %q: want files, envoy or always", line("env"), i, e.When)
		case e.Since != "" && !isVersion(e.Since):
			return fmt.Errorf("%d: env[%d].since %q: want a version such as 1.10", line("env"), i, e.Since)
		}
		seen[e.Name] = true
		for _, v := range placeholder.FindAllString(e.Value, -1) {
			if v != "${certDir}" {
				return fmt.Errorf("%d: env[%d].value: unknown placeholder %s; only ${certDir} is known", line("env"), i, v)
			}
		}
	}
	return nil
}

func (k Criteria) isEmpty() bool {
	return len(k.Images)+len(k.Containers)+len(k.Commands)+len(k.FirstWords)+len(k.Words)+len(k.Env)+len(k.WithoutEnv)+
		len(k.ProbePaths)+len(k.OtherProbePaths)+len(k.Labels)+len(k.WithoutLabels)+len(k.RestartPolicies) == 0
}
