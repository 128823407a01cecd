package manifest

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// maxNodes limits the number of nodes that aliases expand to. The largest pod that
// the API server accepts (1.5 MiB) has fewer.
const maxNodes = 1 << 20

// expandAliases replaces every alias below root with a copy of its anchor's node, and
// every merge key with the entries that it merges. An edit of one node can then not
// change another.
func expandAliases(root *yaml.Node) error {
	e := expander{ancestors: map[*yaml.Node]bool{}}
	return e.expand(root)
}

type expander struct {
	ancestors map[*yaml.Node]bool
	nodes     int
}

func (e *expander) expand(n *yaml.Node) error {
	if e.ancestors[n] {
		return &lineError{line: n.Line, text: "an anchor contains itself"}
	}
	if e.nodes++; e.nodes > maxNodes {
		return &lineError{line: n.Line, text: fmt.Sprintf("aliases expand to more than %d values", maxNodes)}
	}
	e.ancestors[n] = true
	defer delete(e.ancestors, n)
	for i, c := range n.Content {
		if c.Kind == yaml.AliasNode {
			target := c.Alias
			if e.ancestors[target] {
				return &lineError{line: c.Line, text: "an anchor contains itself"}
			}
			// The aliases in each copy are expanded separately. The limit of
			// nodes stops an alias bomb.
			copied := e.copyNode(target)
			copied.HeadComment, copied.LineComment, copied.FootComment = c.HeadComment, c.LineComment, c.FootComment
			n.Content[i] = copied
		}
		if err := e.expand(n.Content[i]); err != nil {
			return err
		}
	}
	n.Anchor = ""
	if n.Kind == yaml.MappingNode {
		return e.expandMergeKeys(n)
	}
	return nil
}

// copyNode copies a node and its content, except for aliases, and clears the
// positions.
func (e *expander) copyNode(n *yaml.Node) *yaml.Node {
	copied := *n
	copied.Anchor, copied.Line, copied.Column = "", 0, 0
	copied.Content = make([]*yaml.Node, len(n.Content))
	if e.nodes += len(n.Content); e.nodes > maxNodes {
		copied.Content = nil // expand reports the error
		return &copied
	}
	for i, c := range n.Content {
		copied.Content[i] = e.copyNode(c)
	}
	return &copied
}

// expandMergeKeys expands the merge keys of one mapping, whose values are expanded
// already. It follows the YAML 1.1 library of Kubernetes: a merge key overrides the
// keys before it, and the keys after it override the merge key. In a list of
// mappings, the first mapping wins.
func (e *expander) expandMergeKeys(n *yaml.Node) error {
	var entries []*yaml.Node
	var merged []*yaml.Node
	// positions holds the index of a key's value: positive in entries, negative in
	// merged.
	positions := map[string]int{}
	appendEntry := func(list *[]*yaml.Node, sign int, key, value *yaml.Node) {
		*list = append(*list, key, value)
		positions[key.Value] = sign * (len(*list) - 1)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !isMergeKey(key) {
			if m := positions[key.Value]; m < 0 {
				merged[-m-1], merged[-m] = nil, nil
			}
			appendEntry(&entries, 1, key, value)
			continue
		}
		from := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			from = value.Content
		}
		for j := len(from) - 1; j >= 0; j-- {
			m := from[j]
			if m.Kind != yaml.MappingNode {
				return &lineError{line: key.Line, text: "the merge key << wants a mapping or a sequence of mappings"}
			}
			clearPositions(m)
			for k := 0; k+1 < len(m.Content); k += 2 {
				switch position := positions[m.Content[k].Value]; {
				case position > 0:
					entries[position] = m.Content[k+1]
				case position < 0:
					merged[-position] = m.Content[k+1]
				default:
					appendEntry(&merged, -1, m.Content[k], m.Content[k+1])
				}
			}
		}
	}
	for _, node := range merged {
		if node != nil {
			entries = append(entries, node)
		}
	}
	n.Content = entries
	return nil
}
