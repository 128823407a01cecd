package serving

import "github.com/prometheus/client_golang/prometheus"

// expiryCollector reports when the current certificate and its authority expire, and
// nothing before there is a certificate.
type expiryCollector struct {
	source   *Source
	leaf, ca *prometheus.Desc
}

func newExpiryCollector(source *Source) expiryCollector {
	return expiryCollector{
		source: source,
		leaf: prometheus.NewDesc("isthmus_webhook_serving_certificate_not_after_timestamp_seconds",
			"When this replica's serving certificate expires, in seconds since the epoch.", nil, nil),
		ca: prometheus.NewDesc("isthmus_webhook_serving_ca_not_after_timestamp_seconds",
			"When the certificate authority that this replica signs with expires, in seconds since the epoch.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (e expiryCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- e.leaf
	ch <- e.ca
}

// Collect implements prometheus.Collector.
func (e expiryCollector) Collect(ch chan<- prometheus.Metric) {
	if current := e.source.leaf.Load(); current != nil {
		ch <- prometheus.MustNewConstMetric(e.leaf, prometheus.GaugeValue, float64(current.Leaf.NotAfter.Unix()))
		ch <- prometheus.MustNewConstMetric(e.ca, prometheus.GaugeValue, float64(current.issuer.root.NotAfter.Unix()))
	}
}
