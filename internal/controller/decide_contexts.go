package controller

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// ambassadorIDVariable is the variable that holds Emissary's ID. An Emissary ignores
// resources that do not name its ID; without the variable its ID is defaultID, and so
// is that of a resource without IDs.
const (
	ambassadorIDVariable = "AMBASSADOR_ID"
	defaultID            = "default"
)

// contextDesire is the TLSContext that a namespace requests, for the edges that hold
// the Secret that it names.
type contextDesire struct {
	// name is empty when there should be no TLSContext.
	name string
	// isUnknown is true while nothing says which edges hold the Secret. Then what is
	// there stays as it is.
	isUnknown bool
	// secret is the Secret that it names.
	secret string
	// ids are the edges' IDs, sorted, each once. There is at least one.
	ids []string
	// wide are those of the IDs whose edges see the objects of all namespaces.
	wide []string
	// events are about edges that the TLSContext does not address.
	events []events.Event
}

// desiredContext decides which TLSContext a namespace should have. holder is the
// service account that the Secret serves; empty while that is unknown. hasUnclear is
// true when a pod holds a Secret and nothing says which. An edge that holds another
// Secret is not addressed: it would use a certificate of another identity.
func desiredContext(namespace string, options policy.Options, claims []claim, holder string, hasUnclear bool) contextDesire {
	if options.TLSContext == "" {
		return contextDesire{}
	}
	isClaimed := slices.ContainsFunc(claims, func(c claim) bool { return c.mode.HasCertificate() && c.options.SecretName == options.SecretName })
	none := contextDesire{isUnknown: hasUnclear || isClaimed && holder == ""}
	claims = contextReaders(claims)
	if len(claims) == 0 || holder == "" {
		return none
	}
	d := contextDesire{name: options.TLSContext, secret: options.SecretName}
	pods := 0
	for _, c := range claims {
		if c.uid == "" {
			continue
		}
		pods++
		switch {
		case c.options.SecretName != options.SecretName || c.serviceAccount != holder:
			d.report(c, EventNotAddressed, fmt.Sprintf(
				"TLSContext %s/%s is for the edges that hold Secret %s of service account %s, and this edge (%s %s) holds another: it gets no TLSContext of Isthmus; write one for it that names its own Secret and its own %s",
				namespace, d.name, d.secret, holder, ambassadorIDVariable, describeID(c), ambassadorIDVariable))
		case c.id.Origin != "" && !c.id.IsUncertain:
			d.report(c, EventIDUnknown, fmt.Sprintf(
				"%s comes from %s, which Isthmus does not read, so TLSContext %s/%s does not name it and the edge ignores the TLSContext; set %s to a value, or take it from a label of the pod by fieldRef",
				ambassadorIDVariable, c.id.Origin, namespace, d.name, ambassadorIDVariable))
		default:
			if c.id.IsUncertain {
				d.report(c, EventIDUnknown, fmt.Sprintf(
					"%s may come from %s, which Isthmus does not read; TLSContext %s/%s addresses the edge as %q, its ID without the variable. If it has another, set %s to that value under env",
					ambassadorIDVariable, c.id.Origin, namespace, d.name, defaultID, ambassadorIDVariable))
			}
			d.ids = append(d.ids, edgeID(c))
			if c.seesAll {
				d.wide = append(d.wide, edgeID(c))
			}
		}
	}
	switch {
	case pods == 0: // the namespace's annotation names the account of edges to come
		d.ids, d.wide = []string{defaultID}, []string{defaultID}
	case len(d.ids) == 0:
		none.events = d.events
		return none
	}
	d.ids, d.wide = sortedSet(d.ids), sortedSet(d.wide)
	return d
}

// keep adds IDs that a TLSContext names already: they may be those of pods that are
// unclear, whose edges may see the objects of all namespaces.
func (d *contextDesire) keep(ids []string) {
	d.ids, d.wide = sortedSet(slices.Concat(d.ids, ids)), sortedSet(slices.Concat(d.wide, ids))
}

// contextReaders are the claims whose edges read TLSContexts, by the facts of their
// profiles. While no profile says so, as with a profile written for an earlier version,
// all do.
func contextReaders(claims []claim) []claim {
	var readers []claim
	for _, c := range claims {
		if c.mode.HasCertificate() && (c.uid == "" || c.secret.Has(patches.FormRoots)) {
			readers = append(readers, c)
		}
	}
	if slices.ContainsFunc(readers, func(c claim) bool { return c.uid != "" }) {
		return readers
	}
	return slices.DeleteFunc(slices.Clone(claims), func(c claim) bool { return !c.mode.HasCertificate() })
}

// report adds an Event about an edge, to its pod and its owner.
func (d *contextDesire) report(c claim, reason, note string) {
	for _, regarding := range podAndOwner(c.pod, c.uid, c.owner) {
		d.events = append(d.events, events.Warning(regarding, reason, note))
	}
}

// edgeID is the ID of an edge whose variable is known or not set.
func edgeID(c claim) string {
	if c.id.Value == "" {
		return defaultID
	}
	return c.id.Value
}

func describeID(c claim) string {
	if c.id.Origin != "" {
		return "from " + c.id.Origin
	}
	return fmt.Sprintf("%q", edgeID(c))
}

func sortedSet(values []string) []string {
	slices.Sort(values)
	return slices.Compact(values)
}

// spec is the content of the TLSContext, or of its companion for TCPMappings.
func (d contextDesire) spec(alpn string) map[string]any {
	spec := map[string]any{
		"secret":         d.secret,
		"alpn_protocols": alpn,
		// Without this a dot in a Secret's name would separate a namespace.
		"secret_namespacing": false,
		// Emissary would not verify peers with the certificate's Secret alone when it
		// reads files, and would not notice new roots when it reads the Secret.
		"ca_secret": d.secret + policy.RootsSuffix,
	}
	if len(d.ids) != 1 || d.ids[0] != defaultID {
		ids := make([]any, len(d.ids))
		for i, id := range d.ids {
			ids[i] = id
		}
		spec["ambassador_id"] = ids
	}
	return spec
}

// foundContext is a TLSContext in the cluster.
type foundContext struct {
	namespace, name string
	// ids are its ambassador_id, sorted; defaultID when it has none.
	ids []string
	// isManaged is true when Isthmus manages it.
	isManaged bool
	content   content
}

// content is what the controller applies of a TLSContext.
type content struct {
	spec   map[string]any
	labels map[string]string
}

// contains reports whether everything in wanted is in the content. What others add is
// no difference.
func (c content) contains(wanted content) bool {
	for key, value := range wanted.spec {
		if !reflect.DeepEqual(c.spec[key], value) {
			return false
		}
	}
	for key, value := range wanted.labels {
		if c.labels[key] != value {
			return false
		}
	}
	return true
}

func (c foundContext) String() string { return c.namespace + "/" + c.name }
