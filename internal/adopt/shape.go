package adopt

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// object is a struct by its fields' names, items a list or a map by its items'
// names: of the latter each item is compared for itself.
type (
	object map[string]any
	items  map[string]any
)

func (items) none() items { return items{} }

func (o object) spec() object {
	spec, _ := o["spec"].(object)
	return spec
}

func (o object) items(key string) items {
	list, _ := o[key].(items)
	return list
}

func (o object) put(list, name string, value any) {
	if o.items(list) == nil {
		o[list] = items{}
	}
	o.items(list)[name] = value
}

// shapeOf is what of a pod is compared.
func shapeOf(pod *corev1.Pod) object {
	var spec any
	data := encode(pod.Spec)
	if err := json.Unmarshal(data, &spec); err != nil {
		panic(err) // encode has just made it
	}
	shape := object{"spec": named("spec", spec)}
	metadata := object{}
	if len(pod.Labels) > 0 {
		metadata["labels"] = pairsOf(pod.Labels)
	}
	if len(pod.Annotations) > 0 {
		annotations := pairsOf(pod.Annotations)
		for key, read := range map[string]func(string) any{
			policy.IstioProxyConfigKey:  readConfig,
			policy.IstioUserVolumeMount: readNamed,
			policy.IstioUserVolumeKey:   readNamed,
		} {
			if v, ok := pod.Annotations[key]; ok {
				annotations[key] = read(v)
			}
		}
		metadata["annotations"] = annotations
	}
	shape["metadata"] = metadata
	return shape
}

func pairsOf(m map[string]string) items {
	out := items{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// readConfig reads proxy.istio.io/config; what is no YAML mapping stays text.
func readConfig(value string) any {
	var tree map[string]any
	if yaml.Unmarshal([]byte(value), &tree) != nil || tree == nil {
		return value
	}
	data, err := json.Marshal(tree)
	var config object
	if err != nil || json.Unmarshal(data, &config) != nil {
		return value
	}
	if metadata, ok := config["proxyMetadata"].(map[string]any); ok {
		config["proxyMetadata"] = items(metadata)
	}
	return config
}

// readNamed reads userVolume and userVolumeMount, which are lists or objects by
// name.
func readNamed(value string) any {
	var list []map[string]any
	if json.Unmarshal([]byte(value), &list) == nil {
		out := items{}
		for i, item := range list {
			name, ok := item["name"].(string)
			if !ok || out[name] != nil {
				name = strconv.Itoa(i)
			}
			delete(item, "name")
			out[name] = object(item)
		}
		return out
	}
	var byName map[string]object
	if json.Unmarshal([]byte(value), &byName) != nil {
		return value
	}
	out := items{}
	for name, item := range byName {
		delete(item, "name")
		out[name] = item
	}
	return out
}

// assumed is what the API server fills in where nothing is said, in the kinds of
// fields that pods written by hand leave out.
var assumed = map[string]string{
	"apiVersion":               corev1.SchemeGroupVersion.Version, // of a fieldRef
	"divisor":                  "0",
	"defaultMode":              strconv.Itoa(int(corev1.ConfigMapVolumeSourceDefaultMode)),
	"scheme":                   string(corev1.URISchemeHTTP),
	"terminationMessagePath":   corev1.TerminationMessagePathDefault,
	"terminationMessagePolicy": string(corev1.TerminationMessageReadFile),
}

// named turns lists into items by name, and maps into objects.
func named(key string, value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := object{}
		for k, inner := range v {
			out[k] = named(k, inner)
		}
		for field, usual := range assumed {
			if fmt.Sprint(out[field]) == usual {
				delete(out, field)
			}
		}
		if args, ok := v["args"].([]any); ok && v["name"] == patches.SidecarName {
			out["args"] = flagsOf(args)
		}
		return out
	case []any:
		if !slices.ContainsFunc(v, func(item any) bool { _, ok := item.(map[string]any); return ok }) {
			if len(v) == 0 {
				return nil
			}
			return v // plain words, whose order matters
		}
		out := items{}
		for i, item := range v {
			name := itemName(key, item, i)
			if again := count(v[:i], key, name); again > 0 {
				name = fmt.Sprintf("%s, %d", name, again+1)
			}
			out[name] = namedItem(key, named("", item))
		}
		return out
	default:
		return value
	}
}

// count says how many items of a list have a name.
func count(list []any, key, name string) (n int) {
	for i, item := range list {
		if itemName(key, item, i) == name {
			n++
		}
	}
	return n
}

// apiAccess is how the API server calls the volume of a service account's token,
// with a random ending.
const apiAccess = "kube-api-access"

// itemName is what an item of a list is known by; its place where it has no name.
func itemName(list string, item any, i int) string {
	m, ok := item.(map[string]any)
	if !ok {
		return strconv.Itoa(i)
	}
	name, _ := m["name"].(string)
	switch {
	case strings.HasPrefix(name, apiAccess+"-") && (list == "volumes" || list == "volumeMounts"):
		return apiAccess
	case list == "ports":
		protocol, _ := m["protocol"].(string)
		if protocol == "" {
			protocol = string(corev1.ProtocolTCP)
		}
		return fmt.Sprintf("%v/%s", m["containerPort"], protocol)
	case name != "":
		return name
	case list == "sources" && len(m) == 1:
		for kind := range m {
			return kind
		}
	case m["key"] != nil:
		return fmt.Sprint(m["key"])
	}
	return strconv.Itoa(i)
}

// namedItem drops what the item's name says already.
func namedItem(list string, item any) any {
	o, ok := item.(object)
	if !ok {
		return item
	}
	if !slices.Contains([]string{"containers", "initContainers", "ephemeralContainers", "ports"}, list) {
		delete(o, "name")
	}
	switch {
	case list == "env" && len(o) == 0:
		return ""
	case list == "env" && len(o) == 1 && o["value"] != nil:
		return o["value"]
	case list == "containers" || list == "initContainers" || list == "ephemeralContainers":
		delete(o, "name")
	}
	return o
}

// flagsOf reads the agent's arguments as flags, however they are written.
func flagsOf(args []any) items {
	out := items{}
	words := 0
	for i := 0; i < len(args); i++ {
		arg := fmt.Sprint(args[i])
		if !strings.HasPrefix(arg, "-") {
			out[strconv.Itoa(words)] = arg
			words++
			continue
		}
		name, value, given := strings.Cut("--"+strings.TrimLeft(arg, "-"), "=")
		if !given && i+1 < len(args) && !strings.HasPrefix(fmt.Sprint(args[i+1]), "-") {
			i++
			value = fmt.Sprint(args[i])
		}
		out[name] = value
	}
	return out
}
