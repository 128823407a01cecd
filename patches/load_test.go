package patches_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/patches"
)

func TestBuiltIn(t *testing.T) {
	set, err := patches.BuiltIn()
	require.NoError(t, err)
	assert.Equal(t, []string{"aes", "ambassador", "emissary", "generic"}, set.Names())
	assert.Nil(t, set.ByName("nginx"))
}

// TestAddErrors shows that errors name file, line, field and the way out.
func TestAddErrors(t *testing.T) {
	const head = "name: nginx\ndescription: NGINX.\n"
	for name, c := range map[string]struct{ yaml, want string }{
		"no YAML":             {"name: [", "own.yaml: line 1: did not find expected node content"},
		"nothing":             {"", "own.yaml: no profile in it"},
		"a list":              {"- name: x\n", "own.yaml:1: want a mapping with the fields of a profile"},
		"unknown field":       {head + "match:\n- image: [nginx]\n", `own.yaml:4: match[0] has no field "image"; known are commands, containers, env, firstWords, images, labels, otherProbePaths, probePaths, restartPolicies, withoutEnv, withoutLabels, words`},
		"forbidden field":     {head + "securityContext: {}\n", `own.yaml:3: a profile has no field "securityContext"; known are description, env, files, match, name, not, onlyNamed, readsSecret`},
		"in second document":  {head + "onlyNamed: true\n---\nname: b\nsummary: x\n", `own.yaml:6: a profile has no field "summary"`},
		"field twice":         {head + "name: again\n", `own.yaml:3: a profile has the field "name" twice`},
		"wrong type":          {head + "match: nginx\n", "own.yaml:1: json: cannot unmarshal string"},
		"bad name":            {"name: NGINX\ndescription: x\nonlyNamed: true\n", `own.yaml:1: name "NGINX": want lower case letters, digits and dashes, at most 63`},
		"no description":      {"name: nginx\nonlyNamed: true\n", `own.yaml:1: profile "nginx": description is missing`},
		"no match":            {head, `own.yaml:1: profile "nginx": match is empty; set onlyNamed: true for a profile that only isthmus.dev/profile can choose`},
		"match and onlyNamed": {head + "onlyNamed: true\nmatch: [{images: [nginx]}]\n", `own.yaml:3: profile "nginx": onlyNamed excludes match and not`},
		"empty criteria":      {head + "match: [{}]\n", "own.yaml:3: match[0] is empty and would hold for every pod"},
		"image with tag":      {head + "match: [{images: ['nginx:1.29']}]\n", `own.yaml:3: match[0].images "nginx:1.29": want the end of a repository path such as datawire/aes, without tag or wildcard`},
		"env without when":    {head + "onlyNamed: true\nenv: [{name: CERTS, value: x}]\n", `own.yaml:4: env[0].when "": want files, envoy or always`},
		"env name":            {head + "onlyNamed: true\nenv: [{name: 'A B', value: x, when: always}]\n", `own.yaml:4: env[0].name "A B": want the name of an environment variable`},
		"env twice":           {head + "onlyNamed: true\nenv: [{name: A, value: x, when: always}, {name: A, value: y, when: files}]\n", `own.yaml:4: env[1].name "A" occurs twice`},
		"env placeholder":     {head + "onlyNamed: true\nenv: [{name: A, value: '${podName}', when: always}]\n", "own.yaml:4: env[0].value: unknown placeholder ${podName}; only ${certDir} is known"},
		"env since":           {head + "onlyNamed: true\nenv: [{name: A, value: x, when: files, since: soon}]\n", `own.yaml:4: env[0].since "soon": want a version such as 1.10`},
		"form":                {head + "onlyNamed: true\nsecret: {forms: [tls, pem]}\n", `own.yaml:4: secret.forms[1] "pem": want tls or roots`},
		"selector":            {head + "onlyNamed: true\nsecret: {selectors: {fields: A-B}}\n", `own.yaml:4: secret.selectors.fields "A-B": want the name of an environment variable`},
		"reload":              {head + "onlyNamed: true\nfiles: {reloadSince: later}\n", `own.yaml:4: files.reloadSince "later": want a version such as 4.1, or never`},
		"name taken":          {"name: emissary\ndescription: x\nonlyNamed: true\n", `own.yaml:1: profile "emissary" is defined already; choose another name`},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := patches.BuiltIn()
			require.NoError(t, err)
			err = set.Add("own.yaml", []byte(c.yaml))
			require.Error(t, err)
			assert.Contains(t, err.Error(), c.want)
			assert.Len(t, set.Names(), 4, "a file with an error adds nothing")
		})
	}
}

func TestAddTwoDocuments(t *testing.T) {
	set, err := patches.BuiltIn()
	require.NoError(t, err)
	require.NoError(t, set.Add("own.yaml", []byte("name: a\ndescription: A.\nonlyNamed: true\n---\n# nothing here\n---\nname: b\ndescription: B.\nmatch: [{images: [corp/b], labels: {app: b}}]\n")))
	assert.Equal(t, []string{"a", "aes", "ambassador", "b", "emissary", "generic"}, set.Names())
}

// FuzzAdd checks for every file that loading returns, either with an unchanged set or with
// profiles that have names.
func FuzzAdd(f *testing.F) {
	f.Add([]byte("name: a\ndescription: A.\nmatch: [{images: [corp/a], env: [X]}]\nenv: [{name: A, value: '${certDir}', when: files, since: 1.2.3}]\n"))
	f.Add([]byte("name: a\ndescription: &d A.\nnot: [{labels: {a: *d}}]\n---\n- 1\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		set := &patches.Profiles{}
		if err := set.Add("f.yaml", data); err != nil {
			assert.Empty(t, set.Names())
			assert.Contains(t, err.Error(), "f.yaml")
			return
		}
		for _, name := range set.Names() {
			assert.NotNil(t, set.ByName(name))
		}
	})
}
