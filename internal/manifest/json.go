package manifest

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// jsonStyle is the formatting of a JSON document.
type jsonStyle struct {
	// indent is the indentation of one level; empty for JSON on one line.
	indent string
	// lineBreak is "\n" or "\r\n"; empty for JSON on one line.
	lineBreak string
	// colon and comma include the space after them, if the document has one.
	colon, comma string
	// escapeHTML is true if <, > and & are escaped, as Go's encoder does.
	escapeHTML bool
}

var (
	firstIndent = regexp.MustCompile(`^\s*[{\[](\r?\n)([ \t]+)`)
	spacedComma = regexp.MustCompile(`^[^,]*, `)
	spacedColon = regexp.MustCompile(`^[^:]*: `)
)

func jsonStyleOf(text []byte) jsonStyle {
	s := jsonStyle{colon: ":", comma: ","}
	if m := firstIndent.FindSubmatch(text); m != nil {
		s.lineBreak, s.indent, s.colon = string(m[1]), string(m[2]), ": "
	} else if spacedComma.Match(text) {
		s.comma = ", "
	}
	if spacedColon.Match(text) {
		s.colon = ": "
	}
	for _, escape := range []string{`\u003c`, `\u003e`, `\u0026`} {
		s.escapeHTML = s.escapeHTML || bytes.Contains(text, []byte(escape))
	}
	return s
}

// writeNode writes a tree of nodes that was parsed from JSON.
func (s jsonStyle) writeNode(out *bytes.Buffer, n *yaml.Node, depth int) {
	if n.Kind == yaml.ScalarNode {
		if n.Tag != "!!str" {
			out.WriteString(n.Value)
			return
		}
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(s.escapeHTML)
		_ = enc.Encode(n.Value)     // a string always encodes
		out.Truncate(out.Len() - 1) // Encode ends the line
		return
	}
	brackets, step := "{}", 2
	if n.Kind == yaml.SequenceNode {
		brackets, step = "[]", 1
	}
	out.WriteByte(brackets[0])
	for i := 0; i < len(n.Content); i += step {
		if i > 0 {
			out.WriteString(s.comma)
		}
		s.newLine(out, depth+1)
		s.writeNode(out, n.Content[i], depth+1)
		if step == 2 {
			out.WriteString(s.colon)
			s.writeNode(out, n.Content[i+1], depth+1)
		}
	}
	if len(n.Content) > 0 {
		s.newLine(out, depth)
	}
	out.WriteByte(brackets[1])
}

func (s jsonStyle) newLine(out *bytes.Buffer, depth int) {
	if s.lineBreak != "" {
		out.WriteString(s.lineBreak)
		out.WriteString(strings.Repeat(s.indent, depth))
	}
}
