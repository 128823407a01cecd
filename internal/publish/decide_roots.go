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
//   - A root that somebody else added is left in place: this publisher may be the one
//     that does not know it yet.
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
}

// goneRoot is a root that is no longer the mesh's, and since when that is known.
type goneRoot struct {
	root  *x509.Certificate
	since time.Time
}

// apply returns the observation with only those differences of the roots that are to
// be acted on, and the memory after it.
func (m rootMemory) apply(o Observation, now time.Time) (Observation, rootMemory) {
	if b, _ := o.keptBundle(); b == nil {
		return o, m
	}
	isFirst := m.own == nil
	var gone []goneRoot
	for _, c := range o.extraRoots {
		at := slices.IndexFunc(m.gone, func(g goneRoot) bool { return g.root.Equal(c) })
		switch {
		case at >= 0:
			gone = append(gone, m.gone[at])
		case isFirst || contains(m.own, c):
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
	return o, rootMemory{own: o.ownRoots, held: held, gone: gone}
}
