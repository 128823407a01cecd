package environment

// Health is the address that the server answers probes at.
func (s *Server) Health() string { return "http://" + s.health }

// Metrics is the address of its metrics, before the path.
func (s *Server) Metrics() string { return "http://" + s.metrics }
