// Package serving provides the certificate that the admission server presents to the
// API server. Nothing else needs to be installed for it.
//
// One Secret, which the chart creates empty, holds a certificate authority (CA). A
// [Rotator] runs in the controller's leader. It creates and rotates the CA, and keeps
// the caBundle of every webhook in one named MutatingWebhookConfiguration, and in the
// ValidatingWebhookConfiguration of that name, equal to the CA's trust bundle.
// A [Source] runs in every replica of the admission server. It reads the Secret and
// the mutating configuration, and signs its own leaf certificate. It writes nothing,
// and the leaf's key never leaves the process.
//
// An API server verifies a leaf with the caBundle that it knows at that moment. The
// CA is therefore never replaced in one step:
//
//	stable      tls.crt signs; ca.crt holds only its root
//	announcing  next.crt exists and ca.crt holds both roots; no replica signs with it
//	announced   the configurations carry both roots; wait until every API server knows them
//	promoted    next.crt has become tls.crt and the replicas sign new leaves; ca.crt
//	            still holds both roots; wait until no old leaf is in use
//	stable      ca.crt drops the old root
//
// Annotations of the Secret hold the phase and when it began, so a Rotator that
// starts in the middle continues from there. A damaged or empty Secret is repaired
// along the same way: a root that a leaf in use may need stays in the bundle, and
// replicas keep their old leaf until API servers know the new root.
//
// A replica takes from the Secret which CA signs, and checks that the configuration
// trusts it. It reads both at least once a minute. The second wait, of two minutes,
// therefore leaves it time to sign a new leaf.
//
// While no Rotator runs, only rotation stops. Replicas still start, and sign and
// renew their leaves with the current CA, which has four months left when its
// rotation is due. Nothing repairs a caBundle or creates a first CA in that time.
// While the Secret cannot be read, running replicas sign with the CA in memory.
//
// [decide] and [decideLeaf] make all decisions. They are pure: the observation
// carries the time, and the caller passes in the function that generates a CA.
//
// [FileSource] serves a certificate from files that another program writes.
package serving
