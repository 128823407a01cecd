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

// proxyConfig is the annotation proxy.istio.io/config, a ProxyConfig in YAML. It
// is edited as a document, so that what the user wrote comes out as it was.
type proxyConfig struct {
	raw     string
	doc     yaml.Node
	changed bool
}

// maxProxyConfig is the longest ProxyConfig that is parsed, in bytes: YAML takes up to
// a hundred times its length in memory.
const maxProxyConfig = 16 << 10

func parseProxyConfig(text string) (*proxyConfig, error) {
	if len(text) > maxProxyConfig {
		return nil, fmt.Errorf("it holds %d bytes, and at most %d are read; put what is common to all pods into the mesh's defaultConfig", len(text), maxProxyConfig)
	}
	c := &proxyConfig{raw: text}
	if err := yaml.Unmarshal([]byte(text), &c.doc); err != nil {
		return nil, fmt.Errorf("%q is no YAML, so Istio would not read it: %w", text, err)
	}
	if len(c.doc.Content) == 0 || c.doc.Content[0].Tag == "!!null" {
		c.doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	if c.root().Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%q is no mapping, so Istio would not read it; want ProxyConfig as YAML", text)
	}
	if hasAlias(&c.doc) {
		return nil, errors.New("it has aliases, which cannot be added to without changing what they stand for; write them out")
	}
	if m := child(c.root(), "proxyMetadata"); m != nil && m.Kind != yaml.MappingNode && m.Tag != "!!null" {
		return nil, errors.New("proxyMetadata is no mapping, so Istio would not read it; want names and values")
	}
	return c, nil
}

func (c *proxyConfig) root() *yaml.Node { return c.doc.Content[0] }

// metadata returns a value of proxyMetadata, empty when it is not there.
func (c *proxyConfig) metadata(name string) string {
	if m := child(c.root(), "proxyMetadata"); m != nil {
		if v := child(m, name); v != nil {
			return v.Value
		}
	}
	return ""
}

// setMetadata adds a value to proxyMetadata where the user has none.
func (c *proxyConfig) setMetadata(name, value string) {
	m := child(c.root(), "proxyMetadata")
	switch {
	case m == nil:
		m = &yaml.Node{Kind: yaml.MappingNode, Style: c.root().Style}
		put(c.root(), "proxyMetadata", m)
	case m.Kind != yaml.MappingNode: // empty
		*m = yaml.Node{Kind: yaml.MappingNode, Style: c.root().Style}
	}
	if child(m, name) == nil {
		put(m, name, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Style: yaml.DoubleQuotedStyle})
		c.changed = true
	}
}

// hold has the edge wait for the sidecar, unless the user chose.
func (c *proxyConfig) hold() {
	if child(c.root(), "holdApplicationUntilProxyStarts") == nil {
		put(c.root(), "holdApplicationUntilProxyStarts", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"})
		c.changed = true
	}
}

// text is the annotation's new value: the old one where nothing was added.
func (c *proxyConfig) text() (string, error) {
	if !c.changed {
		return c.raw, nil
	}
	spellNulls(&c.doc)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(&c.doc), e.Close()); err != nil {
		return "", err
	}
	if !holds(b.Bytes(), []byte(c.raw)) {
		return "", fmt.Errorf("%q cannot be added to without changing what it says; write it in plain YAML", c.raw)
	}
	return b.String(), nil
}

// holds reports whether everything in the mapping was, and what was in its
// proxyMetadata, reads the same in now, by the parser that Istio has
// (pkg/util/protomarshal). YAML has more ways to write a value than its encoder.
func holds(now, was []byte) bool {
	var before, after map[string]any
	if istioyaml.Unmarshal(was, &before) != nil || istioyaml.Unmarshal(now, &after) != nil {
		return false
	}
	in := func(was, now map[string]any) bool {
		for key, value := range was {
			if key != "proxyMetadata" && !reflect.DeepEqual(value, now[key]) {
				return false
			}
		}
		return true
	}
	metadata, _ := before["proxyMetadata"].(map[string]any)
	merged, _ := after["proxyMetadata"].(map[string]any)
	return in(before, after) && in(metadata, merged)
}

func hasAlias(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || slices.ContainsFunc(n.Content, hasAlias)
}

// spellNulls writes out what is null by being empty: within braces the encoder
// makes an empty string of it.
func spellNulls(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == "" {
		n.Value = "null"
	}
	for _, c := range n.Content {
		spellNulls(c)
	}
}

func child(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func put(m *yaml.Node, key string, value *yaml.Node) {
	k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}
	if m.Style&yaml.FlowStyle != 0 {
		k.Style = yaml.DoubleQuotedStyle // what was JSON stays JSON
	}
	m.Content = append(m.Content, k, value)
}

// volumeMount is what of a mount in userVolumeMount matters here.
type volumeMount struct {
	Name      string `json:"name,omitempty"`
	MountPath string `json:"mountPath"`
}

// mergeMount adds a mount to sidecar.istio.io/userVolumeMount, which is a JSON
// object by volume name, or a list. A mount of the volume at another path is an
// error.
func mergeMount(text, volume, dir string) (string, error) {
	differs := func(m volumeMount) error {
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
			return "", fmt.Errorf("%q is no JSON list, so Istio would not read it: %w", text, err)
		}
		for _, item := range list {
			var m volumeMount
			if err := json.Unmarshal(item, &m); err != nil {
				return "", fmt.Errorf("%s is no volume mount: %w", item, err)
			}
			if m.Name == volume {
				return text, differs(m)
			}
		}
		return string(encode(append(list, encode(volumeMount{volume, dir})))), nil
	default:
		var mounts map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &mounts); err != nil {
			return "", fmt.Errorf("%q is neither a JSON object nor a list, so Istio would not read it: %w", text, err)
		}
		if raw, ok := mounts[volume]; ok {
			var m volumeMount
			if err := json.Unmarshal(raw, &m); err != nil {
				return "", fmt.Errorf("%s is no volume mount: %w", raw, err)
			}
			return text, differs(m)
		}
		if mounts == nil {
			mounts = map[string]json.RawMessage{}
		}
		mounts[volume] = encode(volumeMount{MountPath: dir})
		return string(encode(mounts)), nil
	}
}
