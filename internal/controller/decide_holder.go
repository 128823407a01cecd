package controller

import (
	"crypto/x509"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// rules are the parts of the installation's settings that decisions depend on.
type rules struct {
	// sources are the sources that are set up.
	sources map[policy.Source]bool
	// mirrorSecrets are the Secrets that may be mirrored.
	mirrorSecrets []string
	// defaults, names and labels are those of the settings.
	defaults policy.Defaults
	names    policy.Names
	labels   map[string]string
	// restarts is true when stale workloads are restarted on demand.
	restarts bool
}

// meshSettings are the settings of a revision of Istio, or why they are unknown.
type meshSettings struct {
	patches.Mesh
	err error
}

// secretObservation is what is known of a Secret before a decision.
type secretObservation struct {
	namespace, name string
	// secret is nil when there is none. readErr says why that is unknown.
	secret  *corev1.Secret
	readErr error
	// claims are those of the Secret, in order of precedence; at least one.
	claims []claim
	// roots are the mesh's. rootsErr says why they are unknown.
	roots    []*x509.Certificate
	rootsErr error
	// mesh has the settings of each revision that a claim names.
	mesh map[string]meshSettings
	// interval is the time between two checks.
	interval time.Duration
	// inspect checks the Secret against a target. Default: publish.Inspect on secret. A
	// simulation has one that reads no PEM.
	inspect func(publish.Target, time.Time) publish.Observation
}

// inspectFor checks the Secret against a target.
func (o secretObservation) inspectFor(t publish.Target, now time.Time) publish.Observation {
	if o.inspect != nil {
		return o.inspect(t, now)
	}
	return publish.Inspect(o.secret, t, now)
}

// holder is the claim that a Secret serves, and the Secret as observed for it.
type holder struct {
	claim
	source      policy.Source
	mesh        patches.Mesh
	target      publish.Target
	observation publish.Observation
}

// chooseHolder decides which claim a Secret serves when several service accounts
// claim it: the one whose identity it holds, or held before it expired, was
// damaged or deleted; otherwise the first. So two edges never overwrite each
// other's certificate, and an edge does not lose its Secret to another one because
// of a temporary problem. former is the identity at the last check; empty before
// the first.
func chooseHolder(o secretObservation, former string, now time.Time) (holder, error) {
	if o.rootsErr != nil {
		return holder{}, fmt.Errorf("roots of the mesh: %w", o.rootsErr)
	}
	if o.secret != nil && o.secret.Annotations[policy.SPIFFEIDKey] != "" {
		former = o.secret.Annotations[policy.SPIFFEIDKey]
	}
	source := sourceOf(o.claims)
	var chosen holder
	seen := map[string]bool{}
	for _, c := range o.claims {
		if seen[c.serviceAccount] {
			continue
		}
		seen[c.serviceAccount] = true
		mesh := o.mesh[c.options.Revision]
		if mesh.err != nil {
			return holder{}, mesh.err
		}
		id, err := certs.Identity(mesh.TrustDomain, o.namespace, c.serviceAccount)
		if err != nil {
			return holder{}, err
		}
		h := holder{claim: c, source: source, mesh: mesh.Mesh, target: publish.Target{
			Namespace: o.namespace, Name: o.name, ID: id, Source: string(source), Roots: o.roots,
		}}
		h.observation = o.inspectFor(h.target, now)
		if h.observation.State == publish.Good {
			return h, nil
		}
		if chosen.target.Name == "" || id.String() == former {
			chosen = h
		}
	}
	return chosen, nil
}

// losersOf are the claims of pods that a Secret does not serve, since it serves
// another service account.
func losersOf(claims []claim, h holder) []claim {
	var losers []claim
	for _, c := range claims {
		if c.serviceAccount != h.serviceAccount && c.uid != "" {
			losers = append(losers, c)
		}
	}
	return losers
}
