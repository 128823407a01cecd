package environment

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestIsNudge(t *testing.T) {
	at := func(version, nudge, data string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{ResourceVersion: version, Annotations: map[string]string{policy.NudgeKey: nudge}},
			Data:       map[string][]byte{"tls.crt": []byte(data)},
		}
	}
	assert.True(t, isNudge(at("1", "", "a"), at("2", "now", "a")))
	assert.False(t, isNudge(at("1", "now", "a"), at("2", "now", "a")), "the same content, written again")
	assert.False(t, isNudge(at("1", "", "a"), at("2", "now", "b")), "with another certificate")
}

func TestUnneededWrites(t *testing.T) {
	start := time.Now()
	at := func(serial string, seconds int) SecretVersion {
		seen := start.Add(time.Duration(seconds) * time.Second)
		return SecretVersion{Serial: serial, Seen: seen, Due: seen.Add(20 * time.Second)}
	}
	for name, test := range map[string]struct {
		versions []SecretVersion
		expected []string
	}{
		"if there is no version, expect nothing":                       {},
		"if each write was due, expect nothing":                        {[]SecretVersion{at("a", 0), at("b", 20), at("c", 45)}, nil},
		"if one was not due, expect how early it was":                  {[]SecretVersion{at("a", 0), at("b", 19)}, []string{"version 1: serial a was not due for 1s"}},
		"if a certificate is written twice, expect it":                 {[]SecretVersion{at("a", 0), at("a", 20)}, []string{"version 1: serial a was there before"}},
		"if an earlier certificate returns when one is due, expect it": {[]SecretVersion{at("a", 0), at("b", 20), at("a", 40)}, []string{"version 2: serial a was there before"}},
		"if the Secret is deleted, expect the deletion and the repeat": {[]SecretVersion{at("a", 0), {Serial: "a", Deleted: true}, at("a", 2)}, []string{"version 1: the Secret was deleted", "version 2: serial a was there before"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.expected, (&SecretHistory{versions: test.versions}).UnneededWrites())
		})
	}
}
