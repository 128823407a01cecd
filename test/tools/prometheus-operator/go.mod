// The Prometheus operator, of which the tests take nothing but its CRDs.
module github.com/isthmus-mesh/isthmus/test/tools/prometheus-operator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
