package inject_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

func TestReadVariable(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "front", Labels: map[string]string{"id": "two"}, Annotations: map[string]string{"edge.example/id": "three"}},
		Spec:       corev1.PodSpec{ServiceAccountName: "edge"},
	}
	value := func(pairs ...string) (env []corev1.EnvVar) {
		for i := 0; i < len(pairs); i += 2 {
			env = append(env, corev1.EnvVar{Name: pairs[i], Value: pairs[i+1]})
		}
		return env
	}
	from := func(source corev1.EnvVarSource) []corev1.EnvVar {
		return []corev1.EnvVar{{Name: "ID", ValueFrom: &source}}
	}
	settings := corev1.LocalObjectReference{Name: "settings"}
	for name, c := range map[string]struct {
		env     []corev1.EnvVar
		envFrom []corev1.EnvFromSource
		want    inject.Variable
	}{
		"if it is not set, expect nothing":                          {value("OTHER", "1"), nil, inject.Variable{}},
		"if it is set, expect its value":                            {value("ID", "one"), nil, inject.Variable{Value: "one"}},
		"if it is set twice, expect the last value":                 {value("ID", "one", "ID", "two"), nil, inject.Variable{Value: "two"}},
		"if it refers to another variable, expect its value":        {value("NAME", "one", "ID", "edge-$(NAME)"), nil, inject.Variable{Value: "edge-one"}},
		"if it refers to a later variable, expect the reference":    {value("ID", "$(NAME)", "NAME", "one"), nil, inject.Variable{Value: "$(NAME)"}},
		"if it refers to itself, expect the reference":              {value("ID", "$(ID)"), nil, inject.Variable{Value: "$(ID)"}},
		"if a dollar is escaped, expect it":                         {value("NAME", "one", "ID", "$$(NAME)"), nil, inject.Variable{Value: "$(NAME)"}},
		"if a reference is not closed, expect the text":             {value("NAME", "one", "ID", "$(NAME"), nil, inject.Variable{Value: "$(NAME"}},
		"if it is a label, expect the label":                        {from(*fromField("metadata.labels['id']")), nil, inject.Variable{Value: "two"}},
		"if it is an annotation, expect the annotation":             {from(*fromField("metadata.annotations['edge.example/id']")), nil, inject.Variable{Value: "three"}},
		"if the label is not there, expect the empty value":         {from(*fromField("metadata.labels['no']")), nil, inject.Variable{}},
		"if it is the namespace, expect the namespace":              {from(*fromField("metadata.namespace")), nil, inject.Variable{Value: "edge"}},
		"if it is the name, expect the name":                        {from(*fromField("metadata.name")), nil, inject.Variable{Value: "front"}},
		"if it is the account, expect the account":                  {from(*fromField("spec.serviceAccountName")), nil, inject.Variable{Value: "edge"}},
		"if it is the pod's address, expect where it comes from":    {from(*fromField("status.podIP")), nil, inject.Variable{Origin: "the pod's field status.podIP"}},
		"if it is in a ConfigMap, expect where":                     {from(corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: settings, Key: "id"}}), nil, inject.Variable{Origin: "key id of ConfigMap settings"}},
		"if it is in a Secret, expect where":                        {from(corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: settings, Key: "id"}}), nil, inject.Variable{Origin: "key id of Secret settings"}},
		"if a reference leads to a ConfigMap, expect where":         {append([]corev1.EnvVar{{Name: "NAME", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: settings, Key: "id"}}}}, value("ID", "$(NAME)")...), nil, inject.Variable{Origin: "key id of ConfigMap settings"}},
		"if a whole ConfigMap may set it, expect that":              {nil, []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: settings}}}, inject.Variable{Origin: "ConfigMap settings (envFrom)", IsUncertain: true}},
		"if a whole Secret may set it, expect that":                 {nil, []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: settings}}}, inject.Variable{Origin: "Secret settings (envFrom)", IsUncertain: true}},
		"if the prefix excludes it, expect nothing":                 {nil, []corev1.EnvFromSource{{Prefix: "APP_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: settings}}}, inject.Variable{}},
		"if env sets it beside a ConfigMap, expect the value of it": {value("ID", "one"), []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: settings}}}, inject.Variable{Value: "one"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, inject.ReadVariable(pod, "edge", &corev1.Container{Env: c.env, EnvFrom: c.envFrom}, "ID"))
		})
	}
}

// A value of a few bytes may stand for one of gigabytes, and must not become it.
func TestReferencesAreFollowedWithinBounds(t *testing.T) {
	doubled := []corev1.EnvVar{{Name: "ID", Value: "one"}}
	for range 40 {
		doubled = append(doubled, corev1.EnvVar{Name: "ID", Value: "$(ID)$(ID)"})
	}
	long := []corev1.EnvVar{{Name: "NAME", Value: strings.Repeat("x", 8<<10)}, {Name: "ID", Value: "$(NAME)$(NAME)"}}
	for name, c := range map[string]struct {
		env  []corev1.EnvVar
		want string
	}{
		"if values are doubled again and again, expect no value": {doubled, "too many references to other variables"},
		"if a long value is repeated, expect no value":           {long, "a text with references of more than 4 KiB"},
		"if many references are not closed, expect no value":     {[]corev1.EnvVar{{Name: "ID", Value: strings.Repeat("$(", 1<<20)}}, "a text with references of more than 4 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, inject.Variable{Origin: c.want}, inject.ReadVariable(&corev1.Pod{}, "edge", &corev1.Container{Env: c.env}, "ID"))
		})
	}
}
