package certs

// FromSecret takes the material out of a Secret's data, whichever form it has:
// tls.crt, tls.key and ca.crt (kubernetes.io/tls, with root-cert.pem before
// ca.crt where both are there), or cert-chain.pem, key.pem and root-cert.pem, as
// Istio's agent writes files and Istio up to 1.4 wrote Secrets. A certificate or
// key that is missing is a *Rejection that names it.
func FromSecret(data map[string][]byte) (Material, error) {
	chain, key := "tls.crt", "tls.key"
	// A Secret of type kubernetes.io/tls has to have its two keys, empty or not.
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
