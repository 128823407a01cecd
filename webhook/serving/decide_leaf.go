package serving

import "time"

// leafObservation is everything that a replica's decision depends on.
type leafObservation struct {
	now time.Time
	// leaf is the certificate that the replica serves; nil before the first.
	leaf *leaf
	// secret is the content of the Secret; zero when it cannot be read.
	secret rotationState
	// published is the caBundle of the mutating configuration; zero when it cannot be read.
	published configurationView
}

// leafDecision says which authority signs the next leaf, and why. The current leaf
// stays when signer is nil.
type leafDecision struct {
	signer *authority
	reason string
}

// decideLeaf decides whether a replica signs a leaf, and with which authority. It
// reads no clock and does no I/O.
func decideLeaf(o leafObservation) leafDecision {
	signer := o.signer()
	switch {
	case signer == nil:
		return leafDecision{}
	case o.leaf == nil:
		return leafDecision{signer, "there is no certificate yet"}
	case !signer.equal(o.leaf.issuer):
		return leafDecision{signer, "the certificate authority changed"}
	case o.now.Before(o.leaf.Leaf.NotBefore):
		// No API server accepts such a leaf until its validity begins.
		return leafDecision{signer, "the clock was set back to before the current certificate's validity"}
	case !o.now.Before(o.leaf.renewAt()):
		return leafDecision{signer, "two thirds of the current certificate's lifetime are over"}
	}
	return leafDecision{}
}

// signer is the authority that should have signed the leaf. The Secret's tls.crt
// signs only after the rotation's wait, but a Secret can also be edited by hand: a
// replica with a leaf follows only when the configuration trusts the new root.
func (o leafObservation) signer() *authority {
	candidate := o.secret.signing
	if o.leaf == nil {
		if candidate == nil && o.secret.next != nil && o.published.trusts(o.secret.next.root) {
			// A replica without a leaf has nothing to lose: it need not wait for the
			// next authority's promotion.
			return o.secret.next
		}
		return candidate
	}
	current := o.leaf.issuer
	if candidate == nil || o.now.Before(current.root.NotAfter) && !o.published.trusts(candidate.root) {
		return current
	}
	return candidate
}
