package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	istioyaml "sigs.k8s.io/yaml"
)

// proxyConfig is the annotation proxy.istio.io/config, a ProxyConfig in YAML. It is
// edited as a YAML document, so that the user's text, comments included, is preserved.
type proxyConfig struct {
	raw     string
	doc     yaml.Node
	changed bool
}

// maxProxyConfig is the longest ProxyConfig that is parsed, in bytes. Parsed YAML takes
// up to a hundred times its length in memory.
const maxProxyConfig = 16 << 10

func parseProxyConfig(text string) (*proxyConfig, error) {
	if len(text) > maxProxyConfig {
		return nil, fmt.Errorf("it holds %d bytes, and at most %d are read; put what is common to all pods into the mesh's defaultConfig", len(text), maxProxyConfig)
	}
	c := &proxyConfig{raw: text}
	if err := yaml.Unmarshal([]byte(text), &c.doc); err != nil {
		return nil, fmt.Errorf("%q is not YAML, so Istio cannot read it: %w", text, err)
	}
	if len(c.doc.Content) == 0 || c.doc.Content[0].Tag == "!!null" {
		c.doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	if c.root().Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%q is not a mapping, so Istio cannot read it; want ProxyConfig as YAML", text)
	}
	if hasAlias(&c.doc) {
		return nil, errors.New("it uses YAML aliases, which cannot be edited without changing their meaning; write the values out")
	}
	if m := childNode(c.root(), "proxyMetadata"); m != nil && m.Kind != yaml.MappingNode && m.Tag != "!!null" {
		return nil, errors.New("proxyMetadata is not a mapping, so Istio cannot read it; want names and values")
	}
	return c, nil
}

func (c *proxyConfig) root() *yaml.Node { return c.doc.Content[0] }

// metadata returns a value of proxyMetadata, or "".
func (c *proxyConfig) metadata(name string) string {
	if m := childNode(c.root(), "proxyMetadata"); m != nil {
		if v := childNode(m, name); v != nil {
			return v.Value
		}
	}
	return ""
}

// setMetadata adds a value to proxyMetadata unless the user has set it.
func (c *proxyConfig) setMetadata(name, value string) {
	m := childNode(c.root(), "proxyMetadata")
	switch {
	case m == nil:
		m = &yaml.Node{Kind: yaml.MappingNode, Style: c.root().Style}
		addChild(c.root(), "proxyMetadata", m)
	case m.Kind != yaml.MappingNode: // empty
		*m = yaml.Node{Kind: yaml.MappingNode, Style: c.root().Style}
	}
	if childNode(m, name) == nil {
		addChild(m, name, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Style: yaml.DoubleQuotedStyle})
		c.changed = true
	}
}

// holdApplication makes the edge wait for the sidecar, unless the user has set the
// field.
func (c *proxyConfig) holdApplication() {
	if childNode(c.root(), "holdApplicationUntilProxyStarts") == nil {
		addChild(c.root(), "holdApplicationUntilProxyStarts", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"})
		c.changed = true
	}
}

// text returns the annotation's new value. If nothing was added, that is the old one.
func (c *proxyConfig) text() (string, error) {
	if !c.changed {
		return c.raw, nil
	}
	writeNulls(&c.doc)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(&c.doc), e.Close()); err != nil {
		return "", err
	}
	if !isPreserved([]byte(c.raw), b.Bytes()) {
		return "", fmt.Errorf("%q cannot be extended without changing its meaning; write it in plain YAML", c.raw)
	}
	return b.String(), nil
}

// isPreserved reports whether the parser that Istio uses (pkg/util/protomarshal) reads
// all fields of old, and all its proxyMetadata, with the same values from edited. YAML
// has more ways to write a value than its encoder keeps.
func isPreserved(old, edited []byte) bool {
	var before, after map[string]any
	if istioyaml.Unmarshal(old, &before) != nil || istioyaml.Unmarshal(edited, &after) != nil {
		return false
	}
	contains := func(all, some map[string]any) bool {
		for key, value := range some {
			if key != "proxyMetadata" && !reflect.DeepEqual(value, all[key]) {
				return false
			}
		}
		return true
	}
	metadata, _ := before["proxyMetadata"].(map[string]any)
	merged, _ := after["proxyMetadata"].(map[string]any)
	return contains(after, before) && contains(merged, metadata)
}

func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

// writeNulls writes empty nulls as "null". The encoder would write them as empty strings
// within braces.
func writeNulls(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == "" {
		n.Value = "null"
	}
	for _, c := range n.Content {
		writeNulls(c)
	}
}

func childNode(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func addChild(m *yaml.Node, key string, value *yaml.Node) {
	k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}
	if m.Style&yaml.FlowStyle != 0 {
		k.Style = yaml.DoubleQuotedStyle // JSON stays JSON
	}
	m.Content = append(m.Content, k, value)
}

// volumeMount is a mount in userVolumeMount, without the fields that are not read.
type volumeMount struct {
	Name      string `json:"name,omitempty"`
	MountPath string `json:"mountPath"`
}

// mergeMount adds a mount to sidecar.istio.io/userVolumeMount, which is a JSON list or a
// JSON object by volume name. It is an error if the volume is mounted at another path.
func mergeMount(text, volume, dir string) (string, error) {
	checkPath := func(m volumeMount) error {
		if path.Clean(m.MountPath) != dir {
			return fmt.Errorf("mounts volume %s at %q, but the certificate directory is %q; make them agree", volume, m.MountPath, dir)
		}
		return nil
	}
	switch first := strings.TrimSpace(text); {
	case first == "":
		return string(encode(map[string]volumeMount{volume: {MountPath: dir}})), nil
	case first[0] == '[':
		var list []json.RawMessage
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return "", fmt.Errorf("%q is not a JSON list, so Istio cannot read it: %w", text, err)
		}
		for _, item := range list {
			var m volumeMount
			if err := json.Unmarshal(item, &m); err != nil {
				return "", fmt.Errorf("%s is not a volume mount: %w", item, err)
			}
			if m.Name == volume {
				return text, checkPath(m)
			}
		}
		return string(encode(append(list, encode(volumeMount{volume, dir})))), nil
	default:
		var mounts map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &mounts); err != nil {
			return "", fmt.Errorf("%q is neither a JSON object nor a list, so Istio cannot read it: %w", text, err)
		}
		if raw, ok := mounts[volume]; ok {
			var m volumeMount
			if err := json.Unmarshal(raw, &m); err != nil {
				return "", fmt.Errorf("%s is not a volume mount: %w", raw, err)
			}
			return text, checkPath(m)
		}
		if mounts == nil {
			mounts = map[string]json.RawMessage{}
		}
		mounts[volume] = encode(volumeMount{MountPath: dir})
		return string(encode(mounts)), nil
	}
}
