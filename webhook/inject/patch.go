package inject

import (
	"strings"

	"gomodules.xyz/jsonpatch/v2"
)

// patchBuilder collects operations and notes in the status which fields they add.
type patchBuilder struct {
	ops    []jsonpatch.Operation
	status *Status
}

// addItems appends items to the list at path, and adds the list if it does not exist.
func (b *patchBuilder) addItems(path string, exists bool, items []any) {
	if len(items) == 0 {
		return
	}
	if !exists {
		b.status.Added.Fields = append(b.status.Added.Fields, path)
		b.ops = append(b.ops, jsonpatch.NewOperation("add", path, items))
		return
	}
	for _, item := range items {
		b.ops = append(b.ops, jsonpatch.NewOperation("add", path+"/-", item))
	}
}

// addPairs adds to a map, adds the map if it does not exist, and returns what it added.
func (b *patchBuilder) addPairs(path string, exists bool, pairs []keyValue) map[string]string {
	if len(pairs) == 0 {
		return nil
	}
	if !exists {
		b.status.Added.Fields = append(b.status.Added.Fields, path)
	}
	b.writePairs(path, exists, pairs)
	return asMap(pairs)
}

func (b *patchBuilder) writePairs(path string, exists bool, pairs []keyValue) {
	if !exists {
		b.ops = append(b.ops, jsonpatch.NewOperation("add", path, asMap(pairs)))
		return
	}
	for _, p := range pairs {
		b.ops = append(b.ops, jsonpatch.NewOperation("add", path+"/"+escape(p.key), p.value))
	}
}

// replaceValues replaces values in the map at path, and returns the old and new ones.
func (b *patchBuilder) replaceValues(path string, list []replacement) map[string]Replaced {
	if len(list) == 0 {
		return nil
	}
	replaced := make(map[string]Replaced, len(list))
	for _, r := range list {
		replaced[r.key] = Replaced{Was: r.was, Value: r.value}
		b.ops = append(b.ops, jsonpatch.NewOperation("replace", path+escape(r.key), r.value))
	}
	return replaced
}

func asMap(pairs []keyValue) map[string]string {
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		m[p.key] = p.value
	}
	return m
}

// escape turns a key into a segment of a JSON pointer (RFC 6901).
var escape = strings.NewReplacer("~", "~0", "/", "~1").Replace
