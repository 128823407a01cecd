package manifest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// TestEmptyFieldsComeBack injects edges with fields that are null or empty, and reverts
// the injection: every byte is back.
func TestEmptyFieldsComeBack(t *testing.T) {
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	const image = "emissaryingress/emissary:4.1.0"
	deployment := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: edge}\nspec:\n  template:\n"
	container := "      containers:\n      - name: emissary\n        image: " + image + "\n"
	yaml := deployment + "    metadata:\n      annotations: A\n    spec:\n" + container + "        env: A\n        volumeMounts: A\n      initContainers: A\n      volumes: A\n"
	braces := deployment + "    metadata: {annotations: A, labels: A}\n    spec: {containers: [{name: e, image: '" + image + "', env: A, volumeMounts: A}], initContainers: A, volumes: A}\n"
	json := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"edge","annotations":A,"labels":A},"spec":{"containers":[{"name":"e","image":"` + image + `","env":A,"volumeMounts":A}],"initContainers":A,"volumes":A}}`
	indented := strings.NewReplacer(`{`, "{\n  ", `,`, ",\n  ").Replace(json)
	for name, test := range map[string]struct {
		in        string
		spellings []string
	}{
		"YAML":             {yaml, []string{"", "~", "null", "Null", "  ~", "null # none yet", "# none yet", "  # none yet", "null  "}},
		"template":         {deployment + "    metadata: A\n    spec:\n" + container, []string{"", "null", "~ # none", "{}", "{ }", "{} # none"}},
		"mapping":          {deployment + "    metadata:\n      labels: A\n      annotations: A\n    spec:\n" + container, []string{"{}", "{ }", "{} # none", "{ } # none", "{\n      }"}},
		"list":             {deployment + "    spec:\n" + container + "        env: A\n      volumes: A\n", []string{"[]", "  []", "[ ]", "[] # none", "[\n      ] # none"}},
		"braces":           {braces, []string{"null", "~", ""}},
		"JSON":             {json, []string{"null"}},
		"indented JSON":    {indented, []string{"null"}},
		"a list in JSON":   {`{"apiVersion":"v1","kind":"List","items":[` + json + `]}`, []string{"null"}},
		"Windows newlines": {strings.ReplaceAll(yaml, "\n", "\r\n"), []string{"", "~", "null # none"}},
		"no final newline": {strings.TrimSuffix(yaml, "\n"), []string{"", "~"}},
	} {
		for _, spelling := range test.spellings {
			t.Run(name+"/"+spelling, func(t *testing.T) {
				in := strings.ReplaceAll(test.in, "A", spelling)
				injected := string(transform(t, InjectEditor(engine), in).Text())
				require.NotEqual(t, in, injected)
				assert.Equal(t, injected, string(transform(t, InjectEditor(engine), injected).Text()), "twice is once")
				assert.Equal(t, in, string(transform(t, UninjectEditor(inject.Uninject), injected).Text()))
			})
		}
	}
}

// TestEmptyFieldsKeepComments shows that the comment behind an empty field stays where it
// is while the field is filled.
func TestEmptyFieldsKeepComments(t *testing.T) {
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	in := "apiVersion: v1\nkind: Pod\nmetadata:\n  name: edge\n  annotations: {} # none yet\nspec:\n  volumes: ~   # nor here\n  containers:\n  - name: emissary\n    image: emissaryingress/emissary:4.1.0\n"
	injected := string(transform(t, InjectEditor(engine), in).Text())
	assert.Contains(t, injected, "\n  annotations: # none yet\n    ")
	assert.Contains(t, injected, "\n  volumes:   # nor here\n  - ")
	assert.Contains(t, injected, `"empty":{"/spec/volumes":" ~"}`)
}

// TestEmptyFieldsInAnotherFormat restores in JSON what was spelled in YAML.
func TestEmptyFieldsInAnotherFormat(t *testing.T) {
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	in := "apiVersion: v1\nkind: Pod\nmetadata: {name: edge}\nspec:\n  volumes: ~\n  containers:\n  - name: emissary\n    image: emissaryingress/emissary:4.1.0\n    env: [ # none\n    ]\n"
	raw, err := transform(t, InjectEditor(engine), in).JSON()
	require.NoError(t, err)
	back := string(transform(t, UninjectEditor(inject.Uninject), string(raw)).Text())
	assert.JSONEq(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"edge"},"spec":{"volumes":null,"containers":[{"name":"emissary","image":"emissaryingress/emissary:4.1.0","env":[]}]}}`, back)
}
