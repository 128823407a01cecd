package docs

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
)

// example is the profile that profiles.md shows.
func example(t *testing.T) string {
	t.Helper()
	match := regexp.MustCompile("(?s)```yaml\n(name: .*?)```").FindStringSubmatch(page(t, "profiles.md"))
	require.NotNil(t, match)
	return match[1]
}

func load(t *testing.T, text string) (*patches.Profiles, error) {
	t.Helper()
	set, err := patches.BuiltIn()
	require.NoError(t, err)
	err = set.Add("kong.yaml", []byte(text))
	return set, err
}

func TestExampleProfile(t *testing.T) {
	set, err := load(t, example(t))
	require.NoError(t, err)
	for image, want := range map[string]bool{
		"kong:3.9": true, "docker.io/kong/kong-gateway:3.9": true, "kong/kubernetes-ingress-controller:3.4": false,
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "proxy", Image: image}}}}
		assert.Equal(t, want, len(set.Candidates(pod)) == 1, image)
	}
}

func TestProfileErrorsAreShownAsTheyAre(t *testing.T) {
	for name, text := range map[string]string{
		"a field that there is not": strings.Replace(example(t), "match:", "matches:", 1),
		"nothing to match":          "name: kong\ndescription: Kong.\n",
		"an image with its tag":     strings.Replace(example(t), "[kong,", `["kong:3.9",`, 1),
		"another case":              strings.Replace(example(t), "when: files", "when: file", 1),
		"a name that is taken":      strings.Replace(example(t), "name: kong", "name: emissary", 1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, text)
			require.Error(t, err)
			assert.Contains(t, page(t, "profiles.md"), "\n"+err.Error()+"\n")
		})
	}
}
