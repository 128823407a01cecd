package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// newNode converts a value that can be marshalled to JSON into nodes. The keys have
// the order of the JSON: a container's name comes before its image.
func newNode(value any) (*yaml.Node, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	n, err := readJSON(raw, 0)
	if err == nil {
		clearPositions(n)
	}
	return n, err
}

// parseJSON parses one JSON value into nodes in flow style. Numbers keep their spelling.
func parseJSON(raw []byte) (*yaml.Node, error) { return readJSON(raw, yaml.FlowStyle) }

func readJSON(raw []byte, style yaml.Style) (*yaml.Node, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	r := jsonReader{dec: dec, lineIndex: newLineIndex(raw), style: style}
	r.byteColumns = true
	n, err := r.value()
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, &lineError{line: r.line(), text: "does not parse: more than one JSON value"}
	}
	return n, nil
}

type jsonReader struct {
	lineIndex
	dec *json.Decoder
	// style is that of mappings and lists.
	style yaml.Style
}

// line returns the current line of the reader, from 1.
func (r jsonReader) line() int { return r.lineOf(int(r.dec.InputOffset())) }

func (r jsonReader) value() (*yaml.Node, error) {
	begin := int(r.dec.InputOffset())
	token, err := r.dec.Token()
	if err != nil {
		return nil, &lineError{line: r.line(), text: "does not parse: " + err.Error()}
	}
	begin += len(r.text[begin:]) - len(bytes.TrimLeft(r.text[begin:], " \t\r\n,:"))
	n, err := r.node(token)
	if n != nil {
		n.Line, n.Column = r.position(begin)
	}
	return n, err
}

func (r jsonReader) node(token json.Token) (*yaml.Node, error) {
	switch t := token.(type) {
	case json.Delim:
		return r.container(t)
	case string:
		return stringNode(t), nil
	case json.Number:
		tag := "!!int"
		if strings.ContainsAny(t.String(), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: t.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(t)}, nil
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	}
}

func (r jsonReader) container(open json.Delim) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Style: r.style}
	if open == '[' {
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
	}
	for r.dec.More() {
		child, err := r.value()
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, child)
		if n.Kind == yaml.MappingNode {
			child, err := r.value()
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
	}
	if _, err := r.dec.Token(); err != nil {
		return nil, &lineError{line: r.line(), text: "does not parse: " + err.Error()}
	}
	return n, nil
}

// stringNode returns a string as a node. The string is quoted if YAML 1.1, which
// Kubernetes reads, or YAML 1.2, which other programs read, would read it as another
// type.
func stringNode(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	switch {
	case strings.Contains(s, "\n"):
		n.Style = yaml.LiteralStyle
	case isPlain(s):
	case strings.Contains(s, `"`) && !strings.Contains(s, "'") && isPrintable(s):
		n.Style = yaml.SingleQuotedStyle
	default:
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

var (
	// plainWord matches a string that starts with a letter or a similar character
	// and has no indicator of YAML in it.
	plainWord = regexp.MustCompile(`^(?:[A-Za-z_/$]|-{1,2}[A-Za-z])(?:[-A-Za-z0-9 _./@+,()$=;']|:[-A-Za-z0-9_./])*$`)
	// quantity matches a number with a unit, which is a string in every version of
	// YAML.
	quantity = regexp.MustCompile(`^[1-9][0-9]*(?:m|Ki|Mi|Gi|Ti)$`)
	// keyword matches a word that some version of YAML reads as a boolean, null or
	// number.
	keyword = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null|nan|inf)$`)
)

// isPlain reports whether a string can be written as a plain scalar, because every
// version of YAML reads it as a string. In doubt it returns false.
func isPlain(s string) bool {
	return (plainWord.MatchString(s) && !strings.HasSuffix(s, " ") || quantity.MatchString(s)) && !keyword.MatchString(s)
}

// isPrintable reports whether a string is ASCII without control characters.
func isPrintable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
