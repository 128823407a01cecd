package inject_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestReviewNamespace(t *testing.T) {
	enabled := map[string]string{policy.InjectionLabel: policy.InjectionEnabled}
	revision := func(r string) map[string]string {
		return map[string]string{policy.InjectionLabel: policy.InjectionEnabled, policy.IstioRevisionLabel: r}
	}
	for name, c := range map[string]struct {
		namespace           string
		labels, annotations map[string]string
		settings            inject.Settings
		excluded            bool
		problems            []string
		warnings            map[string]string
	}{
		"if it is labelled and no more, expect nothing":      {labels: enabled},
		"if the controller is limited to it, expect nothing": {labels: enabled, settings: inject.Settings{ControllerNamespaces: []string{"shop"}}},
		"if the controller is limited to others, expect a warning": {
			labels: enabled, settings: inject.Settings{ControllerNamespaces: []string{"front", "edge"}},
			warnings: map[string]string{"files-only": "namespace shop is not one of those to which the chart's value controller.namespaces limits the controller (front, edge), so no Secret is kept there: its edges get certificate files only"},
		},
		"if it is not labelled, expect nothing": {settings: inject.Settings{ControllerNamespaces: []string{"front"}}},
		"if a key is misspelt, expect the nearest": {
			labels: enabled, annotations: map[string]string{"isthmus.dev/delivry": "secret"},
			warnings: map[string]string{"unknown-key": "namespace shop: annotation isthmus.dev/delivry is not known and has no effect; did you mean isthmus.dev/delivery?"},
		},
		"if a pod's key is on it, expect where it belongs": {
			labels:   map[string]string{policy.InjectKey: "true"},
			warnings: map[string]string{"misplaced-key": "namespace shop: label isthmus.dev/inject has no effect there; use it as an annotation of a pod or a label of a pod"},
		},
		"if a value is wrong, expect what is allowed": {
			annotations: map[string]string{policy.CertTTLKey: "soon"},
			problems:    []string{`namespace shop: annotation isthmus.dev/cert-ttl: "soon" is not allowed; want a Go duration of at least one minute, such as 12h`},
		},
		"if no profile has the name, expect those there are": {
			annotations: map[string]string{policy.ProfileKey: "nginx"},
			problems:    []string{`namespace shop: annotation isthmus.dev/profile: "nginx" is not a profile; known are aes, ambassador, emissary, generic`},
		},
		"if a value changes nothing, expect why": {
			annotations: map[string]string{policy.MirrorSecretKey: "other"},
			warnings:    map[string]string{"no-effect": `namespace shop: annotation isthmus.dev/mirror-secret: "other" has no effect because the source is istio-ca; set isthmus.dev/source: mirror, or remove the annotation`},
		},
		"if cert-manager issues for longer, expect both lifetimes": {
			annotations: map[string]string{policy.SourceKey: "cert-manager", policy.CertTTLKey: "30m"},
			warnings:    map[string]string{"no-effect": "namespace shop: isthmus.dev/cert-ttl 30m0s is less than source cert-manager issues: the certificates in the Secret live 1h0m0s; ask for that, or choose another source"},
		},
		"if cert-manager issues for as long, expect nothing": {
			annotations: map[string]string{policy.SourceKey: "cert-manager", policy.CertTTLKey: "1h"},
		},
		"if the chart allows no mirror, expect its value": {
			annotations: map[string]string{policy.SourceKey: "mirror"},
			problems:    []string{`namespace shop: annotation isthmus.dev/source: "mirror" is not allowed; the chart allows no Secret to be mirrored, see its value controller.mirrorSecretNames`},
		},
		"if the chart allows other mirrors, expect them": {
			annotations: map[string]string{policy.SourceKey: "mirror", policy.MirrorSecretKey: "other"},
			settings:    inject.Settings{MirrorSecretNames: []string{"istio.default", "istio.edge"}},
			problems:    []string{`namespace shop: annotation isthmus.dev/mirror-secret: "other" is not allowed; want one of the names that the chart allows: istio.default, istio.edge`},
		},
		"if the chart allows the mirror, expect nothing": {
			annotations: map[string]string{policy.SourceKey: "mirror", policy.MirrorSecretKey: "istio.edge"},
			settings:    inject.Settings{MirrorSecretNames: []string{"istio.default", "istio.edge"}},
		},
		"if the revision is there, expect nothing": {labels: revision("canary")},
		"if it is not, expect those that are": {
			labels:   revision("canry"),
			problems: []string{`namespace shop: label istio.io/rev: "canry" cannot be used; istio revision "canry" is not installed, only canary`},
		},
		"if none is the default one, expect a warning: the namespace did not choose": {
			labels:   enabled,
			settings: inject.Settings{Mesh: patches.Mesh{MeshID: "no-default"}},
			warnings: map[string]string{"invalid-override": "edges in namespace shop are left without an identity for now: name a revision"},
		},
		"if mode istio has no injector for it, expect a warning": {
			labels:      map[string]string{policy.InjectionLabel: policy.InjectionEnabled, policy.IstioInjectionLabel: "disabled"},
			annotations: map[string]string{policy.ModeKey: "istio"},
			warnings:    map[string]string{"invalid-override": "edges in namespace shop are left without an identity for now: namespace shop has the label istio-injection=disabled, so Istio's injector is not called; remove the label, or set it to enabled"},
		},
		"if mode istio's revision has no injector, expect those that have": {
			labels: revision("canary"), annotations: map[string]string{policy.ModeKey: "istio"},
			problems: []string{`namespace shop: label istio.io/rev: "canary" cannot be used; no injector serves canary`},
		},
		"if the CA does not grant the lifetime, expect its limit": {
			labels: revision("canary"), annotations: map[string]string{policy.CertTTLKey: "48h"},
			problems: []string{"namespace shop: annotation isthmus.dev/cert-ttl 48h0m0s is above the 24h0m0s that the CA grants (MAX_WORKLOAD_CERT_TTL of istiod); istiod would refuse every request"},
		},
		"if there is no publisher, expect the setting": {
			annotations: map[string]string{policy.PublishKey: "true"},
			problems:    []string{`namespace shop: annotation isthmus.dev/publish: "true" is not allowed; the settings name no publisherImage`},
		},
		"if it is excluded, expect that nothing counts, right or wrong": {
			namespace: "vault", labels: enabled, annotations: map[string]string{policy.CertTTLKey: "soon"},
			settings: inject.Settings{ExcludedNamespaces: []string{"vault"}},
			excluded: true,
			warnings: map[string]string{"no-effect": "namespace vault is excluded from injection, so its keys have no effect (isthmus.dev/cert-ttl, isthmus.dev/injection); remove them"},
		},
		"if it is excluded and says nothing, expect nothing": {namespace: "kube-system", excluded: true},
	} {
		t.Run(name, func(t *testing.T) {
			engine, err := inject.New(inject.Options{Settings: c.settings, Mesh: func(revision string) (patches.Mesh, error) {
				switch {
				case revision == "canary":
					return patches.Mesh{MaxCertTTL: patches.Duration(24 * time.Hour)}, nil
				case revision != "":
					return patches.Mesh{}, errors.New(`istio revision "` + revision + `" is not installed, only canary`)
				case c.settings.Mesh.MeshID == "no-default":
					return patches.Mesh{}, errors.New("name a revision")
				}
				return patches.Mesh{}, nil
			}, Injector: func(revision string) (inject.Injector, error) {
				return inject.Injector{}, errors.New("no injector serves " + revision)
			}})
			require.NoError(t, err)
			ns := policy.Namespace{Name: "shop", Labels: c.labels, Annotations: c.annotations}
			if c.namespace != "" {
				ns.Name = c.namespace
			}

			got := engine.ReviewNamespace(ns)

			assert.Equal(t, c.problems, got.Problems)
			assert.Equal(t, c.excluded, got.Excluded)
			warnings := map[string]string{}
			for _, w := range got.Warnings {
				warnings[w.Code] = w.Text
			}
			if c.warnings == nil {
				c.warnings = map[string]string{}
			}
			assert.Equal(t, c.warnings, warnings)
		})
	}
}
