package manifest

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// layout is the formatting of a YAML document.
type layout struct {
	// indent is the number of spaces per level, from 2 to 8.
	indent int
	// compact is true if a sequence under a key is not indented.
	compact bool
	// lineBreak is "\n" or "\r\n".
	lineBreak string
}

// detectLayout returns the layout that most nodes of a document have. The default is
// the layout of kubectl.
func detectLayout(text []byte, root *yaml.Node) layout {
	l := layout{indent: 2, compact: true, lineBreak: "\n"}
	if 2*bytes.Count(text, []byte("\r\n")) > bytes.Count(text, []byte("\n")) {
		l.lineBreak = "\r\n"
	}
	indents := map[int]int{}
	var unindented, indented int
	var visit func(*yaml.Node)
	visit = func(n *yaml.Node) {
		for i, c := range n.Content {
			visit(c)
			if n.Kind != yaml.MappingNode || i%2 == 0 || c.Style&yaml.FlowStyle != 0 || len(c.Content) == 0 {
				continue
			}
			column := c.Column // the column of the anchor, if there is one
			if c.Kind == yaml.MappingNode {
				column = c.Content[0].Column
			} else if c.Anchor != "" {
				continue
			}
			switch offset := column - n.Content[i-1].Column; {
			case c.Kind == yaml.MappingNode:
				indents[offset]++
			case c.Kind == yaml.SequenceNode && offset == 0:
				unindented++
			case c.Kind == yaml.SequenceNode:
				indented++
			}
		}
	}
	visit(root)
	l.compact = unindented >= indented
	for offset, n := range indents {
		if offset >= 2 && offset <= 8 && (n > indents[l.indent] || n == indents[l.indent] && offset < l.indent) {
			l.indent = offset
		}
	}
	return l
}

// encode encodes a tree in this layout, with "\n" as the line break.
func (l layout) encode(n *yaml.Node) (text []byte, err error) {
	defer func() {
		// The encoder panics on some trees that the parser of the same library
		// returns. Callers have another way to write them.
		if r := recover(); r != nil {
			err = fmt.Errorf("encode: %v", r)
		}
	}()
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(l.indent)
	if l.compact {
		enc.CompactSeqIndent()
	}
	if err := enc.Encode(n); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
