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
	return readVariable(pod, namespace, c, len(c.Env), name)
}

// readVariable reads a variable as it is before the entry with the given index.
func readVariable(pod *corev1.Pod, namespace string, c *corev1.Container, before int, name string) Variable {
	for i := before - 1; i >= 0; i-- {
		if c.Env[i].Name == name {
			return readEntry(pod, namespace, c, i)
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

func readEntry(pod *corev1.Pod, namespace string, c *corev1.Container, i int) Variable {
	entry := &c.Env[i]
	from := entry.ValueFrom
	switch {
	case from == nil:
		return expand(entry.Value, func(name string) Variable { return readVariable(pod, namespace, c, i, name) })
	case from.FieldRef != nil:
		if value, ok := readField(pod, namespace, from.FieldRef.FieldPath); ok {
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
