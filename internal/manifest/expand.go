package manifest

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds what aliases may expand to. The largest pod that the API
// server takes (1.5 MiB) has fewer.
const maxNodes = 1 << 20

// expand replaces every alias below root by a copy of its own and every merge
// key by what it merges, so that an edit in one place cannot change another.
// It reports whether there was anything to expand.
func expand(root *yaml.Node) (bool, error) {
	e := expander{open: map[*yaml.Node]bool{}}
	err := e.expand(root)
	return e.changed, err
}

type expander struct {
	open    map[*yaml.Node]bool
	nodes   int
	changed bool
}

func (e *expander) expand(n *yaml.Node) error {
	if e.open[n] {
		return &lineError{line: n.Line, text: "an anchor contains itself"}
	}
	if e.nodes++; e.nodes > maxNodes {
		return &lineError{line: n.Line, text: fmt.Sprintf("aliases expand to more than %d values", maxNodes)}
	}
	e.open[n] = true
	defer delete(e.open, n)
	for i, c := range n.Content {
		if c.Kind == yaml.AliasNode {
			target := c.Alias
			if e.open[target] {
				return &lineError{line: c.Line, text: "an anchor contains itself"}
			}
			// The copy is taken before its own aliases are expanded, each
			// copy's separately: the count above stops a bomb.
			own := e.copy(target)
			own.HeadComment, own.LineComment, own.FootComment = c.HeadComment, c.LineComment, c.FootComment
			n.Content[i] = own
			e.changed = true
		}
		if err := e.expand(n.Content[i]); err != nil {
			return err
		}
	}
	n.Anchor = ""
	if n.Kind == yaml.MappingNode {
		return e.merge(n)
	}
	return nil
}

// copy copies a node down to the aliases below it, and takes it off the text.
func (e *expander) copy(n *yaml.Node) *yaml.Node {
	own := *n
	own.Anchor, own.Line, own.Column = "", 0, 0
	own.Content = make([]*yaml.Node, len(n.Content))
	if e.nodes += len(n.Content); e.nodes > maxNodes {
		own.Content = nil // expand reports it
		return &own
	}
	for i, c := range n.Content {
		own.Content[i] = e.copy(c)
	}
	return &own
}

// merge resolves the merge keys of one mapping, whose values are expanded
// already: what the mapping says itself wins, then what is merged first.
func (e *expander) merge(n *yaml.Node) error {
	var own, merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !isMerge(key) {
			own = append(own, key, value)
			continue
		}
		e.changed = true
		from := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			from = value.Content
		}
		for _, m := range from {
			if m.Kind != yaml.MappingNode {
				return &lineError{line: key.Line, text: "the merge key << wants a mapping or a sequence of mappings"}
			}
			merged = append(merged, m.Content...)
		}
	}
	seen := map[string]bool{}
	for i := 0; i < len(own); i += 2 {
		seen[own[i].Value] = true
	}
	for i := 0; i+1 < len(merged); i += 2 {
		if key := merged[i]; !seen[key.Value] {
			seen[key.Value] = true
			unplace(key)
			unplace(merged[i+1])
			own = append(own, key, merged[i+1])
		}
	}
	n.Content = own
	return nil
}
