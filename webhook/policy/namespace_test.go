package policy

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNamespaceProblems(t *testing.T) {
	for name, c := range map[string]struct {
		labels, annotations map[string]string
		want                []string
	}{
		"if the namespace has no keys, expect no problems": {},
		"if every value is allowed, expect no problems": {
			labels:      map[string]string{InjectionLabel: "enabled"},
			annotations: map[string]string{ModeKey: "secret", SourceKey: "cert-manager", CertTTLKey: "12h", RestartKey: "true", "other.dev/key": "x"},
		},
		"if the namespace is locked, expect no problems": {labels: map[string]string{InjectionLabel: "disabled"}},
		"if the label has another value, expect the allowed values": {
			labels: map[string]string{InjectionLabel: "true"},
			want:   []string{`namespace shop: label isthmus.dev/injection: "true" is not allowed; want enabled or disabled`},
		},
		"if several values are wrong, expect each of them, the label first": {
			labels:      map[string]string{InjectionLabel: ""},
			annotations: map[string]string{CertTTLKey: "soon", DeliveryKey: "pigeon", TLSContextKey: "yes", RestartKey: "always"},
			want: []string{
				`namespace shop: label isthmus.dev/injection: "" is not allowed; want enabled or disabled`,
				`namespace shop: annotation isthmus.dev/restart-when-stale: "always" is not allowed; want "true" or "false"`,
				`namespace shop: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret`,
				`namespace shop: annotation isthmus.dev/tls-context: "yes" is not allowed; want "true", "false" or one of the names that the chart allows: istio-upstream, mesh-upstream`,
				`namespace shop: annotation isthmus.dev/cert-ttl: "soon" is not allowed; want a Go duration of at least one minute, such as 12h`,
			},
		},
		"if two values contradict each other, expect one problem": {
			annotations: map[string]string{ModeKey: "secret", DeliveryKey: "files"},
			want:        []string{`namespace shop: annotation isthmus.dev/delivery: "files" is not allowed; mode secret has no agent that writes files; want secret`},
		},
		"if the chart does not allow the Secret's name, expect the allowed names": {
			annotations: map[string]string{SecretNameKey: "other"},
			want:        []string{`namespace shop: annotation isthmus.dev/secret-name: "other" is not allowed; want one of the names that the chart allows: istio-certs`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := Namespace{Name: "shop", Labels: c.labels, Annotations: c.annotations}
			assert.Equal(t, c.want, NamespaceProblems(ns, Defaults{}, Names{Secrets: []string{"istio-certs"}, TLSContexts: []string{"istio-upstream", "mesh-upstream"}}))
		})
	}
}

// An invalid default is reported once: removing annotations does not help.
func TestNamespaceProblemsReportsAnInvalidDefaultOnce(t *testing.T) {
	got := NamespaceProblems(Namespace{Name: "shop"}, Defaults{CertTTL: "soon"}, Names{Secrets: []string{"istio-certs"}})
	assert.Equal(t, []string{`default for isthmus.dev/cert-ttl: "soon" is not allowed; want a Go duration of at least one minute, such as 12h`}, got)
}

func TestNamespaceKeys(t *testing.T) {
	got := NamespaceKeys(map[string]string{ModeKey: "", "a": "", InjectionLabel: ""}, map[string]string{ModeKey: "", "isthmus.dev/x": ""})
	assert.Equal(t, []string{InjectionLabel, ModeKey, "isthmus.dev/x"}, got)
}
