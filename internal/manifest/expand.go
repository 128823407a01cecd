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
func expand(root *yaml.Node) error {
	e := expander{open: map[*yaml.Node]bool{}}
	return e.expand(root)
}

type expander struct {
	open  map[*yaml.Node]bool
	nodes int
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
// already, as the YAML 1.1 library of Kubernetes does: a merge key overrides
// what stands before it and is overridden by what stands behind it; of a list
// of mappings the first wins.
func (e *expander) merge(n *yaml.Node) error {
	var own []*yaml.Node
	var merged []*yaml.Node
	at := map[string]int{} // where a key is in own, counted from 1; negative in merged
	put := func(list *[]*yaml.Node, sign int, key, value *yaml.Node) {
		*list = append(*list, key, value)
		at[key.Value] = sign * (len(*list) - 1)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !isMerge(key) {
			if m := at[key.Value]; m < 0 {
				merged[-m-1], merged[-m] = nil, nil
			}
			put(&own, 1, key, value)
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
			unplace(m)
			for k := 0; k+1 < len(m.Content); k += 2 {
				switch was := at[m.Content[k].Value]; {
				case was > 0:
					own[was] = m.Content[k+1]
				case was < 0:
					merged[-was] = m.Content[k+1]
				default:
					put(&merged, -1, m.Content[k], m.Content[k+1])
				}
			}
		}
	}
	for _, node := range merged {
		if node != nil {
			own = append(own, node)
		}
	}
	n.Content = own
	return nil
}
