package manifest

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// flowStyle is how a document writes values in flow style: JSON, KYAML, or YAML in
// braces.
type flowStyle struct {
	// json is true for JSON: keys are quoted too, and nothing follows the last comma.
	json bool
	// quoted is true if strings are in double quotes.
	quoted bool
	// indent is the indentation of one level, and lineBreak ends a line. Both are
	// empty if values are on one line.
	indent, lineBreak string
	// colon and comma include the space after them, if the document has one.
	colon, comma string
	// cuddled is true if the brackets of a list and of its items share a line: [{.
	cuddled bool
	// trailingComma is true if a comma follows the last entry of several lines.
	trailingComma bool
	// escapeHTML is true if <, > and & are escaped, as Go's encoder does.
	escapeHTML bool
	// spellings are the texts of nodes that are null or empty.
	spellings map[*yaml.Node]string
}

var (
	firstIndent  = regexp.MustCompile(`^\s*[{\[][ \t]*(?:#[^\r\n]*)?(\r?\n)([ \t]+)`)
	spacedComma  = regexp.MustCompile(`^[^,]*, `)
	spacedColon  = regexp.MustCompile(`^[^:]*: `)
	cuddledItem  = regexp.MustCompile(`\[[ \t]*\{[ \t]*(?:#[^\r\n]*)?\r?\n`)
	separateItem = regexp.MustCompile(`\[[ \t]*(?:#[^\r\n]*)?\r?\n[ \t]*\{`)
	lastComma    = regexp.MustCompile(`,[ \t]*(?:#[^\r\n]*)?\r?\n[ \t]*[}\]]`)
)

// flowStyleOf returns the style of a document. root is its top node.
func flowStyleOf(text []byte, root *yaml.Node, isJSON bool) flowStyle {
	s := flowStyle{json: isJSON, quoted: isJSON, colon: ": ", comma: ", "}
	if !isJSON && root.Style&yaml.FlowStyle == 0 {
		return s // values in flow style are on one line of a document in block style
	}
	if m := firstIndent.FindSubmatch(text); m != nil {
		s.lineBreak, s.indent = string(m[1]), string(m[2])
	}
	if isJSON {
		if s.lineBreak == "" && !spacedComma.Match(text) {
			s.comma = ","
		}
		if s.lineBreak == "" && !spacedColon.Match(text) {
			s.colon = ":"
		}
		for _, escape := range []string{`\u003c`, `\u003e`, `\u0026`} {
			s.escapeHTML = s.escapeHTML || bytes.Contains(text, []byte(escape))
		}
		s.cuddled = cuddledItem.Match(text)
		return s
	}
	quoted, plain := countQuoted(root)
	s.quoted = quoted > plain || quoted == plain && s.lineBreak != ""
	s.cuddled = cuddledItem.Match(text) || !separateItem.Match(text)
	s.trailingComma = lastComma.Match(text)
	return s
}

// countQuoted counts the strings below n that are values: those in double quotes and
// others.
func countQuoted(n *yaml.Node) (quoted, plain int) {
	var visit func(*yaml.Node)
	visit = func(n *yaml.Node) {
		for i, c := range n.Content {
			switch {
			case c.Kind != yaml.ScalarNode:
				visit(c)
			case n.Kind == yaml.MappingNode && i%2 == 0 || c.ShortTag() != "!!str":
			case c.Style&yaml.DoubleQuotedStyle != 0:
				quoted++
			default:
				plain++
			}
		}
	}
	visit(n)
	return quoted, plain
}

// render writes a node in flow style. base is the indentation of the line that it starts
// on; multiline lets it span several lines. ok is false if flow style cannot express it.
func (s flowStyle) render(n *yaml.Node, base string, multiline bool) (text string, ok bool) {
	var b strings.Builder
	multiline = multiline && s.lineBreak != ""
	ok = s.write(&b, n, base, multiline)
	return b.String(), ok
}

func (s flowStyle) write(b *strings.Builder, n *yaml.Node, base string, multiline bool) bool {
	if n.Anchor != "" || n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0 {
		return false
	}
	if n.Kind == yaml.ScalarNode {
		return s.writeScalar(b, n)
	}
	brackets, step := "{}", 2
	if n.Kind == yaml.SequenceNode {
		brackets, step = "[]", 1
	}
	if len(n.Content) == 0 {
		b.WriteString(s.spell(n, brackets))
		return true
	}
	cuddled := multiline && s.cuddled && step == 1 && n.Content[0].Kind != yaml.ScalarNode
	ownLines := multiline && !cuddled
	inner := base
	if ownLines {
		inner += s.indent
	}
	b.WriteByte(brackets[0])
	for i := 0; i < len(n.Content); i += step {
		switch {
		case ownLines && i > 0:
			b.WriteString(strings.TrimRight(s.comma, " "))
		case i > 0:
			b.WriteString(s.comma)
		}
		if ownLines {
			b.WriteString(s.lineBreak + inner)
		}
		if step == 2 {
			if !s.writeKey(b, n.Content[i]) {
				return false
			}
			b.WriteString(s.colon)
		}
		if !s.write(b, n.Content[i+step-1], inner, multiline) {
			return false
		}
	}
	if ownLines {
		if s.trailingComma {
			b.WriteByte(',')
		}
		b.WriteString(s.lineBreak + base)
	}
	b.WriteByte(brackets[1])
	return true
}

// spell returns the recorded spelling of a node that is null or empty, or the usual one.
func (s flowStyle) spell(n *yaml.Node, usual string) string {
	text, ok := s.spellings[n]
	if text = strings.TrimSpace(text); !ok || s.json && !json.Valid([]byte(text)) {
		return usual
	}
	return text
}

// key writes a key.
func (s flowStyle) key(n *yaml.Node) (string, bool) {
	var b strings.Builder
	ok := s.writeKey(&b, n)
	return b.String(), ok
}

// breakOr returns the line break of the style, or another one if the style has none.
func (s flowStyle) breakOr(other string) string {
	if s.lineBreak != "" {
		return s.lineBreak
	}
	return other
}

var plainKey = regexp.MustCompile(`^[A-Za-z_][-A-Za-z0-9_./]*$`)

func (s flowStyle) writeKey(b *strings.Builder, n *yaml.Node) bool {
	if !s.json && plainKey.MatchString(n.Value) && isPlain(n.Value) {
		b.WriteString(n.Value)
		return true
	}
	return n.Kind == yaml.ScalarNode && s.writeString(b, n.Value)
}

func (s flowStyle) writeScalar(b *strings.Builder, n *yaml.Node) bool {
	switch {
	case n.ShortTag() == "!!null":
		b.WriteString(s.spell(n, "null"))
		return true
	case n.ShortTag() != "!!str":
		b.WriteString(n.Value)
		return true
	case !s.quoted && isPlain(n.Value) && !strings.ContainsAny(n.Value, ",:[]{}"):
		b.WriteString(n.Value)
		return true
	case !s.quoted && strings.Contains(n.Value, `"`) && !strings.Contains(n.Value, "'") && isPrintable(n.Value):
		b.WriteString("'" + n.Value + "'")
		return true
	}
	return s.writeString(b, n.Value)
}

// writeString writes a string in double quotes. YAML knows all escapes that JSON needs.
func (s flowStyle) writeString(b *strings.Builder, value string) bool {
	var raw bytes.Buffer
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(s.escapeHTML)
	if err := enc.Encode(value); err != nil {
		return false
	}
	b.Write(bytes.TrimSuffix(raw.Bytes(), []byte("\n"))) // Encode ends the line
	return true
}
