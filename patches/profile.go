package patches

// Profile says how one kind of edge is recognised and what it needs. It is
// data only: it cannot carry images, commands to run, security contexts, host
// paths or containers of its own.
type Profile struct {
	// Name is what users write into isthmus.dev/profile. Required, unique.
	Name string `json:"name"`
	// Description is one sentence for a human. Required.
	Description string `json:"description"`
	// OnlyNamed keeps the profile from matching by itself: a pod gets it by
	// isthmus.dev/profile alone. Default false.
	OnlyNamed bool `json:"onlyNamed,omitempty"`
	// Match holds for a container when one of its criteria does. Required
	// unless OnlyNamed.
	Match []Criteria `json:"match,omitempty"`
	// Not wins over Match: a container for which one of these holds is no edge.
	Not []Criteria `json:"not,omitempty"`
	// Env is added to the edge container where the user has not set the name.
	Env []EnvVar `json:"env,omitempty"`
	// Files are facts about an edge that reads its certificates from files.
	Files FileFacts `json:"files,omitempty"`
	// ReadsSecret: the edge reads Secrets through the API, so in mode secret
	// nothing is mounted. Default false: in mode secret the Secret is mounted
	// at the certificate directory and the variables of WhenFiles are set.
	ReadsSecret bool `json:"readsSecret,omitempty"`
}

// Criteria holds for a container of a pod when every field that is set does.
// Within a list one element suffices.
type Criteria struct {
	// Images are endings of the image repository's path at a segment boundary,
	// whatever registry, tag or digest: "datawire/aes" or "aes".
	Images []string `json:"images,omitempty"`
	// Containers are container names.
	Containers []string `json:"containers,omitempty"`
	// Commands are base names of the first word of the container's command;
	// the empty string stands for the image's own entrypoint.
	Commands []string `json:"commands,omitempty"`
	// FirstWords are base names of the first word of command or args.
	FirstWords []string `json:"firstWords,omitempty"`
	// Words occur in a word of command or args.
	Words []string `json:"words,omitempty"`
	// Env are names of environment variables.
	Env []string `json:"env,omitempty"`
	// WithoutEnv are names of environment variables none of which is there.
	WithoutEnv []string `json:"withoutEnv,omitempty"`
	// ProbePaths are beginnings of the path of an HTTP probe.
	ProbePaths []string `json:"probePaths,omitempty"`
	// Labels must all be on the pod, with these values.
	Labels map[string]string `json:"labels,omitempty"`
	// RestartPolicies of the pod.
	RestartPolicies []string `json:"restartPolicies,omitempty"`
}

// When says in which case an environment variable of a profile is added.
type When string

// The cases of EnvVar.When.
const (
	// WhenFiles: the edge reads its certificates from files, with delivery files
	// and in mode secret unless it ReadsSecret.
	WhenFiles When = "files"
	// WhenEnvoy: an Envoy of Istio's runs beside the edge.
	WhenEnvoy When = "envoy"
	// WhenAlways: in every case.
	WhenAlways When = "always"
)

// EnvVar is an environment variable that a profile gives its edge.
type EnvVar struct {
	Name string `json:"name"`
	// Value may hold ${certDir}, the certificate directory without a trailing
	// slash.
	Value string `json:"value"`
	// When is files, envoy or always. Required.
	When When `json:"when"`
	// Since is the first version of the edge that reads the variable, "1.10".
	// Older ones get it too, with a warning, so that an upgrade just works.
	Since string `json:"since,omitempty"`
}

// FileFacts are facts about an edge that reads its certificates from files.
type FileFacts struct {
	// ReloadSince is the first version that notices a rotated file by itself;
	// "never" when none does. Empty: every version.
	ReloadSince string `json:"reloadSince,omitempty"`
}
