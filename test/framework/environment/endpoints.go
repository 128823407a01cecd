package environment

// HealthURL is the base URL of the server's probes, without a path.
func (s *Server) HealthURL() string { return "http://" + s.health }

// MetricsURL is the base URL of the server's metrics, without a path.
func (s *Server) MetricsURL() string { return "http://" + s.metrics }
