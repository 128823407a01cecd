package publish

// Cause says in one word why a Secret is written, or why it is not. The set is
// closed. Logs and Events show it.
type Cause string

// The causes of a write.
const (
	// CauseAbsent: there is no Secret.
	CauseAbsent Cause = "absent"
	// CauseBad: the Secret holds no valid bundle for this edge.
	CauseBad Cause = "bad"
	// CauseDue: the renewal point has passed.
	CauseDue Cause = "due"
	// CauseNewer: the candidate is newer, by Rule WhenNewer.
	CauseNewer Cause = "newer"
	// CauseRoots: the mesh's roots have changed. Key and chain stay.
	CauseRoots Cause = "roots"
	// CauseLabels: someone changed the label or the annotations. Key and chain
	// stay.
	CauseLabels Cause = "labels"
)

// The causes of no write.
const (
	// CauseNotDue: the Secret's bundle is valid and not due.
	CauseNotDue Cause = "not-due"
	// CauseNoBetter: the Secret's bundle is due, but the candidate is the same or
	// does not live enough longer.
	CauseNoBetter Cause = "no-better"
	// CauseNoCandidate: a bundle is needed, and there is none.
	CauseNoCandidate Cause = "no-candidate"
	// CauseUntrusted: the candidate's chain leads to no root of the mesh, so every
	// other publisher would replace it.
	CauseUntrusted Cause = "untrusted-candidate"
	// CauseStale: the Secret's bundle is not valid yet by our clock, and expires later
	// than the candidate.
	CauseStale Cause = "stale-candidate"
	// CauseInvalid: the candidate is no longer a valid bundle, or has another
	// identity.
	CauseInvalid Cause = "worthless-candidate"
	// CauseForeign: the Secret is not managed by Isthmus.
	CauseForeign Cause = "foreign"
	// CauseIdentity: the Secret holds a valid bundle of another identity.
	CauseIdentity Cause = "conflict"
	// CauseImmutable: the Secret is immutable.
	CauseImmutable Cause = "immutable"
)
