// Package serving keeps the certificate that the admission server shows to the
// API server, without asking anything else to be installed.
//
// One Secret, which the chart creates empty, holds a certificate authority. A
// [Keeper], which the controller runs as leader, makes it and rotates it, and keeps
// the caBundle of every webhook in one named MutatingWebhookConfiguration, and in the
// ValidatingWebhookConfiguration of that name, equal to the authority's trust bundle.
// A [Source], which every replica of the admission server runs, reads the Secret and
// the first of the two and writes nothing: it signs a leaf of its own, whose key never
// leaves the process.
//
// An API server verifies a leaf by the caBundle that it knows at that moment, so
// the authority is never swapped in one step:
//
//	stable      tls.crt signs, and ca.crt holds it alone
//	announcing  next.crt is made, and ca.crt holds both; nobody signs with it
//	announced   the configurations carry both; wait until every API server knows
//	promoted    next.crt has become tls.crt, and the replicas sign anew; ca.crt
//	            still holds both; wait until no old leaf is in use
//	stable      ca.crt drops the old root
//
// The phase and when it began are annotations of the Secret: a Keeper that
// starts in the middle goes on from there. What is found damaged or emptied is
// made anew along the same way: roots that leaves may still be verified by stay
// in the bundle, and replicas keep their old leaf until the new root is known.
//
// A replica takes the Secret's word for which authority signs, and sees for itself
// that the configuration carries it. It looks at least once a minute, so that the
// second wait, of two minutes, leaves it the time to sign anew.
//
// While no Keeper runs, rotation stands still where it was, and nothing else does:
// replicas start, sign and renew their leaves with the authority as it stands, which
// has four months left when its rotation is due. A caBundle that somebody changes
// stays wrong until then, and a first authority is not made. While nobody can read
// the Secret, running replicas sign with what is in memory.
//
// [FileSource] serves a certificate that somebody else writes to files.
package serving
