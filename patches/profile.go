package patches

import "slices"

// Profile describes how one kind of edge is recognised and what it needs. A profile is
// data only: it cannot add images, commands, security contexts, host paths or
// containers to a pod.
type Profile struct {
	// Name is the value of isthmus.dev/profile. Required, unique.
	Name string `json:"name"`
	// Description is one sentence for people. Required.
	Description string `json:"description"`
	// OnlyNamed means that the profile matches no pod; only isthmus.dev/profile
	// chooses it. Default false.
	OnlyNamed bool `json:"onlyNamed,omitempty"`
	// Match recognises a container if one of its criteria holds. Required unless
	// OnlyNamed.
	Match []Criteria `json:"match,omitempty"`
	// Not overrides Match: a container for which one of these holds is not an edge.
	Not []Criteria `json:"not,omitempty"`
	// Env is added to the edge container. A variable that the user has set stays.
	Env []EnvVar `json:"env,omitempty"`
	// Files are facts about an edge that reads its certificates from files.
	Files FileFacts `json:"files,omitempty"`
	// ReadsSecret is true if the edge reads Secrets through the API, so that mode
	// secret mounts nothing. Default false: mode secret mounts the Secret at the
	// certificate directory and sets the variables of WhenFiles.
	ReadsSecret bool `json:"readsSecret,omitempty"`
	// Secret are facts about an edge that reads Secrets through the API.
	Secret SecretFacts `json:"secret,omitempty"`
}

// SecretForm is a form in which the controller keeps an edge's certificate.
type SecretForm string

// The forms.
const (
	// FormTLS is the Secret of the certificate itself. It is always kept.
	FormTLS SecretForm = "tls"
	// FormRoots is a second Secret, NAME-roots, of type Opaque, which holds the mesh's
	// roots in tls.crt and ca.crt, and no key.
	FormRoots SecretForm = "roots"
)

// SecretFacts are facts about an edge that reads Secrets through the API.
type SecretFacts struct {
	// Forms are the forms that the edge reads, in addition to tls.
	Forms []SecretForm `json:"forms,omitempty"`
	// IgnoresRoots is true if the edge does not notice new roots in the Secret of its
	// certificate while key and certificate stay the same. Default false.
	IgnoresRoots bool `json:"ignoresRoots,omitempty"`
	// MissesChanges is true if the edge may miss a change of a Secret that comes
	// together with other changes, so that it is nudged afterwards. Default false.
	MissesChanges bool `json:"missesChanges,omitempty"`
	// Selectors name the variables that limit which objects the edge sees.
	Selectors Selectors `json:"selectors,omitempty"`
}

// Has reports whether the edge reads a form.
func (f SecretFacts) Has(form SecretForm) bool { return slices.Contains(f.Forms, form) }

// Selectors are the names of environment variables of an edge. An empty name means that
// the edge has no such variable.
type Selectors struct {
	// Labels is the variable that holds a label selector.
	Labels string `json:"labels,omitempty"`
	// Fields is the variable that holds a field selector.
	Fields string `json:"fields,omitempty"`
	// SingleNamespace is the variable that, with any value, limits the edge to the
	// namespace that the variable Namespace holds.
	SingleNamespace string `json:"singleNamespace,omitempty"`
	// Namespace is the variable that holds the edge's own namespace.
	Namespace string `json:"namespace,omitempty"`
}

// Criteria holds for a container of a pod if every field that is set holds. Within a
// list one element suffices.
type Criteria struct {
	// Images are endings of the image repository's path at a segment boundary, such
	// as "datawire/aes" or "aes". Registry, tag and digest do not matter.
	Images []string `json:"images,omitempty"`
	// Containers are container names.
	Containers []string `json:"containers,omitempty"`
	// Commands are base names of the first word of the container's command. The
	// empty string stands for the image's own entrypoint.
	Commands []string `json:"commands,omitempty"`
	// FirstWords are base names of the first word of command or args.
	FirstWords []string `json:"firstWords,omitempty"`
	// Words are texts that occur in a word of command or args.
	Words []string `json:"words,omitempty"`
	// Env are names of environment variables.
	Env []string `json:"env,omitempty"`
	// WithoutEnv are names of environment variables that are all absent.
	WithoutEnv []string `json:"withoutEnv,omitempty"`
	// ProbePaths are prefixes of the path of an HTTP probe of the container itself. A
	// probe that names a host is no sign of what the container is.
	ProbePaths []string `json:"probePaths,omitempty"`
	// OtherProbePaths are prefixes of the path of an HTTP probe that names another
	// host: the container watches an edge.
	OtherProbePaths []string `json:"otherProbePaths,omitempty"`
	// Labels must all be on the pod, with these values.
	Labels map[string]string `json:"labels,omitempty"`
	// WithoutLabels must all be absent from the pod, or have other values.
	WithoutLabels map[string]string `json:"withoutLabels,omitempty"`
	// RestartPolicies are restart policies of the pod.
	RestartPolicies []string `json:"restartPolicies,omitempty"`
}

// When says in which case an environment variable of a profile is added.
type When string

// The cases of EnvVar.When.
const (
	// WhenFiles means that the edge reads its certificates from files: with delivery
	// files, and in mode secret unless ReadsSecret.
	WhenFiles When = "files"
	// WhenEnvoy means that Istio's sidecar runs Envoy beside the edge.
	WhenEnvoy When = "envoy"
	// WhenAlways means every case.
	WhenAlways When = "always"
)

// EnvVar is an environment variable that a profile gives its edge.
type EnvVar struct {
	// Name is the name of the variable. Required.
	Name string `json:"name"`
	// Value may contain ${certDir}, the certificate directory without a trailing
	// slash.
	Value string `json:"value"`
	// When is files, envoy or always. Required.
	When When `json:"when"`
	// Since is the first version of the edge that reads the variable, such as
	// "1.10". Older versions get the variable with a warning, so that an upgrade
	// needs no other change. Empty means every version.
	Since string `json:"since,omitempty"`
}

// FileFacts are facts about an edge that reads its certificates from files.
type FileFacts struct {
	// ReloadSince is the first version that notices a rotated file without help, or
	// "never". Empty means every version.
	ReloadSince string `json:"reloadSince,omitempty"`
}
