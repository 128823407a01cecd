package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
)

// decodePod decodes the pod in a pod or pod template. It ignores unknown fields,
// because they stay in the text.
func decodePod(template any, keys []string) (*corev1.Pod, error) {
	mapping, ok := template.(map[string]any)
	if !ok {
		return nil, &fieldError{keys, "want a mapping, got " + describeType(template)}
	}
	var pod corev1.Pod
	var errs []error
	for _, part := range []struct {
		key  string
		into any
	}{{"metadata", &pod.ObjectMeta}, {"spec", &pod.Spec}} {
		value, ok := mapping[part.key]
		if !ok {
			continue
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, part.into); err != nil {
			path := append(append([]string{}, keys...), part.key)
			fieldErr := findFieldErrors(reflect.TypeOf(part.into).Elem(), value, path)
			if fieldErr == nil {
				fieldErr = &fieldError{path, err.Error()}
			}
			errs = append(errs, fieldErr)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &pod, nil
}

// findFieldErrors returns an error for each field of value that prevents decoding
// into t. The decoder's own error lacks list indices and covers the first field only.
func findFieldErrors(t reflect.Type, value any, keys []string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return &fieldError{keys, err.Error()}
	}
	into := reflect.New(t)
	err = kjson.UnmarshalCaseSensitivePreserveInts(raw, into.Interface())
	if err == nil {
		return nil
	}
	childPath := func(key string) []string { return append(append([]string{}, keys...), key) }
	var errs []error
	_, hasUnmarshaler := into.Interface().(json.Unmarshaler)
	switch v := value.(type) {
	case map[string]any:
		if hasUnmarshaler {
			break
		}
		fields := jsonFields(t)
		for _, key := range slices.Sorted(maps.Keys(v)) {
			switch {
			case t.Kind() == reflect.Map:
				errs = append(errs, findFieldErrors(t.Elem(), v[key], childPath(key)))
			case fields[key] != nil:
				errs = append(errs, findFieldErrors(fields[key], v[key], childPath(key)))
			}
		}
	case []any:
		if t.Kind() == reflect.Slice && !hasUnmarshaler {
			for i, item := range v {
				errs = append(errs, findFieldErrors(t.Elem(), item, childPath(fmt.Sprint(i))))
			}
		}
	}
	if inner := errors.Join(errs...); inner != nil {
		return inner
	}
	return &fieldError{keys, describeTypeError(t, value, err, hasUnmarshaler)}
}

// describeTypeError says in the words of YAML why value cannot be decoded into t.
func describeTypeError(t reflect.Type, value any, err error, hasUnmarshaler bool) string {
	shown, _ := json.Marshal(value)
	if len(shown) > 60 {
		shown = append(shown[:57], "..."...)
	}
	if hasUnmarshaler {
		return fmt.Sprintf("%s: %v", shown, err)
	}
	want := map[reflect.Kind]string{
		reflect.Struct: "a mapping", reflect.Map: "a mapping", reflect.Slice: "a list",
		reflect.String: "a string", reflect.Bool: "true or false",
	}[t.Kind()]
	if want == "" {
		want = "a whole number"
	}
	text := fmt.Sprintf("want %s, got %s %s", want, describeType(value), shown)
	if want == "a string" && (describeType(value) == "a number" || describeType(value) == "a boolean") {
		text += `: quote it`
	}
	return text
}

func describeType(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case string:
		return "the string"
	case bool:
		return "a boolean"
	default:
		return "a number"
	}
}

// jsonFields returns the types of a struct's fields by their names in JSON.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	if t.Kind() != reflect.Struct {
		return fields
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && f.Anonymous {
			for inner, fieldType := range jsonFields(f.Type) {
				fields[inner] = fieldType
			}
			continue
		}
		fields[name] = f.Type
	}
	return fields
}
