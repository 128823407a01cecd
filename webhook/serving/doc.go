// Package serving keeps the certificate that the admission server shows to the
// API server, without asking anything else to be installed.
//
// [Source] manages it alone. One Secret, which the chart creates empty, holds a
// certificate authority; every replica signs a leaf of its own with it, whose
// key never leaves the process; and the caBundle of every webhook in one named
// MutatingWebhookConfiguration is kept equal to the authority's trust bundle.
// There is no leader. Every replica runs the same steps, and every write carries
// the resourceVersion that it was decided on, so that of two replicas one wins
// and the other looks again.
//
// An API server verifies a leaf by the caBundle that it knows at that moment, so
// the authority is never swapped in one step:
//
//	stable      tls.crt signs, and ca.crt holds it alone
//	announcing  next.crt is made, and ca.crt holds both; nobody signs with it
//	announced   the configuration carries both; wait until every API server knows
//	promoted    next.crt has become tls.crt, and the replicas sign anew; ca.crt
//	            still holds both; wait until no old leaf is in use
//	stable      ca.crt drops the old root
//
// The phase and when it began are annotations of the Secret: a replica that
// starts in the middle goes on from there. What is found damaged or emptied is
// made anew along the same way: roots that leaves may still be verified by stay
// in the bundle, and replicas keep their old leaf until the new root is known.
//
// [FileSource] serves a certificate that somebody else writes to files.
package serving
