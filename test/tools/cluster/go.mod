// A command line program that runs a real control plane for tests. Tests run it as a
// process, so that Kubernetes never becomes a dependency of the product.
module github.com/isthmus-mesh/isthmus/test/tools/cluster

go 1.26.0
