package manifest

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// maxNodes limits the number of nodes that aliases expand to. The largest pod that
// the API server accepts (1.5 MiB) has fewer.
const maxNodes = 1 << 20

// treeEditor applies operations to a tree of nodes. It writes out an alias, an anchor's
// other uses and a merge key only where an operation edits them: an edit of one node must
// not change another.
type treeEditor struct {
	root *yaml.Node
	// nodes counts the copied ones.
	nodes int
}

// descend returns the entry of a mapping or sequence, which is about to be edited; nil if
// there is none.
func (e *treeEditor) descend(parent *yaml.Node, key string) (*yaml.Node, error) {
	if err := e.writeOutUses(parent); err != nil {
		return nil, err
	}
	i := childIndex(parent, key)
	if i < 0 && mergesKey(parent, key) {
		if err := e.writeOutMerges(parent); err != nil {
			return nil, err
		}
		i = childIndex(parent, key)
	}
	if i < 0 {
		return nil, nil
	}
	if alias := parent.Content[i]; alias.Kind == yaml.AliasNode {
		copied, err := e.copyOf(alias)
		if err != nil {
			return nil, err
		}
		parent.Content[i] = copied
	}
	return parent.Content[i], nil
}

// release prepares an entry for an operation: it writes out the merge key that the entry
// comes from, and all uses of anchors that go with it.
func (e *treeEditor) release(parent *yaml.Node, key, operation string) error {
	if err := e.writeOutUses(parent); err != nil {
		return err
	}
	i := childIndex(parent, key)
	if i < 0 && operation != "add" && mergesKey(parent, key) {
		return e.writeOutMerges(parent)
	}
	if i < 0 || parent.Kind == yaml.SequenceNode && operation == "add" {
		return nil
	}
	var visit func(*yaml.Node) error
	visit = func(n *yaml.Node) error {
		if err := e.writeOutUses(n); err != nil {
			return err
		}
		for _, c := range n.Content {
			if err := visit(c); err != nil {
				return err
			}
		}
		return nil
	}
	return visit(parent.Content[i])
}

// writeOutUses replaces every alias of a node by a copy, and every merge of it by the
// merged entries.
func (e *treeEditor) writeOutUses(anchor *yaml.Node) error {
	if anchor.Anchor == "" {
		return nil
	}
	isUse := func(n *yaml.Node) bool { return n.Kind == yaml.AliasNode && n.Alias == anchor }
	var visit func(*yaml.Node) error
	visit = func(n *yaml.Node) error {
		for i := 0; i < len(n.Content); i++ {
			c := n.Content[i]
			if n.Kind == yaml.MappingNode && i%2 == 0 && isMergeKey(c) {
				merged := n.Content[i+1]
				if isUse(merged) || slices.ContainsFunc(merged.Content, isUse) {
					if err := e.writeOutMerges(n); err != nil {
						return err
					}
					return visit(n)
				}
			}
			if !isUse(c) {
				if err := visit(c); err != nil {
					return err
				}
				continue
			}
			copied, err := e.copyOf(c)
			if err != nil {
				return err
			}
			n.Content[i] = copied
		}
		return nil
	}
	return visit(e.root)
}

// copyOf returns a copy of the node that an alias refers to, with the alias' comments.
func (e *treeEditor) copyOf(alias *yaml.Node) (*yaml.Node, error) {
	copied := e.copyNode(alias.Alias)
	if e.nodes > maxNodes {
		return nil, &lineError{line: alias.Line, text: fmt.Sprintf("aliases expand to more than %d values", maxNodes)}
	}
	copied.HeadComment, copied.LineComment, copied.FootComment = alias.HeadComment, alias.LineComment, alias.FootComment
	return copied, nil
}

// copyNode copies a node and its content, except for aliases, and clears the
// positions.
func (e *treeEditor) copyNode(n *yaml.Node) *yaml.Node {
	copied := *n
	copied.Anchor, copied.Line, copied.Column = "", 0, 0
	copied.Content = make([]*yaml.Node, len(n.Content))
	if e.nodes += len(n.Content); e.nodes > maxNodes {
		copied.Content = nil // copyOf reports the error
		return &copied
	}
	for i, c := range n.Content {
		copied.Content[i] = e.copyNode(c)
	}
	return &copied
}

// writeOutMerges replaces the merge keys of one mapping by the entries that they merge. It
// follows the YAML 1.1 library of Kubernetes: a merge key overrides the keys before it, and
// the keys after it override the merge key. In a list of mappings, the first mapping wins.
func (e *treeEditor) writeOutMerges(n *yaml.Node) error {
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
		from := mergedNodes(value)
		for j := len(from) - 1; j >= 0; j-- {
			m := from[j]
			if m.Kind == yaml.AliasNode {
				var err error
				if m, err = e.copyOf(m); err != nil {
					return err
				}
			}
			if m.Kind != yaml.MappingNode {
				return &lineError{line: key.Line, text: "the merge key << wants a mapping or a sequence of mappings"}
			}
			if err := e.writeOutMerges(m); err != nil {
				return err
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

// mergedNodes returns the nodes that a merge key with this value merges.
func mergedNodes(value *yaml.Node) []*yaml.Node {
	if list := resolveAlias(value); list.Kind == yaml.SequenceNode {
		return list.Content
	}
	return []*yaml.Node{value}
}

// mergesKey reports whether a merge key of a mapping merges a key.
func mergesKey(n *yaml.Node, key string) bool {
	if n.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if !isMergeKey(n.Content[i]) {
			continue
		}
		for _, m := range mergedNodes(n.Content[i+1]) {
			if m = resolveAlias(m); childIndex(m, key) >= 0 || mergesKey(m, key) {
				return true
			}
		}
	}
	return false
}
