//go:build guides

// Package guides runs the guides of docs/guides as a reader would: every page,
// block by block, in a small cluster of real parts. `make test-guides` runs them all,
// `make test-guides PAGE=weights` one.
//
// # How a page is written
//
// A page is docs/guides/NAME.md, with a line in docs/guides/README.md and the sections
// "Clean up" and "Tried with" (docs/guides_test.go). The test finds and runs every page.
// Package test/framework/page defines the blocks that are run: blocks of `sh` run in bash
// with errexit, nounset and pipefail, one after the other, in one shell, so variables
// stay. A block of `text` right behind holds the expected output, where `...` stands for
// any lines, or the rest of one, and ⟨word⟩ for any word. `sh retry` is repeated, in a
// subshell, for up to a minute until it succeeds with that output. `sh skip` is for a real
// cluster only, and the text says why.
//
// A page begins in a cluster where these are installed, by their own charts: Istio
// (with its injector, namespace istio-system), Isthmus from charts/isthmus (release
// isthmus in isthmus-system), and the CRDs of Emissary. kubectl, helm, isthmus and
// promtool are in PATH, KUBECONFIG is set, and the working folder holds the repository's
// samples and charts. The page does everything else itself, from `kubectl apply -f
// samples/emissary` on, as the reader has to. The address of an edge is the address of its
// Service of type LoadBalancer:
//
//	EDGE=$(kubectl -n emissary get service emissary-ingress -o jsonpath='{.status.loadBalancer.ingress[0].ip}')
//	curl -s http://$EDGE/reviews/
//
// Wait with `kubectl rollout status` and `kubectl wait`. At its end a page deletes the
// objects that it created outside of its own namespaces; the test deletes the namespaces,
// and fails if another object of the mesh is left. $ISTIO_CHARTS is the folder of Istio's
// charts here, for another revision; change settings of istiod with
// `kubectl -n istio-system set env deployment istiod`. `kubectl logs` and `exec` do not
// work, because there is no kubelet. The logs of containers are shown when a page fails.
//
// # What is real
//
// etcd, API server and controller manager (test/framework/controlplane), istiod and its injection
// webhook, installed by Istio's chart, pilot-agent, Isthmus' webhook, controller and
// publisher, installed by its chart, Helm, kubectl. The section "Tried with" of a page
// names the stand-ins that it was tried with:
//
//	test/tools/standin/kubenode a node: every container is a process in namespaces of
//	                            its own; Services, cluster DNS, a load balancer
//	test/tools/standin/emissary Emissary and Ambassador Edge Stack
//	test/tools/standin/workload a workload with the Envoy of its sidecar: gRPC's xDS
//	                            server, configured by the real istiod. It answers with
//	                            who it is and who called: {"server": pod,
//	                            "image": ..., "port": ..., "client": SPIFFE ID}.
//	                            A refusal by AuthorizationPolicy is 403 "RBAC: access
//	                            denied", an upstream that fails is 503 with the reason.
//	test/tools/istiocni         istio-cni's agent on a node: its own code says which
//	                            pods ambient takes; nothing is redirected, and there
//	                            is no ztunnel
//
// A container with an image that is not in images_test.go waits in ErrImagePull.
//
// Everything runs in network, mount and process namespaces of its own: the test changes
// nothing on the machine, and leaves nothing behind.
package guides
