package adopt

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// adoptSidecar removes the manual sidecar. It reports what the sidecar of Isthmus does not
// do, and carries over the settings that the sidecar of Isthmus can have.
func (a *adopter) adoptSidecar() {
	list, i := a.containerPosition(a.sidecar)
	at := fmt.Sprintf("spec.%s[%d]", list, i)
	a.checkCapture()
	a.checkOtherFields(at)
	a.adoptResources(at)
	a.adoptMounts(at)
	if a.usesInjector {
		a.checkInjectorContainer(at)
	} else {
		a.adoptArgs(at)
		a.adoptVariables(at)
		a.checkPorts(at)
		a.checkLifecycle(at)
	}
	if a.choices.KeepImage && a.sidecar.Image != "auto" {
		a.addAnnotation(policy.IstioProxyImageKey, a.sidecar.Image, "the sidecar's image")
	}
}

// checkCapture reports containers that send the pod's traffic through the sidecar.
func (a *adopter) checkCapture() {
	for i := range a.pod.Spec.InitContainers {
		c := &a.pod.Spec.InitContainers[i]
		words := append(append([]string{c.Name}, c.Command...), c.Args...)
		captures := slices.ContainsFunc(words, func(w string) bool {
			return w == "istio-init" || w == "istio-validation" || w == "istio-iptables"
		})
		if c != a.sidecar && captures {
			a.addError(fmt.Sprintf("spec.initContainers[%d]", i), "container %s sends the pod's traffic through the sidecar, and Isthmus captures nothing; remove it if the edge needs only certificates", c.Name)
		}
	}
}

// checkOtherFields reports fields that the agent does not need.
func (a *adopter) checkOtherFields(at string) {
	others := a.sidecar.DeepCopy()
	others.Image, others.Command, others.Args, others.Env, others.Ports, others.VolumeMounts = "", nil, nil, nil, nil, nil
	others.Resources, others.SecurityContext, others.Lifecycle = corev1.ResourceRequirements{}, nil, nil
	others.ReadinessProbe, others.LivenessProbe, others.StartupProbe = nil, nil, nil
	others.ImagePullPolicy, others.RestartPolicy = "", nil
	others.TerminationMessagePath, others.TerminationMessagePolicy = "", ""
	var fields map[string]any
	if err := json.Unmarshal(encode(others), &fields); err != nil {
		panic(err) // encode has just produced it
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if field != "name" && field != "resources" {
			a.addError(at+"."+field, "the sidecar of Isthmus has no such field; remove it if the agent does not need it, otherwise leave the pod as it is")
		}
	}
}

// checkInjectorContainer reports what Istio's injector merges into its sidecar from the
// container, except what asks for certificate files.
func (a *adopter) checkInjectorContainer(at string) {
	c := a.sidecar
	for i, e := range c.Env {
		if e.Name != "OUTPUT_CERTS" {
			a.addError(fmt.Sprintf("%s.env[%d]", at, i), "Istio's injector merges %s into its sidecar, and the plain pod has no container for it; set it in proxyMetadata of annotation %s", e.Name, policy.IstioProxyConfigKey)
		}
	}
	for _, f := range []struct {
		field string
		isSet bool
	}{
		{"command", len(c.Command) > 0}, {"args", len(c.Args) > 0}, {"ports", len(c.Ports) > 0}, {"securityContext", c.SecurityContext != nil},
		{"readinessProbe", c.ReadinessProbe != nil}, {"livenessProbe", c.LivenessProbe != nil}, {"startupProbe", c.StartupProbe != nil}, {"lifecycle", c.Lifecycle != nil},
	} {
		if f.isSet {
			a.addError(at+"."+f.field, "Istio's injector merges it into its sidecar, and the plain pod has no container for it; use Istio's annotation for it, or leave the pod as it is")
		}
	}
}

// adoptArgs reads the agent's flags. The container must run pilot-agent.
func (a *adopter) adoptArgs(at string) {
	args := a.sidecar.Args
	if command := a.sidecar.Command; len(command) > 0 {
		if !pilotAgent.MatchString(command[0]) {
			a.addError(at+".command", "it runs %q and not pilot-agent, so its behaviour is unknown; use the image's own entrypoint", command[0])
			return
		}
		args = append(slices.Clone(command[1:]), args...)
	}
	values := make([]any, len(args))
	for i := range args {
		values[i] = args[i]
	}
	flags := parseFlags(values)
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		value, _ := flags[name].(string)
		_, known := flagReasons[name]
		switch {
		case !strings.HasPrefix(name, "-") && value != map[string]string{"0": "proxy", "1": "sidecar"}[name]:
			a.addError(at+".args", "the agent runs %q, want proxy sidecar", value)
		case unsupportedFlags[name] != "" && value != "0" && value != "":
			a.addError(at+".args["+name+"]", "%s (%s), and the agent of Isthmus does not; remove it if it is not needed, otherwise leave the pod as it is", unsupportedFlags[name], value)
		case !known && unsupportedFlags[name] == "":
			a.addError(at+".args["+name+"]", "unknown flag of Istio's agent; remove it if it is not needed, otherwise leave the pod as it is")
		}
	}
	flag := func(name string) string { s, _ := flags[name].(string); return s }
	a.adoptStatusPort(at+".args[--statusPort]", flag("--statusPort"))
	if v := flag("--proxyLogLevel"); slices.Contains([]string{"trace", "debug", "error", "critical", "off"}, v) {
		a.addAnnotation(policy.IstioLogLevelKey, v, "--proxyLogLevel")
	}
	if v := flag("--log_output_level"); v != "" && v != "default:info" && v != "info" {
		a.addAnnotation(policy.IstioAgentLogLevelKey, v, "--log_output_level")
	}
}

func (a *adopter) adoptStatusPort(field, value string) {
	if value == "" || value == strconv.Itoa(patches.StatusPort) {
		return
	}
	if _, err := strconv.Atoi(value); err != nil {
		a.addError(field, "%q is not a port; write the number out", value)
		return
	}
	a.addAnnotation(policy.IstioStatusPortKey, value, "the agent's port")
}

// adoptVariables reads the agent's environment variables.
func (a *adopter) adoptVariables(at string) {
	for i, e := range a.sidecar.Env {
		field := fmt.Sprintf("%s.env[%d]", at, i)
		isSet := e.ValueFrom != nil || e.Value != "" && e.Value != "false"
		switch {
		case unsupportedVariables[e.Name] != "" && isSet:
			a.addError(field, "%s: %s, and the agent of Isthmus does not; remove it if it is not needed, otherwise leave the pod as it is", e.Name, unsupportedVariables[e.Name])
		case unsupportedVariables[e.Name] == "" && variableReason(e.Name) == "":
			a.addError(field, "%s is an unknown variable of Istio's agent; remove it if it is not needed, otherwise leave the pod as it is", e.Name)
		case e.Name == "CA_PROVIDER" && isSet && !strings.EqualFold(e.Value, "citadel") && !strings.EqualFold(e.Value, "istiod"):
			a.addError(field, "CA_PROVIDER is %q, and the agent of Isthmus uses istiod; leave the pod as it is", e.Value)
		case e.Name == "OUTPUT_CERTS" && e.ValueFrom != nil:
			a.addError(field, "its value comes from elsewhere (valueFrom), so the certificates' directory is not known; write it out")
		case e.Name == "SECRET_TTL" && e.Value != "":
			a.adoptTTL(field, e.Value)
		case e.Name == "PROXY_CONFIG" && e.Value != "":
			if config, ok := parseProxyConfig(e.Value).(fieldMap); ok && config["statusPort"] != nil {
				a.adoptStatusPort(field, fmt.Sprint(config["statusPort"]))
			}
		}
	}
	if v := inject.FindEnv(a.sidecar, "OUTPUT_CERTS"); v == nil && a.dir == "" {
		a.warn("container %s writes no certificates (OUTPUT_CERTS is not set); the agent that Isthmus adds will", a.sidecar.Name)
	}
}

// adoptTTL carries the certificate lifetime over.
func (a *adopter) adoptTTL(field, value string) {
	ttl, err := time.ParseDuration(value)
	if err != nil || ttl < time.Minute {
		a.addError(field, "SECRET_TTL is %q, and %s wants a Go duration of at least one minute such as 12h", value, policy.CertTTLKey)
		return
	}
	if ttl != patches.DefaultCertTTL {
		a.addAnnotation(policy.CertTTLKey, value, "SECRET_TTL")
	}
}

// checkPorts reports ports through which the sidecar takes traffic of others.
func (a *adopter) checkPorts(at string) {
	status := a.newAnnotations[policy.IstioStatusPortKey]
	for i, p := range a.sidecar.Ports {
		switch {
		case !policy.IsSidecarPort(p.ContainerPort) && strconv.Itoa(int(p.ContainerPort)) != status:
			a.addError(fmt.Sprintf("%s.ports[%d]", at, i), "port %d is not a port of the agent: it receives traffic for the edge, and the sidecar of Isthmus receives none; remove the port, or leave the pod as it is", p.ContainerPort)
		case p.HostPort != 0 && !a.pod.Spec.HostNetwork:
			a.addError(fmt.Sprintf("%s.ports[%d].hostPort", at, i), "port %d of the node leads to the agent, and Isthmus opens none; remove hostPort", p.HostPort)
		}
	}
}

// checkLifecycle reports hooks that do more than serve Envoy or the start order.
func (a *adopter) checkLifecycle(at string) {
	if a.sidecar.Lifecycle == nil {
		return
	}
	for _, hook := range []struct {
		name string
		h    *corev1.LifecycleHandler
	}{{"postStart", a.sidecar.Lifecycle.PostStart}, {"preStop", a.sidecar.Lifecycle.PreStop}} {
		if hook.h == nil || hook.h.HTTPGet != nil || hook.h.Sleep != nil {
			continue
		}
		command := ""
		if hook.h.Exec != nil {
			command = strings.Join(hook.h.Exec.Command, " ")
		}
		if !slices.ContainsFunc([]string{"pilot-agent", "sleep", ":15000", ":15020", ":15021"}, func(w string) bool { return strings.Contains(command, w) }) {
			a.addError(at+".lifecycle."+hook.name, "the sidecar of Isthmus has no such hook; remove it if it is not needed, otherwise leave the pod as it is")
		}
	}
}

// adoptResources carries requests and limits over to Istio's annotations.
func (a *adopter) adoptResources(at string) {
	for _, l := range []struct {
		field       string
		list        corev1.ResourceList
		cpu, memory string
	}{
		{"requests", a.sidecar.Resources.Requests, policy.IstioProxyCPUKey, policy.IstioProxyMemoryKey},
		{"limits", a.sidecar.Resources.Limits, policy.IstioProxyCPULimitKey, policy.IstioProxyMemLimitKey},
	} {
		for _, name := range slices.Sorted(maps.Keys(l.list)) {
			q := l.list[name]
			switch {
			case q.IsZero():
			case name == corev1.ResourceCPU:
				a.addAnnotation(l.cpu, q.String(), "the sidecar's resources."+l.field)
			case name == corev1.ResourceMemory:
				a.addAnnotation(l.memory, q.String(), "the sidecar's resources."+l.field)
			default:
				a.addError(fmt.Sprintf("%s.resources.%s[%s]", at, l.field, name), "the sidecar of Isthmus requests only cpu and memory; remove it")
			}
		}
	}
	if len(a.sidecar.Resources.Claims) > 0 {
		a.addError(at+".resources.claims", "the sidecar of Isthmus requests only cpu and memory; remove them")
	}
}
