package controller

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

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
