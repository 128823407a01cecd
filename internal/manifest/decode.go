package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	kjson "sigs.k8s.io/json"
)

// decodePod decodes the pod in a pod or pod template, with the defaults of the API server
// that the engine relies on. It ignores unknown fields, because they stay in the text.
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
		raw, err := json.Marshal(withWholeNumbers(value))
		if err != nil {
			return nil, err
		}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, part.into); err != nil {
			path := append(append([]string{}, keys...), part.key)
			fieldErr := findFieldErrors(reflect.TypeOf(part.into).Elem(), value, path)
			if fieldErr == nil {
				fieldErr = &fieldError{path, "does not decode: " + err.Error()}
			}
			errs = append(errs, fieldErr)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	setDefaults(&pod)
	return &pod, nil
}

// setDefaults sets what the API server sets before the webhook sees a pod.
func setDefaults(pod *corev1.Pod) {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.VolumeSource == (corev1.VolumeSource{}) {
			v.EmptyDir = &corev1.EmptyDirVolumeSource{}
		}
	}
}

// withWholeNumbers returns a value with every number that is whole written as an integer:
// programs without integers write 30.0 or 3e1, and kubectl takes both.
func withWholeNumbers(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			out[key] = withWholeNumbers(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = withWholeNumbers(inner)
		}
		return out
	case json.Number:
		return wholeNumber(v)
	}
	return value
}

// maxExactFloat is the largest whole number up to which a float64 holds all of them.
const maxExactFloat = 1 << 53

func wholeNumber(n json.Number) json.Number {
	if !strings.ContainsAny(n.String(), ".eE") {
		return n
	}
	f, err := n.Float64()
	if err != nil || f != math.Trunc(f) || math.Abs(f) > maxExactFloat {
		return n
	}
	return json.Number(strconv.FormatInt(int64(f), 10))
}

// findFieldErrors returns an error for each field of value that prevents decoding
// into t. The decoder's own error lacks list indices and covers the first field only.
func findFieldErrors(t reflect.Type, value any, keys []string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	raw, err := json.Marshal(withWholeNumbers(value))
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
	return &fieldError{keys, describeTypeError(t, value)}
}

// wantedValues says what a type with a decoder of its own wants.
var wantedValues = map[reflect.Type]string{
	reflect.TypeFor[intstr.IntOrString](): "a whole number or a string",
	reflect.TypeFor[resource.Quantity]():  "a quantity such as 100m or 1Gi",
	reflect.TypeFor[metav1.Time]():        "a time such as 2006-01-02T15:04:05Z",
	reflect.TypeFor[metav1.MicroTime]():   "a time such as 2006-01-02T15:04:05.000000Z",
	reflect.TypeFor[metav1.Duration]():    "a duration such as 30s",
	reflect.TypeFor[metav1.FieldsV1]():    "a mapping",
}

// wantedKinds says what a type wants that is decoded by its kind.
var wantedKinds = map[reflect.Kind]string{
	reflect.Struct: "a mapping", reflect.Map: "a mapping", reflect.Slice: "a list",
	reflect.String: "a string", reflect.Bool: "true or false",
}

// describeTypeError says in the words of YAML why value cannot be decoded into t.
func describeTypeError(t reflect.Type, value any) string {
	shown, _ := json.Marshal(value)
	if len(shown) > 60 {
		shown = append(bytes.ToValidUTF8(shown[:57], nil), "..."...)
	}
	want := wantedValues[t]
	if want == "" {
		want = wantedKinds[t.Kind()]
	}
	if want == "" {
		want = "a whole number"
	}
	got := describeType(value)
	text := fmt.Sprintf("want %s, got %s %s", want, got, shown)
	if want == "a string" && (got == "a number" || got == "a boolean") {
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
