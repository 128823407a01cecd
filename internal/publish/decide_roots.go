package publish

import (
	"crypto/x509"
	"slices"
	"time"
)

// rootSettle is how long the kubelet takes at most to bring a changed ConfigMap into
// every pod: its sync period and the lifetime of its cache, a minute each.
const rootSettle = 2 * time.Minute

// rootMemory is what one of many publishers remembers of a Secret's roots. During a
// rotation the publishers of an edge learn of it one after the other. With the memory
// each root is added once and taken out once, however many publishers there are:
//
//   - A root that somebody else added is left in place, at renewals too: this publisher
//     may be the one that does not know it yet, and the controller knows roots that no
//     publisher does (caCertificates of Istio's MeshConfig).
//   - A root that this publisher found when it started may have left the mesh before. It
//     goes with the first renewal. If it is the controller's, the controller adds it again.
//   - A root that left the mesh's roots here is taken out once every other publisher
//     has had the time to see the same.
//   - A root that somebody else took out is not added again: this publisher may be the
//     one that does not know that it is gone.
type rootMemory struct {
	// own are the mesh's roots at the last observation; nil before the first.
	own []*x509.Certificate
	// held are the own roots that the Secret has held.
	held []*x509.Certificate
	// gone are the roots in the Secret that are no longer the mesh's.
	gone []goneRoot
	// found are the roots that were in the Secret and not the mesh's at the first
	// observation, and have been there since. Nil after a renewal.
	found []*x509.Certificate
	// serial is that of the Secret's certificate at the last observation.
	serial string
}

// goneRoot is a root that is no longer the mesh's, and since when that is known.
type goneRoot struct {
	root  *x509.Certificate
	since time.Time
}

// apply returns the observation with only those differences of the roots that are to
// be acted on, and the memory after it.
func (m rootMemory) apply(o Observation, now time.Time) (Observation, rootMemory) {
	b, _ := o.keptBundle()
	if b == nil {
		return o, m
	}
	switch {
	case m.own == nil:
		o.foundRoots = o.extraRoots
	case m.serial == b.Serial():
		o.foundRoots = slices.DeleteFunc(slices.Clone(m.found), func(c *x509.Certificate) bool { return !contains(o.extraRoots, c) })
	}
	var gone []goneRoot
	for _, c := range o.extraRoots {
		at := slices.IndexFunc(m.gone, func(g goneRoot) bool { return g.root.Equal(c) })
		switch {
		case at >= 0:
			gone = append(gone, m.gone[at])
		case contains(m.own, c):
			gone = append(gone, goneRoot{root: c, since: now})
		default:
			continue
		}
		if g := gone[len(gone)-1]; now.Sub(g.since) >= rootSettle {
			o.removedRoots = append(o.removedRoots, c)
		}
	}
	if !o.rootsDamaged {
		o.LacksRoot = slices.ContainsFunc(o.ownRoots, func(c *x509.Certificate) bool { return !contains(o.heldRoots, c) && !contains(m.held, c) })
	}
	held := slices.Clone(o.heldRoots)
	for _, c := range m.held {
		if contains(o.ownRoots, c) && !contains(held, c) {
			held = append(held, c)
		}
	}
	return o, rootMemory{own: o.ownRoots, held: held, gone: gone, found: o.foundRoots, serial: b.Serial()}
}
