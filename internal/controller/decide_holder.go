package controller

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
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
	// labels are those of every Secret that the controller keeps.
	labels map[string]string
	// roots are the mesh's. rootsErr says why they are unknown.
	roots    []*x509.Certificate
	rootsErr error
	// mesh has the settings of each revision that a claim names.
	mesh map[string]meshSettings
	// interval is the time between two checks, and leafSpread over how long new
	// certificates after a change of the roots are spread.
	interval, leafSpread time.Duration
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
	source policy.Source
	// needsLeaf is true for an edge that may notice new roots in the Secret only
	// together with a new certificate.
	needsLeaf   bool
	mesh        patches.Mesh
	target      publish.Target
	observation publish.Observation
}

// ignoredClaim is a claim that cannot be resolved, and why.
type ignoredClaim struct {
	claim
	err error
}

func isIgnored(list []ignoredClaim, c claim) bool {
	return slices.ContainsFunc(list, func(i ignoredClaim) bool { return i.uid == c.uid && i.serviceAccount == c.serviceAccount })
}

// chooseHolder decides which claim a Secret serves when several service accounts
// claim it: the one whose identity it holds, or held before it expired, was
// damaged or deleted; otherwise the first. So two edges never overwrite each
// other's certificate, and an edge does not lose its Secret to another one because
// of a temporary problem. former is the identity at the last check; zero before the
// first. A claim that cannot be resolved, as when its revision of Istio is gone, is
// left out; the error is the first one's when that leaves none.
func chooseHolder(o secretObservation, former spiffeid.ID, now time.Time) (chosen holder, ignored []ignoredClaim, err error) {
	if o.rootsErr != nil {
		return holder{}, nil, fmt.Errorf("roots of the mesh: %w", o.rootsErr)
	}
	if o.secret != nil {
		if id, err := spiffeid.FromString(o.secret.Annotations[policy.SPIFFEIDKey]); err == nil {
			former = id
		}
	}
	seen := map[string]bool{}
	for _, c := range o.claims {
		if seen[c.serviceAccount] {
			continue
		}
		mesh := o.mesh[c.options.Revision]
		if mesh.err != nil {
			ignored = append(ignored, ignoredClaim{claim: c, err: mesh.err})
			continue
		}
		id, err := certs.Identity(mesh.TrustDomain, o.namespace, c.serviceAccount)
		if err != nil {
			ignored = append(ignored, ignoredClaim{claim: c, err: err})
			continue
		}
		seen[c.serviceAccount] = true
		h := holderOf(c, o, mesh.Mesh, id)
		h.observation = o.inspectFor(h.target, now)
		if h.observation.State == publish.Good {
			return h, ignored, nil
		}
		// The trust domain may have changed: namespace and service account say whose it is.
		if chosen.target.Name == "" || !former.IsZero() && id.Path() == former.Path() {
			chosen = h
		}
	}
	if chosen.target.Name == "" {
		return holder{}, ignored, ignored[0].err
	}
	return chosen, ignored, nil
}

// holderOf is the holder for a claim. The claims of its service account alone decide
// on the source.
func holderOf(c claim, o secretObservation, mesh patches.Mesh, id spiffeid.ID) holder {
	claims := claimsOf(c.serviceAccount, o.claims)
	source := sourceOf(claims)
	return holder{
		claim: c, source: source, mesh: mesh, needsLeaf: slices.ContainsFunc(claims, readsRootsWithLeaf),
		target: publish.Target{Namespace: o.namespace, Name: o.name, ID: id, Source: string(source), Labels: o.labels, Roots: o.roots},
	}
}

// readsRootsWithLeaf reports whether the edge of a claim may notice new roots in the
// Secret only together with a new certificate. The TLSContext that the controller keeps
// has the roots in a Secret of their own, which is noticed.
func readsRootsWithLeaf(c claim) bool {
	return c.secret.IgnoresRoots && c.options.Delivery == policy.DeliverySecret && c.options.TLSContext == ""
}

// claimsOf are the claims of a service account.
func claimsOf(account string, claims []claim) []claim {
	var own []claim
	for _, c := range claims {
		if c.serviceAccount == account {
			own = append(own, c)
		}
	}
	return own
}

// holdingClaims are the claims of the service accounts that the Secrets serve: nobody
// else may write them. isKnown is false while a Secret has not been checked. A Secret
// of which no claim can be resolved does not keep the others waiting: it will serve its
// only service account; of several nobody knows which.
func holdingClaims(groups map[string][]claim, secrets map[string]*secretState) (holding []claim, isKnown bool) {
	for name, claims := range groups {
		s := secrets[name]
		switch {
		case s != nil && s.isKnown():
			holding = append(holding, claimsOf(s.account, claims)...)
		case s == nil || !s.hasIgnored:
			return nil, false
		default:
			if own := claimsOf(claims[0].serviceAccount, claims); len(own) == len(claims) {
				holding = append(holding, own...)
			}
		}
	}
	return holding, true
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
