package adopt

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseProxyConfig parses proxy.istio.io/config. It returns a text that is not a YAML
// mapping unchanged.
func parseProxyConfig(value string) any {
	var mapping map[string]any
	if yaml.Unmarshal([]byte(value), &mapping) != nil || mapping == nil {
		return value
	}
	data, err := json.Marshal(mapping)
	var config fieldMap
	if err != nil || json.Unmarshal(data, &config) != nil {
		return value
	}
	if metadata, ok := config["proxyMetadata"].(map[string]any); ok {
		config["proxyMetadata"] = itemMap(metadata)
	}
	return config
}

// parseNamed parses userVolume and userVolumeMount, which are lists or objects by name. It
// returns any other text unchanged.
func parseNamed(value string) any {
	var list []map[string]any
	if json.Unmarshal([]byte(value), &list) == nil {
		out := itemMap{}
		for i, item := range list {
			name, ok := item["name"].(string)
			if !ok || out[name] != nil {
				name = strconv.Itoa(i)
			}
			delete(item, "name")
			out[name] = fieldMap(item)
		}
		return out
	}
	var byName map[string]fieldMap
	if json.Unmarshal([]byte(value), &byName) != nil {
		return value
	}
	out := itemMap{}
	for name, item := range byName {
		delete(item, "name")
		out[name] = item
	}
	return out
}

// parseFlags reads the agent's arguments as flags in any notation. Other arguments are named
// by their position.
func parseFlags(args []any) itemMap {
	out := itemMap{}
	position := 0
	for i := 0; i < len(args); i++ {
		arg := fmt.Sprint(args[i])
		if !strings.HasPrefix(arg, "-") {
			out[strconv.Itoa(position)] = arg
			position++
			continue
		}
		name, value, hasValue := strings.Cut("--"+strings.TrimLeft(arg, "-"), "=")
		if !hasValue && i+1 < len(args) && !strings.HasPrefix(fmt.Sprint(args[i+1]), "-") {
			i++
			value = fmt.Sprint(args[i])
		}
		out[name] = value
	}
	return out
}
