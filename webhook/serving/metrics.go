package serving

import "github.com/prometheus/client_golang/prometheus"

// expiry reports what is there when it is asked, and nothing before.
type expiry struct {
	source   *Source
	leaf, ca *prometheus.Desc
}

func newExpiry(source *Source) expiry {
	return expiry{
		source: source,
		leaf: prometheus.NewDesc("isthmus_webhook_serving_certificate_not_after_timestamp_seconds",
			"When this replica's serving certificate expires, in seconds since the epoch.", nil, nil),
		ca: prometheus.NewDesc("isthmus_webhook_serving_ca_not_after_timestamp_seconds",
			"When the certificate authority that this replica signs with expires, in seconds since the epoch.", nil, nil),
	}
}

// Describe is part of prometheus.Collector.
func (e expiry) Describe(ch chan<- *prometheus.Desc) {
	ch <- e.leaf
	ch <- e.ca
}

// Collect is part of prometheus.Collector.
func (e expiry) Collect(ch chan<- prometheus.Metric) {
	if current := e.source.leaf.Load(); current != nil {
		ch <- prometheus.MustNewConstMetric(e.leaf, prometheus.GaugeValue, float64(current.Leaf.NotAfter.Unix()))
		ch <- prometheus.MustNewConstMetric(e.ca, prometheus.GaugeValue, float64(current.issuer.root.NotAfter.Unix()))
	}
}
