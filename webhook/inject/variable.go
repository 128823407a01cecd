package inject

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Variable is an environment variable of a container, as far as the pod tells.
type Variable struct {
	// Value is its value. It is empty if the variable is not set, or if the pod does not
	// tell the value.
	Value string
	// Origin says where the value comes from, if the pod does not tell it: "key id of
	// ConfigMap settings". It is empty if Value is known.
	Origin string
	// IsUncertain is true if the pod does not even tell whether the variable is set: a
	// whole ConfigMap or Secret becomes variables (envFrom), and the variable may be
	// among them.
	IsUncertain bool
}

// ReadVariable reads a variable of a container as the kubelet sets it: the last entry of
// env wins, and any entry of env wins over envFrom. Fields that the pod's author sets
// are read off the pod.
func ReadVariable(pod *corev1.Pod, namespace string, c *corev1.Container, name string) Variable {
	r := variableReader{pod: pod, namespace: namespace, container: c, references: maxReferences}
	return r.read(len(c.Env), name)
}

// A value that refers to others may be as long as a power of the pod's size. What the
// engine looks for are names, so it follows only so many references and reads values of
// this length only.
const (
	maxReferences    = 32
	maxExpandedBytes = 4 << 10
)

// variableReader reads variables of a container.
type variableReader struct {
	pod       *corev1.Pod
	namespace string
	container *corev1.Container
	// references is how many references are still followed.
	references int
}

// read reads a variable as it is before the entry with the given index.
func (r *variableReader) read(before int, name string) Variable {
	c := r.container
	for i := before - 1; i >= 0; i-- {
		if c.Env[i].Name == name {
			return r.readEntry(i)
		}
	}
	for i := len(c.EnvFrom) - 1; i >= 0; i-- {
		from := &c.EnvFrom[i]
		if !strings.HasPrefix(name, from.Prefix) {
			continue
		}
		switch {
		case from.ConfigMapRef != nil:
			return Variable{Origin: "ConfigMap " + from.ConfigMapRef.Name + " (envFrom)", IsUncertain: true}
		case from.SecretRef != nil:
			return Variable{Origin: "Secret " + from.SecretRef.Name + " (envFrom)", IsUncertain: true}
		}
	}
	return Variable{}
}

func (r *variableReader) readEntry(i int) Variable {
	entry := &r.container.Env[i]
	from := entry.ValueFrom
	switch {
	case from == nil:
		return expand(entry.Value, func(name string) Variable {
			if r.references == 0 {
				return Variable{Origin: "too many references to other variables"}
			}
			r.references--
			return r.read(i, name)
		})
	case from.FieldRef != nil:
		if value, ok := readField(r.pod, r.namespace, from.FieldRef.FieldPath); ok {
			return Variable{Value: value}
		}
		return Variable{Origin: "the pod's field " + from.FieldRef.FieldPath}
	case from.ConfigMapKeyRef != nil:
		return Variable{Origin: fmt.Sprintf("key %s of ConfigMap %s", from.ConfigMapKeyRef.Key, from.ConfigMapKeyRef.Name)}
	case from.SecretKeyRef != nil:
		return Variable{Origin: fmt.Sprintf("key %s of Secret %s", from.SecretKeyRef.Key, from.SecretKeyRef.Name)}
	default:
		return Variable{Origin: "valueFrom"}
	}
}

// expand replaces $(NAME) as the kubelet does: "$$" stands for "$", and a name that is
// not set stays as it is.
func expand(text string, read func(name string) Variable) Variable {
	if !strings.Contains(text, "$") {
		return Variable{Value: text}
	}
	var out strings.Builder
	for text != "" {
		if len(text) > maxExpandedBytes || out.Len() > maxExpandedBytes {
			return Variable{Origin: "a text with references of more than 4 KiB"}
		}
		switch end := strings.IndexByte(text, ')'); {
		case strings.HasPrefix(text, "$$"):
			out.WriteByte('$')
			text = text[2:]
		case strings.HasPrefix(text, "$(") && end > 0:
			v := read(text[2:end])
			switch {
			case v.Origin != "":
				return Variable{Origin: v.Origin}
			case v.Value == "":
				out.WriteString(text[:end+1])
			default:
				out.WriteString(v.Value)
			}
			text = text[end+1:]
		default:
			out.WriteByte(text[0])
			text = text[1:]
		}
	}
	return Variable{Value: out.String()}
}

// readField reads a field that the pod tells before it is scheduled.
func readField(pod *corev1.Pod, namespace, path string) (value string, ok bool) {
	switch path {
	case "metadata.namespace":
		return namespace, true
	case "metadata.name":
		return pod.Name, pod.Name != ""
	case "metadata.uid":
		return string(pod.UID), pod.UID != ""
	case "spec.nodeName":
		return pod.Spec.NodeName, pod.Spec.NodeName != ""
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, pod.Spec.ServiceAccountName != ""
	}
	for field, values := range map[string]map[string]string{"metadata.labels": pod.Labels, "metadata.annotations": pod.Annotations} {
		if key, isField := strings.CutPrefix(path, field+"['"); isField {
			return values[strings.TrimSuffix(key, "']")], true
		}
	}
	return "", false
}
