package policy

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Delivery is how the edge reads its certificate.
type Delivery string

// The deliveries.
const (
	// Files: from the shared volume.
	Files Delivery = "files"
	// BySecret: from the Secret alone.
	BySecret Delivery = "secret"
)

// modes are all modes of the API.
var modes = []Mode{Sidecar, Istio, Secret, Ambient}

// Defaults are the chart's values for what neither pod nor namespace says. The
// zero value means the built-in defaults.
type Defaults struct {
	// Mode: default sidecar.
	Mode Mode `json:"mode,omitempty"`
	// Delivery: default files. Mode secret knows only secret, and mode ambient
	// none, whatever it says.
	Delivery Delivery `json:"delivery,omitempty"`
	// Envoy: default false.
	Envoy bool `json:"envoy,omitempty"`
	// CertDir: default /etc/istio-certs.
	CertDir string `json:"certDir,omitempty"`
	// CertTTL is a Go duration. Default: 24h or what the CA grants, if less.
	CertTTL string `json:"certTTL,omitempty"`
	// SecretName: default istio-certs.
	SecretName string `json:"secretName,omitempty"`
	// Source: default istio-ca. Agent means that the publisher is in every pod
	// that does not say otherwise.
	Source Source `json:"source,omitempty"`
	// TLSContext: default false.
	TLSContext bool `json:"tlsContext,omitempty"`
}

// Options is what pod, namespace and defaults say together. It is comparable.
type Options struct {
	Mode Mode
	// Delivery is empty in mode ambient, which has no certificate to deliver.
	Delivery Delivery
	// Profile names the profile that the pod chose, bypassing matching.
	Profile string
	// NamespaceProfile restricts matching to one profile.
	NamespaceProfile string
	CertDir          string
	// CertDirSet is true when pod or namespace chose CertDir.
	CertDirSet bool
	SecretName string
	// Envoy is true in mode istio, whose sidecar is Istio's own, and false in the
	// modes without a sidecar.
	Envoy bool
	// Publish adds the in-pod publisher.
	Publish bool
	// Source is where the Secret's certificate comes from. It is Agent exactly
	// when Publish is true.
	Source Source
	// MirrorSecret names the Secret that Source Mirror follows. Empty means
	// istio.<service account>; it is empty with every other source.
	MirrorSecret string
	// ServiceAccount is the one whose Secret is kept even while no edge pod
	// runs as it; empty when the namespace names none.
	ServiceAccount string
	// TLSContext asks for the TLSContext istio-upstream.
	TLSContext bool
	// CertTTL is zero when nobody chose one.
	CertTTL time.Duration
	// Container is the edge container's name, when the pod says it.
	Container string
	// Revision of Istio that pod or namespace chose; in mode istio that whose
	// injector sees the pod.
	Revision string
	Proxy    Proxy
}

// Proxy holds Istio's own annotations for the sidecar. Empty means not set.
type Proxy struct {
	Image, CPU, Memory, CPULimit, MemoryLimit, LogLevel, AgentLogLevel string
	StatusPort                                                         int32
}

// Problem is an invalid value.
type Problem struct {
	// OfNamespace is true when the namespace carries the value, or the
	// defaults do: then the pod is not to blame.
	OfNamespace bool
	// Message is one sentence: key, value, what is allowed.
	Message string
}

// Resolve reads the options: pod before namespace before defaults. The first
// problem of the pod, else of the namespace, is returned; the options are then
// not to be acted on.
//
// Three callers rely on one answer. The webhook's engine asks for a pod that is
// being created; the controller asks with the labels and annotations of a
// running edge pod, or with nil ones for what the namespace alone says; the
// settings are checked by asking for nothing at all.
func Resolve(labels, annotations map[string]string, ns Namespace, d Defaults, secretNames []string) (Options, *Problem) {
	r := resolver{pod: annotations, ns: ns}
	o := Options{
		Mode:       Sidecar,
		Delivery:   Files,
		CertDir:    "/etc/istio-certs",
		SecretName: "istio-certs",
		Envoy:      d.Envoy,
	}
	r.read(ModeKey, string(d.Mode), func(v string) string {
		o.Mode = Mode(v)
		if !o.Mode.Known() {
			return "want " + join(modes)
		}
		return ""
	})
	delivery := string(d.Delivery)
	if o.Mode == Secret {
		o.Delivery, delivery = BySecret, ""
	}
	r.read(DeliveryKey, delivery, func(v string) string {
		o.Delivery = Delivery(v)
		switch {
		case o.Delivery != Files && o.Delivery != BySecret:
			return "want files or secret"
		case o.Delivery == Files && o.Mode == Secret:
			return "mode secret has no agent that writes files; want secret"
		default:
			return ""
		}
	})
	r.read(CertDirKey, d.CertDir, func(v string) string {
		dir, wrong := CertDir(v)
		o.CertDir, o.CertDirSet = dir, annotations[CertDirKey] != "" || ns.Annotations[CertDirKey] != ""
		return wrong
	})
	r.read(SecretNameKey, d.SecretName, func(v string) string {
		o.SecretName = v
		if !slices.Contains(secretNames, v) {
			return "want one of the names that the chart allows: " + strings.Join(secretNames, ", ")
		}
		return ""
	})
	r.read(EnvoyKey, "", boolean(&o.Envoy))
	r.readSource(&o, d)
	r.readNamespaceOnly(&o, d)
	r.read(CertTTLKey, d.CertTTL, func(v string) string {
		ttl, err := time.ParseDuration(v)
		o.CertTTL = ttl
		if err != nil || ttl < time.Minute {
			return "want a Go duration of at least one minute, such as 12h"
		}
		return ""
	})
	if v, ok := annotations[ProfileKey]; ok {
		o.Profile = v
	} else {
		o.NamespaceProfile = ns.Annotations[ProfileKey]
	}
	if v, ok := annotations[ContainerKey]; ok {
		o.Container = v
		if v == "" {
			r.podProblem(ContainerKey, v, "want the name of one of the pod's containers")
		}
	}
	if o.Revision = labels[IstioRevisionLabel]; o.Revision == "" {
		o.Revision = ns.Labels[IstioRevisionLabel]
	}
	r.readProxy(&o.Proxy)
	r.settleMode(&o, labels)
	if r.pods != nil {
		return o, r.pods
	}
	return o, r.others
}

type resolver struct {
	pod          map[string]string
	ns           Namespace
	pods, others *Problem
}

// read hands the value that counts to parse, which says what is wrong with it.
func (r *resolver) read(key, fallback string, parse func(string) string) {
	if v, ok := r.pod[key]; ok {
		if wrong := parse(v); wrong != "" {
			r.podProblem(key, v, wrong)
		}
		return
	}
	r.readNamespace(key, fallback, parse)
}

// readNamespace is read for a key that has no effect on a pod.
func (r *resolver) readNamespace(key, fallback string, parse func(string) string) {
	where := "annotation of namespace " + r.ns.Name + " "
	v, ok := r.ns.Annotations[key]
	if !ok {
		if fallback == "" {
			return
		}
		where, v = "default for ", fallback
	}
	if wrong := parse(v); wrong != "" && r.others == nil {
		r.others = &Problem{OfNamespace: true, Message: fmt.Sprintf("%s%s: %q is not allowed; %s", where, key, v, wrong)}
	}
}

func (r *resolver) podProblem(key, value, wrong string) {
	if r.pods == nil {
		r.pods = &Problem{Message: fmt.Sprintf("annotation %s: %q is not allowed; %s", key, value, wrong)}
	}
}

var agentLevels = regexp.MustCompile(`^([A-Za-z0-9_-]+:)?(none|fatal|error|warn|info|debug)(,([A-Za-z0-9_-]+:)?(none|fatal|error|warn|info|debug))*$`)

func (r *resolver) readProxy(p *Proxy) {
	text := func(key string, dst *string, wrong func(string) string) {
		if v, ok := r.pod[key]; ok {
			*dst = v
			if w := wrong(v); w != "" {
				r.podProblem(key, v, w)
			}
		}
	}
	quantity := func(v string) string {
		if q, err := resource.ParseQuantity(v); err != nil || q.Sign() <= 0 {
			return "want a positive quantity such as 100m or 128Mi"
		}
		return ""
	}
	text(IstioProxyImageKey, &p.Image, func(v string) string {
		if _, err := reference.ParseNormalizedNamed(v); err != nil {
			return "want an image such as docker.io/istio/proxyv2:1.31.1"
		}
		return ""
	})
	text(IstioProxyCPUKey, &p.CPU, quantity)
	text(IstioProxyMemoryKey, &p.Memory, quantity)
	text(IstioProxyCPULimitKey, &p.CPULimit, quantity)
	text(IstioProxyMemLimitKey, &p.MemoryLimit, quantity)
	text(IstioLogLevelKey, &p.LogLevel, func(v string) string {
		if !slices.Contains([]string{"trace", "debug", "info", "warning", "error", "critical", "off"}, v) {
			return "want trace, debug, info, warning, error, critical or off"
		}
		return ""
	})
	text(IstioAgentLogLevelKey, &p.AgentLogLevel, func(v string) string {
		if !agentLevels.MatchString(v) {
			return "want scopes and levels such as default:info,ca:debug"
		}
		return ""
	})
	var port string
	text(IstioStatusPortKey, &port, func(v string) string {
		n, err := strconv.ParseInt(v, 10, 32)
		p.StatusPort = int32(n)
		switch {
		case err != nil || n < 1 || n > 65535:
			return "want a port from 1 to 65535"
		case slices.Contains(istioPorts, int32(n)):
			return "Istio uses that port itself; want another one, by default 15020"
		default:
			return ""
		}
	})
}

// systemDirs must not be hidden by a mount, in the edge or in the agent.
var systemDirs = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc",
	"/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/var",
}

// kernelDirs are no place for a mount at all.
var kernelDirs = []string{"/dev", "/proc", "/sys"}

// CertDir cleans a certificate directory and says what is wrong with it, the
// empty string when nothing is. Emissary compares directories as exact
// strings, so a trailing slash is cut.
func CertDir(v string) (dir, wrong string) {
	dir = path.Clean(v)
	switch {
	case !path.IsAbs(v) || strings.ContainsAny(v, ":\x00\n$") || len(v) > 512:
		return dir, "want an absolute path such as /etc/istio-certs, without colon or dollar sign"
	case slices.Contains(systemDirs, dir):
		return dir, "a mount there would hide what the containers need; want a directory of its own such as /etc/istio-certs"
	}
	place := dir
	if strings.HasPrefix(place, "/run/") { // the same place in most images
		place = "/var" + place
	}
	for _, a := range agentDirs {
		if place == a || below(place, a) || below(a, place) {
			return dir, "the agent uses " + a + " itself; want another directory such as /etc/istio-certs"
		}
	}
	for _, k := range kernelDirs {
		if below(place, k) {
			return dir, k + " belongs to the kernel; want another directory such as /etc/istio-certs"
		}
	}
	return dir, ""
}

func below(p, dir string) bool { return strings.HasPrefix(p, dir+"/") }

// ValidSecretName says what is wrong with a name, the empty string when
// nothing is.
func ValidSecretName(name string) string {
	return strings.Join(validation.IsDNS1123Subdomain(name), "; ")
}

func boolean(dst *bool) func(string) string {
	return func(v string) string {
		*dst = v == "true"
		if v != "true" && v != "false" {
			return `want "true" or "false"`
		}
		return ""
	}
}

func join(list []Mode) string {
	names := make([]string, len(list))
	for i, m := range list {
		names[i] = string(m)
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
