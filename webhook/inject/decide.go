package inject

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// subject is the pod that an engine decides on, and what is known of it so far.
type subject struct {
	engine *Engine
	Request
	optIn    policy.OptIn
	options  policy.Options
	proxy    policy.Proxy
	profile  *patches.Profile
	edge     int // the index of the edge in spec.containers
	warnings []policy.Warning
	// keyWarnings are about keys that have no effect; omittedKeys is the number of keys
	// beyond them.
	keyWarnings []policy.Warning
	omittedKeys int
}

// decide recognises the edge before it reads anything else that the pod's author wrote:
// a pod that is no edge is none of Isthmus' business.
func (s *subject) decide() Result {
	if status, ok := s.Pod.Annotations[policy.StatusKey]; ok {
		return s.decideInjected(status)
	}
	if s.optIn == policy.OptedInByPod && IsWindows(&s.Pod.Spec) {
		return denied(policy.UnsupportedOS, windowsMessage)
	}
	r := s.findEdge()
	if r != nil && r.Reason == policy.NoProfile && !r.Denied {
		return *r
	}
	s.keyWarnings, s.omittedKeys = policy.UnknownKeys(s.Pod.Labels, s.Pod.Annotations, s.Namespace)
	if r != nil {
		return *r
	}
	if r := s.readOptions(); r != nil {
		return *r
	}
	options := s.options
	if IsWindows(&s.Pod.Spec) {
		return s.refuse(policy.UnsupportedOS, windowsMessage)
	}
	if r := s.checkManualIntegration(); r != nil {
		return *r
	}
	s.warnings = append(s.warnings, policy.IneffectiveKeys(s.Pod.Annotations, s.Namespace, options)...)
	if why, remedy := s.noSecretBecause(); why != "" {
		if options.Mode == policy.Secret {
			asks := fmt.Sprintf("%s is %s", policy.ModeKey, policy.Secret)
			if s.optIn == policy.OptedInByPod {
				asks = fmt.Sprintf(`%s is "true" with %s %s`, policy.InjectKey, policy.ModeKey, policy.Secret)
			}
			return s.refuse(policy.Conflict, fmt.Sprintf("%s, but %s, so no Secret is kept there; %s, or choose %s %s", asks, why, remedy, policy.ModeKey, policy.Sidecar))
		}
		s.limitToFiles()
		s.warnFilesOnly(why, options)
	}
	s.warnAmbientBackends()
	plan, reason, message := s.plan()
	if message != "" {
		return s.refuse(reason, message)
	}
	s.warnAgentVersion(plan)
	s.warnHidden()
	return s.inject(plan)
}

// readOptions reads the options of an edge. It returns the decision if a value is not
// allowed, else nil. Istio's keys are read for the modes in which they have an effect.
func (s *subject) readOptions() *Result {
	for _, size := range []struct {
		kind  string
		pairs map[string]string
	}{{"labels", s.Pod.Labels}, {"annotations", s.Pod.Annotations}} {
		if n := totalLength(size.pairs); n > maxMetadataBytes {
			r := s.refuse(policy.InvalidOverride, fmt.Sprintf("%s hold %d bytes; Kubernetes takes at most %d of a pod", size.kind, n, maxMetadataBytes))
			return &r
		}
	}
	options, problem := policy.Resolve(s.Pod.Labels, s.Pod.Annotations, s.Namespace, s.engine.settings.Defaults, s.engine.settings.Names())
	s.options = options
	if problem != nil && !problem.OfNamespace {
		r := denied(policy.InvalidOverride, problem.Message)
		return &r
	}
	if problem != nil {
		r := s.refuse(policy.InvalidOverride, problem.Message)
		return &r
	}
	if message := s.readProxy(); message != "" {
		r := s.refuse(policy.InvalidOverride, message)
		return &r
	}
	return nil
}

// readProxy reads Istio's own keys, for the modes in which they have an effect. It
// returns what is wrong with one, or "".
func (s *subject) readProxy() (message string) {
	if s.options.Mode != policy.Sidecar && s.options.Mode != policy.Istio {
		return ""
	}
	proxy, warnings, message := policy.ReadProxy(s.Pod.Annotations, s.options.Mode)
	s.proxy = proxy
	if s.options.Mode == policy.Sidecar { // in mode istio they are Istio's concern
		s.warnings = append(s.warnings, warnings...)
	}
	return message
}

const windowsMessage = "the pod runs on Windows, where Istio's agent does not; run the edge on Linux, or set " + policy.InjectKey + `: "false"`

// IsWindows reports whether the pod runs on Windows.
func IsWindows(spec *corev1.PodSpec) bool {
	return spec.OS != nil && spec.OS.Name == corev1.Windows || spec.NodeSelector[corev1.LabelOSStable] == "windows"
}

// refuse denies a pod that is opted in itself. A pod that its namespace opts in is
// left unchanged: an edge must not fail to start because of a setting that its author
// did not choose.
func (s *subject) refuse(reason policy.Reason, message string) Result {
	if s.optIn == policy.OptedInByPod {
		return denied(reason, message)
	}
	s.warn(string(reason), "left without an identity: %s", message)
	return Result{Reason: reason, Message: message}
}

func (s *subject) warn(code, format string, args ...any) {
	s.warnings = append(s.warnings, policy.Warning{Code: code, Text: fmt.Sprintf(format, args...)})
}

// noSecretBecause says why the pod's namespace holds no Secret of the controller, and
// what to do about it. Both are empty if it does. The controller keeps Secrets, and
// lets publishers write them, in labelled namespaces only, and the chart may limit it
// to some of them.
func (s *subject) noSecretBecause() (why, remedy string) {
	switch {
	case s.optIn == policy.OptedInByPod && s.Namespace.Labels[policy.InjectionLabel] != policy.InjectionEnabled:
		return fmt.Sprintf("namespace %s has no label %s=%s", s.Namespace.Name, policy.InjectionLabel, policy.InjectionEnabled), "label the namespace"
	case !s.engine.settings.KeepsSecretsIn(s.Namespace.Name):
		return s.engine.settings.leftOut(s.Namespace.Name), "add the namespace there"
	default:
		return "", ""
	}
}

// limitToFiles removes the options that need a Secret from a pod in a namespace without
// one.
func (s *subject) limitToFiles() {
	if why, _ := s.noSecretBecause(); why != "" && s.options.Mode != policy.Secret && s.options.Mode.HasCertificate() {
		s.options.Delivery, s.options.Publish = policy.DeliveryFiles, false
	}
}

// warnFilesOnly warns about the options that limitToFiles has removed.
func (s *subject) warnFilesOnly(why string, requested policy.Options) {
	if !requested.Mode.HasCertificate() {
		return
	}
	text := why + ", so no Secret is kept there: this pod gets certificate files only"
	var removed []string
	if requested.Delivery == policy.DeliverySecret {
		removed = append(removed, policy.DeliveryKey+": secret")
	}
	if requested.Publish {
		removed = append(removed, policy.PublishKey+`: "true"`)
	}
	if len(removed) > 0 {
		text += ", not " + strings.Join(removed, " and ")
	}
	s.warn("files-only", "%s", text)
}
