package inject

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"

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
	// Istio reads both spellings of a name, and of the two the one in camel case counts: a
	// field added beside the other spelling would replace what the user wrote.
	for _, names := range [][2]string{{"proxy_metadata", "proxyMetadata"}, {"hold_application_until_proxy_starts", "holdApplicationUntilProxyStarts"}} {
		if childNode(c.root(), names[0]) != nil {
			return nil, fmt.Errorf("it writes %s, which cannot be extended; write it as %s", names[0], names[1])
		}
	}
	if m := childNode(c.root(), "proxyMetadata"); m != nil && m.Kind != yaml.MappingNode && m.Tag != "!!null" {
		return nil, errors.New("proxyMetadata is not a mapping, so Istio cannot read it; want names and values")
	}
	return c, nil
}

func (c *proxyConfig) root() *yaml.Node { return c.doc.Content[0] }

// metadata returns a value of proxyMetadata. A name without a value counts as not set.
func (c *proxyConfig) metadata(name string) (value string, isSet bool) {
	if m := childNode(c.root(), "proxyMetadata"); m != nil {
		if v := childNode(m, name); v != nil && v.Tag != "!!null" {
			return v.Value, true
		}
	}
	return "", false
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
	text := yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Style: yaml.DoubleQuotedStyle}
	switch v := childNode(m, name); {
	case v == nil:
		addChild(m, name, &text)
	case v.Tag == "!!null":
		text.LineComment, text.FootComment = v.LineComment, v.FootComment
		*v = text
	default:
		return
	}
	c.changed = true
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
			if key != "proxyMetadata" && value != nil && !reflect.DeepEqual(value, all[key]) {
				return false
			}
		}
		return true
	}
	metadata, _ := before["proxyMetadata"].(map[string]any)
	merged, _ := after["proxyMetadata"].(map[string]any)
	return contains(after, before) && contains(merged, metadata)
}

// effectiveOutput returns OUTPUT_CERTS of a ProxyConfig as Istio reads it: of a name that
// occurs twice, the last value counts.
func effectiveOutput(text string) (string, error) {
	var config struct {
		ProxyMetadata map[string]any `json:"proxyMetadata"`
	}
	if err := istioyaml.Unmarshal([]byte(text), &config); err != nil {
		return "", err
	}
	output, _ := config.ProxyMetadata["OUTPUT_CERTS"].(string)
	return output, nil
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
