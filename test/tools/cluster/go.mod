// A real control plane for tests, as a command line program: it is run as a
// process, so nothing of Kubernetes ever meets the product's dependencies.
module github.com/isthmus-mesh/isthmus/test/tools/cluster

go 1.26.0
