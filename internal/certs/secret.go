package certs

// FromSecret returns the material in a Secret's data. It knows two forms: tls.crt,
// tls.key and ca.crt (kubernetes.io/tls; root-cert.pem takes precedence over
// ca.crt), and cert-chain.pem, key.pem and root-cert.pem, the names of the files of
// Istio's agent and of the Secrets of Istio up to 1.4. If the certificate or the key
// is missing, the error is a *Rejection that names it.
func FromSecret(data map[string][]byte) (Material, error) {
	chain, key := "tls.crt", "tls.key"
	// A Secret of type kubernetes.io/tls always has its two keys, perhaps empty.
	if len(data[chain]) == 0 && len(data["cert-chain.pem"]) > 0 {
		chain, key = "cert-chain.pem", "key.pem"
	}
	for _, name := range []string{chain, key} {
		if len(data[name]) == 0 {
			return Material{}, reject(Malformed, "%s is missing or empty", name)
		}
	}
	m := Material{Key: data[key], Chain: data[chain], Roots: data["root-cert.pem"]}
	if len(m.Roots) == 0 {
		m.Roots = data["ca.crt"]
	}
	return m, nil
}
