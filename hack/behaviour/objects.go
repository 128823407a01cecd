package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// isWording reports whether a field of this name holds a sentence for people.
func isWording(key string) bool {
	return slices.Contains([]string{"description", "summary", "message", "messageExpression", "title"}, key)
}

// parse reads a stream of YAML or JSON documents.
func parse(text string) ([]any, error) {
	var documents []any
	for decoder := yaml.NewDecoder(strings.NewReader(text)); ; {
		var document any
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		if document != nil {
			documents = append(documents, normalize(document))
		}
	}
}

// normalize empties fields that hold wording, and parses texts that hold
// documents themselves, such as settings and dashboards in a ConfigMap.
func normalize(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for key, field := range v {
			if _, isText := field.(string); isText && isWording(key) {
				v[key] = ""
				continue
			}
			v[key] = normalize(field)
		}
	case []any:
		for i := range v {
			v[i] = normalize(v[i])
		}
	case string:
		var inner map[string]any
		if strings.ContainsAny(v, "\n{") && yaml.Unmarshal([]byte(v), &inner) == nil && inner != nil {
			return normalize(inner)
		}
	}
	return value
}

// difference names the first place where two values differ; empty where none does.
func difference(path string, a, b any) string {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			break
		}
		for _, key := range slices.Sorted(maps.Keys(x)) {
			if _, found := y[key]; !found {
				return fmt.Sprintf("%s.%s is gone: %s", path, key, quote(x[key]))
			}
			if d := difference(path+"."+key, x[key], y[key]); d != "" {
				return d
			}
		}
		for _, key := range slices.Sorted(maps.Keys(y)) {
			if _, found := x[key]; !found {
				return fmt.Sprintf("%s.%s is new: %s", path, key, quote(y[key]))
			}
		}
		return ""
	case []any:
		y, ok := b.([]any)
		if !ok {
			break
		}
		if len(x) != len(y) {
			return fmt.Sprintf("%s has %d items, and had %d", path, len(y), len(x))
		}
		for i := range x {
			if d := difference(fmt.Sprintf("%s[%d]", path, i), x[i], y[i]); d != "" {
				return d
			}
		}
		return ""
	}
	if reflect.DeepEqual(a, b) {
		return ""
	}
	return fmt.Sprintf("%s is %s, and was %s", path, quote(b), quote(a))
}

// compareTexts compares two texts as parsed documents, or letter by letter where
// neither parses.
func compareTexts(before, after string) string {
	if before == after {
		return ""
	}
	a, errA := parse(before)
	b, errB := parse(after)
	if errA != nil || errB != nil {
		return fmt.Sprintf("%d bytes, and were %d, that differ and do not both parse", len(after), len(before))
	}
	return difference("", a, b)
}
