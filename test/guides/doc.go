//go:build guides

// Package guides runs the pages of docs/guides as a reader would: every page, block by
// block, in a small cluster. `make test-guides` runs all pages, `make test-guides
// PAGE=weights` runs one.
//
// # How a page is written
//
// A page is docs/guides/NAME.md, with a line in docs/guides/README.md and the sections
// "Clean up" and "Tried with" (docs/guides_test.go). The test finds and runs every page.
// Package test/framework/page says which blocks are run and how their output is compared.
// The blocks of a page run in one bash shell with errexit, nounset and pipefail, so variables
// keep their values.
//
// When a page begins, these are installed with their own charts: Istio with its injector
// (namespace istio-system), Isthmus from charts/isthmus (release isthmus in namespace
// isthmus-system), and the CRDs of Emissary. kubectl, helm, isthmus and promtool are in PATH,
// KUBECONFIG is set, and the working folder contains the repository's samples and charts.
// Like a reader, the page does everything else itself, beginning with `kubectl apply -f
// samples/emissary`. The address of an edge is that of its Service of type LoadBalancer:
//
//	EDGE=$(kubectl -n emissary get service emissary-ingress -o jsonpath='{.status.loadBalancer.ingress[0].ip}')
//	curl -s http://$EDGE/reviews/
//
// A page waits with `kubectl rollout status` and `kubectl wait`. At its end it deletes the
// objects that it created outside of its own namespaces. The test deletes the namespaces, and
// fails if another object of the mesh is left. To install another revision of Istio, a page
// uses the charts in $ISTIO_CHARTS. To change settings of istiod, it runs
// `kubectl -n istio-system set env deployment istiod`. `kubectl logs` and `kubectl exec` do
// not work, because there is no kubelet. If a page fails, the test shows the containers' logs.
//
// # What is real
//
// These programs are real: etcd, API server and controller manager
// (test/framework/controlplane); istiod and its injection webhook, installed with Istio's
// chart; pilot-agent; Isthmus' webhook, controller and publisher, installed with its chart;
// Helm and kubectl. These are stand-ins, which the section "Tried with" of a page names:
//
//	test/tools/standin/kubenode a node: every container is a process in its own
//	                            namespaces; Services, cluster DNS, a load balancer
//	test/tools/standin/emissary Emissary and Ambassador Edge Stack
//	test/tools/standin/workload a workload with the Envoy of its sidecar: gRPC's xDS
//	                            server, configured by the real istiod. Its answer names
//	                            itself and its client: {"server": pod, "image": ...,
//	                            "port": ..., "client": SPIFFE ID}. It refuses with 403
//	                            "RBAC: access denied" what an AuthorizationPolicy denies,
//	                            and answers 503 with the reason if an upstream fails.
//	test/tools/istiocni         istio-cni's agent on a node: its own code decides which
//	                            pods are in ambient mode; it redirects nothing, and
//	                            there is no ztunnel
//
// A container with an image that is not in images_test.go waits in ErrImagePull.
//
// Everything runs in its own network, mount and process namespaces. The test changes nothing
// on the machine and leaves nothing behind.
package guides
