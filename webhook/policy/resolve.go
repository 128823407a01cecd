package policy

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Resolve reads the options: the pod wins over the namespace, and the namespace
// over the defaults. It returns the first problem of the pod, else the first of
// the namespace or the defaults; with a problem the options must not be used. It
// reads the keys of Isthmus only: ReadSelection reads those that say which container
// is the edge, and ReadProxy reads Istio's.
//
// The webhook's engine calls Resolve for a pod that is being created. The
// controller calls it with the labels and annotations of a running edge pod, or
// with nil for the options that the namespace sets. The settings are validated by
// calling it with the defaults only.
func Resolve(podLabels, podAnnotations map[string]string, ns Namespace, d Defaults, names Names) (Options, *Problem) {
	r := resolver{podAnnotations: podAnnotations, ns: ns}
	o := Options{
		Mode:       Sidecar,
		Delivery:   DeliveryFiles,
		CertDir:    "/etc/istio-certs",
		SecretName: "istio-certs",
		Envoy:      d.Envoy,
	}
	r.read(ModeKey, string(d.Mode), func(v string) string {
		o.Mode = Mode(v)
		if !o.Mode.Known() {
			return "want " + joinModes(modes)
		}
		return ""
	})
	r.readDelivery(&o, d)
	r.read(CertDirKey, d.CertDir, func(v string) string {
		dir, problem := ParseCertDir(v)
		o.CertDir, o.CertDirSet = dir, podAnnotations[CertDirKey] != "" || ns.Annotations[CertDirKey] != ""
		return problem
	})
	r.read(SecretNameKey, d.SecretName, func(v string) string {
		o.SecretName = v
		if !slices.Contains(names.Secrets, v) {
			return "want one of the names that the chart allows: " + strings.Join(names.Secrets, ", ")
		}
		return ""
	})
	r.read(EnvoyKey, "", parseBool(&o.Envoy))
	r.readSource(&o, d)
	r.readNamespaceOnly(&o, d, names)
	r.read(CertTTLKey, d.CertTTL, func(v string) string {
		ttl, err := time.ParseDuration(v)
		o.CertTTL = ttl
		if err != nil || ttl < time.Minute {
			return "want a Go duration of at least one minute, such as 12h"
		}
		return ""
	})
	if o.Revision = podLabels[IstioRevisionLabel]; o.Revision == "" {
		o.Revision = ns.Labels[IstioRevisionLabel]
	}
	r.applyMode(&o, podLabels)
	if r.podProblem != nil {
		return o, r.podProblem
	}
	return o, r.namespaceProblem
}

// resolver reads annotations and remembers the first problem of each owner.
type resolver struct {
	podAnnotations map[string]string
	ns             Namespace
	podProblem     *Problem
	// namespaceProblem is a problem of the namespace or of the defaults.
	namespaceProblem *Problem
}

// read passes the effective value of a key, or the fallback, to parse. parse
// stores the value and returns what is allowed if the value is invalid, else "".
func (r *resolver) read(key, fallback string, parse func(string) string) {
	if v, ok := r.podAnnotations[key]; ok {
		if problem := parseBounded(key, v, parse); problem != "" {
			r.reportPod(key, v, problem)
		}
		return
	}
	r.readNamespace(key, fallback, parse)
}

// readNamespace does what read does, for a key that has no effect on a pod.
func (r *resolver) readNamespace(key, fallback string, parse func(string) string) {
	owner := "namespace " + r.ns.Name + ": annotation "
	v, ok := r.ns.Annotations[key]
	if !ok {
		if fallback == "" {
			return
		}
		owner, v = "default for ", fallback
	}
	if problem := parseBounded(key, v, parse); problem != "" && r.namespaceProblem == nil {
		r.namespaceProblem = &Problem{OfNamespace: true, Message: owner + notAllowed(key, v, problem)}
	}
}

// reportPod records an invalid annotation of the pod, unless there is one already.
func (r *resolver) reportPod(key, value, problem string) {
	if r.podProblem == nil {
		r.podProblem = &Problem{Message: "annotation " + notAllowed(key, value, problem)}
	}
}

func (r *resolver) readDelivery(o *Options, d Defaults) {
	fallback := string(d.Delivery)
	if o.Mode == Secret {
		o.Delivery, fallback = DeliverySecret, ""
	}
	r.read(DeliveryKey, fallback, func(v string) string {
		o.Delivery = Delivery(v)
		switch {
		case o.Delivery != DeliveryFiles && o.Delivery != DeliverySecret:
			return "want files or secret"
		case o.Delivery == DeliveryFiles && o.Mode == Secret:
			return "mode secret has no agent that writes files; want secret"
		default:
			return ""
		}
	})
}

// SecretNameProblem returns what is wrong with the name of a Secret, or "".
func SecretNameProblem(name string) string {
	return strings.Join(validation.IsDNS1123Subdomain(name), "; ")
}

// parseBool returns a parse function for resolver.read that stores into dst.
func parseBool(dst *bool) func(string) string {
	return func(v string) string {
		*dst = v == "true"
		if v != "true" && v != "false" {
			return `want "true" or "false"`
		}
		return ""
	}
}

// joinModes lists modes in a sentence: "a, b or c".
func joinModes(list []Mode) string {
	names := make([]string, len(list))
	for i, m := range list {
		names[i] = string(m)
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
