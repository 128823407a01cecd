package inject

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/lru"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Options are what an Engine is made of.
type Options struct {
	// Settings of the operator.
	Settings Settings
	// Profiles default to the built-in ones.
	Profiles *patches.Profiles
	// Mesh returns the settings of a revision of Istio; the empty revision is
	// the default one. Default: Settings.Mesh over the documented defaults,
	// whatever the revision.
	Mesh func(revision string) (patches.Mesh, error)
	// Injector says how Istio's own injector serves a pod, for mode istio. Default:
	// unknown, taken to be as Istio's chart makes it; so it is offline.
	Injector func(revision string) (Injector, error)
	// Version of Isthmus, kept in the status. Default "dev".
	Version string
}

// Injector is what mode istio must know of Istio's injector for one revision or
// tag. An error in its place says that none serves the revision, naming those
// that are served.
type Injector struct {
	// Configuration is the name of its MutatingWebhookConfiguration.
	Configuration string
	// RunsFirst is true when the configuration's name sorts before that of
	// Isthmus': then Istio's injector does not see our edit.
	RunsFirst bool
	// Reinvoked is true when all its webhooks have reinvocationPolicy IfNeeded:
	// then a pod that it injected first is shown to it again after our edit.
	Reinvoked bool
}

// publisherRepository holds the images of Isthmus' releases.
const publisherRepository = "ghcr.io/isthmus-mesh/isthmus"

// release is a version that has an image.
var release = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

// Engine decides on pods and edits them. It is safe for concurrent use.
type Engine struct {
	settings Settings
	profiles *patches.Profiles
	template *patches.SidecarTemplate
	mesh     func(string) (patches.Mesh, error)
	injector func(string) (Injector, error)
	version  string
	// rendered and edits keep sidecars and patches that were made before: a
	// Deployment's pods are all alike, and rendering and encoding cost more
	// than the rest. Bounded, since a pod's author can vary them at will.
	rendered, edits *lru.Cache
}

// kept is how many different sidecars and patches an Engine keeps, about 10 KiB
// each.
const kept = 128

// maxMetadata is what the API server takes of annotations
// (TotalAnnotationSizeLimitB of apimachinery), in bytes. It looks after the webhooks
// did, which would compare and parse more than it ever keeps.
const maxMetadata = 256 << 10

// maxKept is the largest edit or sidecar that is kept, in bytes: what a pod's author
// makes larger is made anew.
const maxKept = 64 << 10

// New makes an Engine. An error says what is wrong with the settings.
func New(o Options) (*Engine, error) {
	if err := o.Settings.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		settings: o.Settings.WithDefaults(),
		profiles: o.Profiles,
		mesh:     o.Mesh,
		injector: o.Injector,
		version:  o.Version,
		rendered: lru.New(kept),
		edits:    lru.New(kept),
	}
	if e.version == "" {
		e.version = "dev"
	}
	if e.settings.PublisherImage == "" && release.MatchString(e.version) {
		e.settings.PublisherImage = publisherRepository + ":" + strings.TrimPrefix(e.version, "v")
	}
	if e.mesh == nil {
		mesh := o.Settings.Mesh.Defaults()
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
	return e, nil
}

// Settings returns the settings that the engine works with, defaults filled in.
func (e *Engine) Settings() Settings { return e.settings }

// Edge is the edge that an engine recognises in a pod.
type Edge struct {
	// Profile is the name of the profile that recognises it.
	Profile string
	// Container is its index in spec.containers.
	Container int
}

// FindEdge looks for the edge in a pod, with the options that policy.Resolve
// returns for it. A reason means that none can be told, and message says why.
func (e *Engine) FindEdge(req Request, options policy.Options) (edge Edge, reason policy.Reason, message string) {
	s := &subject{engine: e, Request: req, asked: policy.ByNamespace, options: options}
	if r := s.recognise(); r != nil {
		return Edge{}, r.Reason, r.Message
	}
	return Edge{Profile: s.profile.Name, Container: s.edge}, "", ""
}

// Inject decides on a pod and, when it is to be injected, says how.
func (e *Engine) Inject(req Request) Result {
	pod, ns := req.Pod, req.Namespace
	verdict := policy.Decide(pod.Labels, pod.Annotations, ns, e.settings.ExcludedNamespaces)
	if verdict.Denied {
		return denied(verdict.Reason, verdict.Message)
	}
	if verdict.Asked == policy.Nobody {
		return Result{Reason: verdict.Reason}
	}
	if n := length(pod.Annotations) + length(pod.Labels); n > maxMetadata {
		return denied(policy.InvalidOverride, fmt.Sprintf("labels and annotations hold %d bytes; Kubernetes takes at most %d of a pod", n, maxMetadata))
	}
	c := &subject{engine: e, Request: req, asked: verdict.Asked}
	c.warnings = policy.UnknownKeys(pod.Labels, pod.Annotations, ns)
	result := c.decide()
	// Only a known mode: a user's misspelling must not become a metric's label.
	if result.Reason != policy.NoProfile && c.options.Mode.Known() {
		result.Mode = c.options.Mode
	}
	if c.profile != nil {
		result.Profile = c.profile.Name
	}
	// A pod that is none of ours is left alone without a word.
	if result.Reason != policy.NoProfile || result.Denied {
		result.Warnings = c.warnings
	}
	return result
}

func length(pairs map[string]string) int {
	n := 0
	for key, value := range pairs {
		n += len(key) + len(value)
	}
	return n
}

// subject is one pod on its way through the engine.
type subject struct {
	engine *Engine
	Request
	asked    policy.Asked
	options  policy.Options
	profile  *patches.Profile
	edge     int
	warnings []policy.Warning
}

func (s *subject) decide() Result {
	if status, ok := s.Pod.Annotations[policy.StatusKey]; ok {
		return s.again(status)
	}
	options, problem := policy.Resolve(s.Pod.Labels, s.Pod.Annotations, s.Namespace, s.engine.settings.Defaults, s.engine.settings.SecretNames)
	s.options = options
	if problem != nil && !problem.OfNamespace {
		return denied(policy.InvalidOverride, problem.Message)
	}
	if s.asked == policy.ByPod && IsWindows(&s.Pod.Spec) {
		return denied(policy.UnsupportedOS, windows)
	}
	if r := s.recognise(); r != nil {
		return *r
	}
	if problem != nil {
		return s.refuse(policy.InvalidOverride, problem.Message)
	}
	if IsWindows(&s.Pod.Spec) {
		return s.refuse(policy.UnsupportedOS, windows)
	}
	if r := s.integrated(); r != nil {
		return *r
	}
	s.warnings = append(s.warnings, policy.Ineffective(s.Pod.Annotations, s.Namespace, options)...)
	if s.isAlone() {
		if options.Mode == policy.Secret {
			return s.refuse(policy.Conflict, fmt.Sprintf(`%s is "true" with %s %s, but namespace %s has no label %s=%s, so no Secret is kept there; label the namespace, or choose %s %s`,
				policy.InjectKey, policy.ModeKey, policy.Secret, s.Namespace.Name, policy.InjectionLabel, policy.InjectionEnabled, policy.ModeKey, policy.Sidecar))
		}
		s.limit()
		s.warnAlone(options)
	}
	s.warnAmbient()
	plan, reason, message := s.plan()
	if message != "" {
		return s.refuse(reason, message)
	}
	s.warnVersion(plan)
	return s.inject(plan)
}

const windows = "the pod runs on Windows, where Istio's agent does not; run the edge on Linux, or set " + policy.InjectKey + `: "false"`

// refuse denies a pod that asked for itself, and leaves one that its namespace
// opted in untouched: a front door is not blocked for what it did not ask.
func (s *subject) refuse(reason policy.Reason, message string) Result {
	if s.asked == policy.ByPod {
		return denied(reason, message)
	}
	s.warn(string(reason), "left without an identity: %s", message)
	return Result{Reason: reason, Message: message}
}

func (s *subject) warn(code, format string, args ...any) {
	s.warnings = append(s.warnings, policy.Warning{Code: code, Text: fmt.Sprintf(format, args...)})
}

// isAlone: the pod asked for itself in a namespace without the label. The
// controller keeps Secrets, and lets publishers write them, only where the
// namespace is labelled.
func (s *subject) isAlone() bool {
	return s.asked == policy.ByPod && s.Namespace.Labels[policy.InjectionLabel] != policy.InjectionEnabled
}

// limit leaves a pod that is alone nothing but files.
func (s *subject) limit() {
	if s.isAlone() && s.options.Mode != policy.Secret && s.options.Mode.HasCertificate() {
		s.options.Delivery, s.options.Publish = policy.Files, false
	}
}

// warnAlone says what the pod wanted and limit took.
func (s *subject) warnAlone(wanted policy.Options) {
	if !wanted.Mode.HasCertificate() {
		return
	}
	text := "namespace %s has no label %s=%s, so no Secret is kept there: this pod gets certificate files only"
	var without []string
	if wanted.Delivery == policy.BySecret {
		without = append(without, policy.DeliveryKey+": secret")
	}
	if wanted.Publish {
		without = append(without, policy.PublishKey+`: "true"`)
	}
	if len(without) > 0 {
		text += ", not " + strings.Join(without, " and ")
	}
	s.warn("files-only", text, s.Namespace.Name, policy.InjectionLabel, policy.InjectionEnabled)
}

// recognise finds profile and edge container; nil means found.
func (s *subject) recognise() *Result {
	if want := s.options.Container; want != "" && containerIndex(s.Pod.Spec.Containers, want) < 0 {
		r := denied(policy.InvalidOverride, fmt.Sprintf("annotation %s: %q is not a container of the pod; its containers are %s",
			policy.ContainerKey, want, containerNames(s.Pod)))
		return &r
	}
	if s.options.Profile != "" {
		return s.named()
	}
	all := s.engine.profiles.Candidates(s.Pod)
	if name := s.options.NamespaceProfile; name != "" && len(all) > 0 && s.engine.profiles.ByName(name) == nil {
		r := s.refuse(policy.InvalidOverride, s.engine.noProfile(s.Namespace, name))
		return &r
	}
	candidates := s.restrict(all)
	if len(candidates) == 1 {
		s.profile, s.edge = candidates[0].Profile, candidates[0].Container
		return nil
	}
	var r Result
	switch {
	case len(candidates) > 1:
		r = s.refuse(policy.Conflict, fmt.Sprintf("more than one edge was recognised (%s); say which with %s and %s",
			s.list(candidates), policy.ProfileKey, policy.ContainerKey))
	case s.asked == policy.ByPod:
		r = denied(policy.NoProfile, fmt.Sprintf("no profile recognises an edge among the containers %s; name a profile with %s (%s), and the container with %s",
			containerNames(s.Pod), policy.ProfileKey, strings.Join(s.engine.profiles.Names(), ", "), policy.ContainerKey))
	default:
		r = Result{Reason: policy.NoProfile}
	}
	return &r
}

// restrict drops what namespace and pod rule out.
func (s *subject) restrict(all []patches.Candidate) []patches.Candidate {
	kept := all[:0]
	for _, c := range all {
		if s.options.NamespaceProfile != "" && c.Profile.Name != s.options.NamespaceProfile {
			continue
		}
		if s.options.Container != "" && s.Pod.Spec.Containers[c.Container].Name != s.options.Container {
			continue
		}
		kept = append(kept, c)
	}
	return kept
}

// named takes the pod's word for the profile.
func (s *subject) named() *Result {
	s.profile = s.engine.profiles.ByName(s.options.Profile)
	if s.profile == nil {
		r := denied(policy.InvalidOverride, fmt.Sprintf("annotation %s: %q is not a profile; known are %s",
			policy.ProfileKey, s.options.Profile, strings.Join(s.engine.profiles.Names(), ", ")))
		return &r
	}
	if want := s.options.Container; want != "" {
		s.edge = containerIndex(s.Pod.Spec.Containers, want)
		return nil
	}
	if len(s.Pod.Spec.Containers) == 1 {
		s.edge = 0
		return nil
	}
	found := -1
	for _, c := range s.engine.profiles.Candidates(s.Pod) {
		if found >= 0 && found != c.Container {
			found = -1
			break
		}
		found = c.Container
	}
	if found >= 0 {
		s.edge = found
		return nil
	}
	r := s.refuse(policy.Conflict, fmt.Sprintf("profile %s cannot tell which of the containers %s is the edge; name it with %s",
		s.profile.Name, containerNames(s.Pod), policy.ContainerKey))
	return &r
}

func (s *subject) list(candidates []patches.Candidate) string {
	names := make([]string, len(candidates))
	for i, c := range candidates {
		names[i] = c.Profile.Name + " in container " + s.Pod.Spec.Containers[c.Container].Name
	}
	return strings.Join(names, ", ")
}

func containerNames(pod *corev1.Pod) string {
	names := make([]string, len(pod.Spec.Containers))
	for i := range pod.Spec.Containers {
		names[i] = pod.Spec.Containers[i].Name
	}
	return strings.Join(names, ", ")
}

func containerIndex(list []corev1.Container, name string) int {
	return slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == name })
}

func IsWindows(spec *corev1.PodSpec) bool {
	return spec.OS != nil && spec.OS.Name == corev1.Windows || spec.NodeSelector[corev1.LabelOSStable] == "windows"
}
