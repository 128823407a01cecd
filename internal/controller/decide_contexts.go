package controller

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

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

// otherContext is a TLSContext of the same name in another namespace.
type otherContext struct {
	foundContext
	// wide are the IDs of that namespace's edges that see the objects of all
	// namespaces. It is nil when the edges are unknown.
	wide []string
}

// contextObservation is what is known before a TLSContext is written.
type contextObservation struct {
	desire contextDesire
	// name is that of the TLSContext: the desired one, or its companion's.
	name, namespace string
	// current is the TLSContext in the namespace; nil when there is none.
	current *foundContext
	// others are those of the same name in other namespaces.
	others []otherContext
	// rescanned is true from the second scan of the namespace on: until then, a new
	// leader may not have seen the edges of the others.
	rescanned bool
}

// contextAction is what to do about a TLSContext that a namespace requests.
type contextAction string

const (
	// contextApply: apply what is wanted.
	contextApply contextAction = "apply"
	// contextKeep: leave what is there as it is, or absent.
	contextKeep contextAction = "keep"
	// contextWithdraw: delete it, since Emissary uses another.
	contextWithdraw contextAction = "withdraw"
	// contextReport: leave it, because Isthmus does not manage it, and report that.
	contextReport contextAction = "report"
)

// contextDecision is an action with the clashes that lead to it.
type contextDecision struct {
	action  contextAction
	clashes []contextClash
}

// contextClash is a TLSContext that an edge confuses with ours.
type contextClash struct {
	other foundContext
	// ids are those of the edges that do.
	ids []string
}

// decideContext decides whether a TLSContext may be written. Emissary knows a
// TLSContext by its name alone: of two that it sees it uses the one in the
// alphabetically first namespace, without a word. So an edge would speak with another
// namespace's identity if it sees both, has an ID that both name, and its own is not
// the first. Of two that clash, the one that is there already stays; of two that are
// both there, the one that Emissary uses (docs/edges/emissary.md).
func decideContext(o contextObservation) contextDecision {
	if o.current != nil && !o.current.isManaged {
		return contextDecision{action: contextReport}
	}
	d := contextDecision{action: contextApply}
	for _, other := range o.others {
		clash, isCertain := o.clashWith(other)
		if len(clash.ids) == 0 {
			continue
		}
		isEstablished := o.current != nil && containsAll(o.current.ids, clash.ids)
		switch isFirst := o.namespace < other.namespace; {
		case !isCertain && !o.rescanned:
			d.raise(contextKeep) // its edges will be known soon
			continue
		case isEstablished && isFirst && other.isManaged:
			continue // it is withdrawn, with a report
		case isEstablished && isFirst:
		case isEstablished:
			d.raise(contextWithdraw)
		default:
			d.raise(contextKeep)
		}
		d.clashes = append(d.clashes, clash)
	}
	return d
}

// raise sets an action, unless a stronger one is set.
func (d *contextDecision) raise(a contextAction) {
	if d.action == contextApply || a == contextWithdraw {
		d.action = a
	}
}

// clashWith returns the clash with another TLSContext; without IDs when there is none.
// isCertain is false when the edges that might confuse the two are not known yet.
func (o contextObservation) clashWith(other otherContext) (clash contextClash, isCertain bool) {
	clash.other = other.foundContext
	confused, isCertain := o.desire.wide, true
	if o.namespace < other.namespace {
		confused = other.wide
		if confused == nil { // assume that its edges see everything
			confused, isCertain = other.ids, !other.isManaged
		}
	}
	for _, id := range o.desire.ids {
		if slices.Contains(other.ids, id) && slices.Contains(confused, id) {
			clash.ids = append(clash.ids, id)
		}
	}
	return clash, isCertain
}

func containsAll(set, values []string) bool {
	return !slices.ContainsFunc(values, func(v string) bool { return !slices.Contains(set, v) })
}

// clashEvents report a clash, in both namespaces.
func clashEvents(o contextObservation, d contextDecision) []events.Event {
	var list []events.Event
	own := foundContext{namespace: o.namespace, name: o.name}
	for _, clash := range d.clashes {
		first, second := own, clash.other
		if second.namespace < first.namespace {
			first, second = second, first
		}
		outcome := fmt.Sprintf("%s is not written", own)
		switch {
		case d.action == contextWithdraw:
			outcome = fmt.Sprintf("Emissary uses %s, and %s is removed", first, own)
		case d.action == contextApply:
			outcome = fmt.Sprintf("Emissary uses %s", own)
		case o.current != nil:
			outcome = fmt.Sprintf("%s stays as it is", own)
		}
		ids, verb := "the "+ambassadorIDVariable+" "+clash.ids[0], "is"
		if len(clash.ids) > 1 {
			ids, verb = "the "+ambassadorIDVariable+"s "+strings.Join(clash.ids, ", "), "are"
		}
		note := fmt.Sprintf("TLSContexts %s and %s have one name, and %s %s in both: Emissary would use one for the edges of both, with one identity. %s. Choose another name with annotation %s on one of the namespaces, or give the edges different %ss",
			first, second, ids, verb, outcome, policy.TLSContextKey, ambassadorIDVariable)
		for _, namespace := range []string{own.namespace, clash.other.namespace} {
			list = append(list, events.Warning(namespaceReference(namespace), EventContextClash, note))
		}
	}
	return list
}

// namespaceReference returns a namespace as the object of an Event. The Event is
// created in the namespace itself.
func namespaceReference(namespace string) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Namespace: namespace, Name: namespace}
}
