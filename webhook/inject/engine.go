package inject

import (
	"regexp"
	"strings"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Options configure an Engine.
type Options struct {
	// Settings are those of the operator.
	Settings Settings
	// Profiles are the known profiles. Default: the built-in ones.
	Profiles *patches.Profiles
	// Mesh returns the mesh settings of a revision of Istio. The empty revision is
	// the default one. Default: Settings.Mesh over the documented defaults, for every
	// revision.
	Mesh func(revision string) (patches.Mesh, error)
	// Injector returns how Istio's own injector serves a revision, for mode istio. It
	// returns an error that names the served revisions if no injector serves this
	// one. Default: the zero Injector, which is how Istio's chart sets it up; the
	// command line uses it without a cluster.
	Injector func(revision string) (Injector, error)
	// Version is that of Isthmus, recorded in the status annotation. Default "dev".
	Version string
}

// Injector is what mode istio must know of Istio's injector for a revision or tag.
type Injector struct {
	// Configuration is the name of its MutatingWebhookConfiguration.
	Configuration string
	// RunsFirst is true if the configuration's name sorts before that of Isthmus, so
	// that Istio's injector does not see the edit of Isthmus.
	RunsFirst bool
	// Reinvoked is true if all its webhooks have reinvocationPolicy IfNeeded. The API
	// server then calls them again, after the edit of Isthmus, for a pod that they
	// have injected first.
	Reinvoked bool
}

// publisherRepository holds the images of the releases of Isthmus.
const publisherRepository = "ghcr.io/isthmus-mesh/isthmus"

// releaseVersion matches a version of Isthmus that has an image.
var releaseVersion = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

// Engine decides on pods and edits them. It is safe for concurrent use.
type Engine struct {
	settings Settings
	profiles *patches.Profiles
	template *patches.SidecarTemplate
	mesh     func(string) (patches.Mesh, error)
	injector func(string) (Injector, error)
	version  string
	// renderings and edits cache sidecars and patches: the pods of a Deployment get
	// the same ones, and rendering and encoding cost more than the rest. The caches
	// are bounded, because the author of a pod controls their keys.
	renderings *cache[patches.Params, *rendering]
	edits      *cache[editKey, *edit]
}

// maxCacheBytes is the size of each cache. An entry takes about 20 KiB.
const maxCacheBytes = 1 << 20

// maxMetadataBytes is how much of annotations the API server accepts
// (TotalAnnotationSizeLimitB of apimachinery), and how much of labels is read. The API
// server checks it after the webhooks, which would parse more than it ever stores.
const maxMetadataBytes = 256 << 10

// New returns an Engine. It is an error if the settings are invalid.
func New(o Options) (*Engine, error) {
	if err := o.Settings.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		settings:   o.Settings.WithDefaults(),
		profiles:   o.Profiles,
		mesh:       o.Mesh,
		injector:   o.Injector,
		version:    o.Version,
		renderings: newCache[patches.Params, *rendering](maxCacheBytes),
		edits:      newCache[editKey, *edit](maxCacheBytes),
	}
	if e.version == "" {
		e.version = "dev"
	}
	if e.settings.PublisherImage == "" && releaseVersion.MatchString(e.version) {
		e.settings.PublisherImage = publisherRepository + ":" + strings.TrimPrefix(e.version, "v")
	}
	if e.mesh == nil {
		mesh := o.Settings.Mesh.WithDefaults()
		e.mesh = func(string) (patches.Mesh, error) { return mesh, nil }
	}
	if e.injector == nil {
		e.injector = func(string) (Injector, error) { return Injector{}, nil }
	}
	var err error
	if e.profiles == nil {
		if e.profiles, err = patches.BuiltIn(); err != nil {
			return nil, err
		}
	}
	if e.template, err = patches.LoadSidecar(); err != nil {
		return nil, err
	}
	if err := e.template.SetResources(o.Settings.Resources); err != nil {
		return nil, err
	}
	return e, nil
}

// Settings returns the operator's settings with the defaults filled in.
func (e *Engine) Settings() Settings { return e.settings }

// Inject decides on a pod. For a pod that is to be injected the result has the patch.
func (e *Engine) Inject(req Request) Result {
	pod, ns := req.Pod, req.Namespace
	verdict := policy.Decide(pod.Labels, pod.Annotations, ns, e.settings.ExcludedNamespaces)
	if verdict.Denied {
		return denied(verdict.Reason, verdict.Message)
	}
	if verdict.OptIn == policy.NotOptedIn {
		return Result{Reason: verdict.Reason}
	}
	s := &subject{engine: e, Request: req, optIn: verdict.OptIn}
	result := s.decide()
	// A misspelt mode must not become the value of a metric's label.
	if result.Reason != policy.NoProfile && s.options.Mode.Known() {
		result.Mode = s.options.Mode
	}
	if s.profile != nil {
		result.Profile = s.profile.Name
	}
	// Pods that are not edges get no warnings.
	if result.Reason != policy.NoProfile || result.Denied {
		result.Warnings = policy.BoundWarnings(append(s.warnings, s.keyWarnings...), s.omittedKeys)
	}
	return result
}

// totalLength returns the length of all keys and values in bytes.
func totalLength(pairs map[string]string) int {
	n := 0
	for key, value := range pairs {
		n += len(key) + len(value)
	}
	return n
}
