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

// takeProxy takes the sidecar out: it must be a plain one, and what it sets
// otherwise than Isthmus' is carried over.
func (a *adopter) takeProxy() {
	list, i := a.indexed(a.proxy)
	at := fmt.Sprintf("spec.%s[%d]", list, i)
	a.checkCapture()
	a.checkRest(at)
	a.takeResources(at)
	a.takeMounts(at)
	if a.byIstio {
		a.checkCustom(at)
	} else {
		a.takeArgs(at)
		a.takeVariables(at)
		a.takePorts(at)
		a.takeLifecycle(at)
	}
	if a.choice.KeepImage && a.proxy.Image != "auto" {
		a.key(policy.IstioProxyImageKey, a.proxy.Image, "the sidecar's image")
	}
}

// checkCapture refuses a pod whose traffic goes through the sidecar.
func (a *adopter) checkCapture() {
	for i := range a.pod.Spec.InitContainers {
		c := &a.pod.Spec.InitContainers[i]
		words := append(append([]string{c.Name}, c.Command...), c.Args...)
		captures := slices.ContainsFunc(words, func(w string) bool {
			return w == "istio-init" || w == "istio-validation" || w == "istio-iptables"
		})
		if c != a.proxy && captures {
			a.fail(fmt.Sprintf("spec.initContainers[%d]", i), "container %s sends the pod's traffic through the sidecar, and Isthmus captures nothing; remove it where the edge needs certificates only", c.Name)
		}
	}
}

// checkRest refuses fields that no agent needs.
func (a *adopter) checkRest(at string) {
	rest := a.proxy.DeepCopy()
	rest.Image, rest.Command, rest.Args, rest.Env, rest.Ports, rest.VolumeMounts = "", nil, nil, nil, nil, nil
	rest.Resources, rest.SecurityContext, rest.Lifecycle = corev1.ResourceRequirements{}, nil, nil
	rest.ReadinessProbe, rest.LivenessProbe, rest.StartupProbe = nil, nil, nil
	rest.ImagePullPolicy, rest.RestartPolicy = "", nil
	rest.TerminationMessagePath, rest.TerminationMessagePolicy = "", ""
	var fields map[string]any
	if err := json.Unmarshal(encode(rest), &fields); err != nil {
		panic(err) // encode has just made it
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if field != "name" && field != "resources" {
			a.fail(at+"."+field, "the sidecar of Isthmus has no such field; remove it if the agent does without, else leave the pod as it is")
		}
	}
}

// checkCustom refuses what Istio's injector would have merged into its sidecar,
// save what asks for certificates.
func (a *adopter) checkCustom(at string) {
	c := a.proxy
	for i, e := range c.Env {
		if e.Name != "OUTPUT_CERTS" {
			a.fail(fmt.Sprintf("%s.env[%d]", at, i), "Istio's injector merges %s into its sidecar, and no container is left to hold it; set it in proxyMetadata of annotation %s", e.Name, policy.IstioProxyConfigKey)
		}
	}
	for _, f := range []struct {
		field string
		there bool
	}{
		{"command", len(c.Command) > 0}, {"args", len(c.Args) > 0}, {"ports", len(c.Ports) > 0}, {"securityContext", c.SecurityContext != nil},
		{"readinessProbe", c.ReadinessProbe != nil}, {"livenessProbe", c.LivenessProbe != nil}, {"startupProbe", c.StartupProbe != nil}, {"lifecycle", c.Lifecycle != nil},
	} {
		if f.there {
			a.fail(at+"."+f.field, "Istio's injector merges it into its sidecar, and no container is left to hold it; use Istio's annotation for it, or leave the pod as it is")
		}
	}
}

// takeArgs reads the agent's flags, which only pilot-agent must have.
func (a *adopter) takeArgs(at string) {
	args := a.proxy.Args
	if command := a.proxy.Command; len(command) > 0 {
		if !pilotAgent.MatchString(command[0]) {
			a.fail(at+".command", "it runs %q and not pilot-agent, so what it does is not known; let the image's own entrypoint run", command[0])
			return
		}
		args = append(slices.Clone(command[1:]), args...)
	}
	words := make([]any, len(args))
	for i := range args {
		words[i] = args[i]
	}
	given := flagsOf(words)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value, _ := given[name].(string)
		_, known := flags[name]
		switch {
		case !strings.HasPrefix(name, "-") && value != map[string]string{"0": "proxy", "1": "sidecar"}[name]:
			a.fail(at+".args", "the agent runs %q, want proxy sidecar", value)
		case refusedFlags[name] != "" && value != "0" && value != "":
			a.fail(at+".args["+name+"]", "%s (%s), and the agent of Isthmus does not; remove it if nobody needs it, else leave the pod as it is", refusedFlags[name], value)
		case !known && refusedFlags[name] == "":
			a.fail(at+".args["+name+"]", "no flag of Istio's agent that is known here; remove it if nobody needs it, else leave the pod as it is")
		}
	}
	text := func(name string) string { s, _ := given[name].(string); return s }
	a.takePort(at+".args[--statusPort]", text("--statusPort"))
	if v := text("--proxyLogLevel"); slices.Contains([]string{"trace", "debug", "error", "critical", "off"}, v) {
		a.key(policy.IstioLogLevelKey, v, "--proxyLogLevel")
	}
	if v := text("--log_output_level"); v != "" && v != "default:info" && v != "info" {
		a.key(policy.IstioAgentLogLevelKey, v, "--log_output_level")
	}
}

func (a *adopter) takePort(field, value string) {
	if value == "" || value == strconv.Itoa(patches.StatusPort) {
		return
	}
	if _, err := strconv.Atoi(value); err != nil {
		a.fail(field, "%q is no port; write it out", value)
		return
	}
	a.key(policy.IstioStatusPortKey, value, "the agent's port")
}

// takeVariables reads the agent's environment.
func (a *adopter) takeVariables(at string) {
	for i, e := range a.proxy.Env {
		field := fmt.Sprintf("%s.env[%d]", at, i)
		isSet := e.ValueFrom != nil || e.Value != "" && e.Value != "false"
		switch {
		case refusedVariables[e.Name] != "" && isSet:
			a.fail(field, "%s: %s, and that of Isthmus does not; remove it if nobody needs it, else leave the pod as it is", e.Name, refusedVariables[e.Name])
		case refusedVariables[e.Name] == "" && whyVariable(e.Name) == "":
			a.fail(field, "%s is no variable of Istio's agent that is known here; remove it if nobody needs it, else leave the pod as it is", e.Name)
		case e.Name == "CA_PROVIDER" && isSet && !strings.EqualFold(e.Value, "citadel") && !strings.EqualFold(e.Value, "istiod"):
			a.fail(field, "CA_PROVIDER is %q, and Isthmus' agent asks istiod; leave the pod as it is", e.Value)
		case e.Name == "OUTPUT_CERTS" && e.ValueFrom != nil:
			a.fail(field, "its value comes from elsewhere (valueFrom), so the certificates' directory is not known; write it out")
		case e.Name == "SECRET_TTL" && e.Value != "":
			a.takeTTL(field, e.Value)
		case e.Name == "PROXY_CONFIG" && e.Value != "":
			if config, ok := readConfig(e.Value).(object); ok && config["statusPort"] != nil {
				a.takePort(field, fmt.Sprint(config["statusPort"]))
			}
		}
	}
	if v := inject.FindEnv(a.proxy, "OUTPUT_CERTS"); v == nil && a.dir == "" {
		a.warn("container %s writes certificates nowhere (no OUTPUT_CERTS); the agent that Isthmus adds will", a.proxy.Name)
	}
}

// takeTTL carries the lifetime of certificates over.
func (a *adopter) takeTTL(field, value string) {
	ttl, err := time.ParseDuration(value)
	if err != nil || ttl < time.Minute {
		a.fail(field, "SECRET_TTL is %q, and %s wants a Go duration of at least one minute such as 12h", value, policy.CertTTLKey)
		return
	}
	if ttl != defaultTTL {
		a.key(policy.CertTTLKey, value, "SECRET_TTL")
	}
}

// defaultTTL is what the agent asks for when nobody says otherwise.
const defaultTTL = 24 * time.Hour

// takePorts refuses ports that others talk to.
func (a *adopter) takePorts(at string) {
	status := a.keys[policy.IstioStatusPortKey]
	for i, p := range a.proxy.Ports {
		switch {
		case !policy.IsSidecarPort(p.ContainerPort) && strconv.Itoa(int(p.ContainerPort)) != status:
			a.fail(fmt.Sprintf("%s.ports[%d]", at, i), "port %d is none of the agent's own: traffic goes through the sidecar there, and Isthmus' takes none; remove it, or leave the pod as it is", p.ContainerPort)
		case p.HostPort != 0 && !a.pod.Spec.HostNetwork:
			a.fail(fmt.Sprintf("%s.ports[%d].hostPort", at, i), "port %d of the node leads to the agent, and Isthmus opens none; remove hostPort", p.HostPort)
		}
	}
}

// takeLifecycle lets hooks go that serve Envoy or the order of starts.
func (a *adopter) takeLifecycle(at string) {
	if a.proxy.Lifecycle == nil {
		return
	}
	for _, hook := range []struct {
		name string
		h    *corev1.LifecycleHandler
	}{{"postStart", a.proxy.Lifecycle.PostStart}, {"preStop", a.proxy.Lifecycle.PreStop}} {
		if hook.h == nil || hook.h.HTTPGet != nil || hook.h.Sleep != nil {
			continue
		}
		command := ""
		if hook.h.Exec != nil {
			command = strings.Join(hook.h.Exec.Command, " ")
		}
		if !slices.ContainsFunc([]string{"pilot-agent", "sleep", ":15000", ":15020", ":15021"}, func(w string) bool { return strings.Contains(command, w) }) {
			a.fail(at+".lifecycle."+hook.name, "the sidecar of Isthmus has no such hook; remove it if nobody needs it, else leave the pod as it is")
		}
	}
}

// takeResources writes requests and limits as Istio's annotations do.
func (a *adopter) takeResources(at string) {
	for _, l := range []struct {
		field       string
		list        corev1.ResourceList
		cpu, memory string
	}{
		{"requests", a.proxy.Resources.Requests, policy.IstioProxyCPUKey, policy.IstioProxyMemoryKey},
		{"limits", a.proxy.Resources.Limits, policy.IstioProxyCPULimitKey, policy.IstioProxyMemLimitKey},
	} {
		for _, name := range slices.Sorted(maps.Keys(l.list)) {
			q := l.list[name]
			switch {
			case q.IsZero():
			case name == corev1.ResourceCPU:
				a.key(l.cpu, q.String(), "the sidecar's resources."+l.field)
			case name == corev1.ResourceMemory:
				a.key(l.memory, q.String(), "the sidecar's resources."+l.field)
			default:
				a.fail(fmt.Sprintf("%s.resources.%s[%s]", at, l.field, name), "Isthmus' sidecar asks for cpu and memory alone; remove it")
			}
		}
	}
	if len(a.proxy.Resources.Claims) > 0 {
		a.fail(at+".resources.claims", "Isthmus' sidecar asks for cpu and memory alone; remove them")
	}
}
