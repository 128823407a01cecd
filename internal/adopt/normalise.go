package adopt

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// A pod is compared in a normalised form. fieldMap is a struct by the names of its fields.
// itemMap is a list or a map by the names of its items, which are compared one by one.
type (
	fieldMap map[string]any
	itemMap  map[string]any
)

func (o fieldMap) spec() fieldMap {
	spec, _ := o["spec"].(fieldMap)
	return spec
}

func (o fieldMap) items(key string) itemMap {
	list, _ := o[key].(itemMap)
	return list
}

func (o fieldMap) put(list, name string, value any) {
	if o.items(list) == nil {
		o[list] = itemMap{}
	}
	o.items(list)[name] = value
}

// normalisePod returns the parts of a pod that are compared.
func normalisePod(pod *corev1.Pod) fieldMap {
	var spec any
	data := encode(pod.Spec)
	if err := json.Unmarshal(data, &spec); err != nil {
		panic(err) // encode has just produced it
	}
	out := fieldMap{"spec": normalise("spec", spec)}
	metadata := fieldMap{}
	if len(pod.Labels) > 0 {
		metadata["labels"] = itemsOf(pod.Labels)
	}
	if len(pod.Annotations) > 0 {
		annotations := itemsOf(pod.Annotations)
		for key, parse := range map[string]func(string) any{
			policy.IstioProxyConfigKey:  parseProxyConfig,
			policy.IstioUserVolumeMount: parseNamed,
			policy.IstioUserVolumeKey:   parseNamed,
		} {
			if v, ok := pod.Annotations[key]; ok {
				annotations[key] = parse(v)
			}
		}
		metadata["annotations"] = annotations
	}
	out["metadata"] = metadata
	return out
}

func itemsOf(m map[string]string) itemMap {
	out := itemMap{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// serverDefaults are values that the API server fills in, in fields that manifests usually
// leave out.
var serverDefaults = map[string]string{
	"apiVersion":               corev1.SchemeGroupVersion.Version, // of a fieldRef
	"divisor":                  "0",
	"defaultMode":              strconv.Itoa(int(corev1.ConfigMapVolumeSourceDefaultMode)),
	"scheme":                   string(corev1.URISchemeHTTP),
	"terminationMessagePath":   corev1.TerminationMessagePathDefault,
	"terminationMessagePolicy": string(corev1.TerminationMessageReadFile),
}

// normalise turns lists into items by name, and maps into structs.
func normalise(key string, value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := fieldMap{}
		for k, inner := range v {
			out[k] = normalise(k, inner)
		}
		for field, value := range serverDefaults {
			if fmt.Sprint(out[field]) == value {
				delete(out, field)
			}
		}
		if args, ok := v["args"].([]any); ok && v["name"] == patches.SidecarName {
			out["args"] = parseFlags(args)
		}
		return out
	case []any:
		if !slices.ContainsFunc(v, func(item any) bool { _, ok := item.(map[string]any); return ok }) {
			if len(v) == 0 {
				return nil
			}
			return v // texts, whose order matters
		}
		out := itemMap{}
		for i, item := range v {
			name := itemName(key, item, i)
			if previous := countNamed(v[:i], key, name); previous > 0 {
				name = fmt.Sprintf("%s, %d", name, previous+1)
			}
			out[name] = normaliseItem(key, normalise("", item))
		}
		return out
	default:
		return value
	}
}

// countNamed counts the items of a list that have a name.
func countNamed(list []any, key, name string) (n int) {
	for i, item := range list {
		if itemName(key, item, i) == name {
			n++
		}
	}
	return n
}

// apiAccessVolume is the name, without the random suffix, that the API server gives to the
// volume of a service account's token.
const apiAccessVolume = "kube-api-access"

// itemName returns the name by which an item of a list is compared, or its index.
func itemName(list string, item any, i int) string {
	m, ok := item.(map[string]any)
	if !ok {
		return strconv.Itoa(i)
	}
	name, _ := m["name"].(string)
	switch {
	case strings.HasPrefix(name, apiAccessVolume+"-") && (list == "volumes" || list == "volumeMounts"):
		return apiAccessVolume
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

// normaliseItem drops the fields that the item's name contains.
func normaliseItem(list string, item any) any {
	o, ok := item.(fieldMap)
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
