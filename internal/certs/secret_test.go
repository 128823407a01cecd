package certs_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

func TestFromSecret(t *testing.T) {
	type data map[string]string
	tests := map[string]struct {
		data   data
		expect data // key, chain, roots
		err    string
	}{
		"if it is a TLS Secret, expect its keys": {
			data: data{"tls.crt": "C", "tls.key": "K", "ca.crt": "R"}, expect: data{"chain": "C", "key": "K", "roots": "R"}},
		"if it has both names of the roots, expect root-cert.pem": {
			data: data{"tls.crt": "C", "tls.key": "K", "ca.crt": "R", "root-cert.pem": "S"}, expect: data{"chain": "C", "key": "K", "roots": "S"}},
		"if root-cert.pem is empty, expect ca.crt": {
			data: data{"tls.crt": "C", "tls.key": "K", "ca.crt": "R", "root-cert.pem": ""}, expect: data{"chain": "C", "key": "K", "roots": "R"}},
		"if it has the agent's names, expect them": {
			data: data{"cert-chain.pem": "C", "key.pem": "K", "root-cert.pem": "R"}, expect: data{"chain": "C", "key": "K", "roots": "R"}},
		"if it has both forms, expect the TLS Secret's": {
			data: data{"tls.crt": "C", "tls.key": "K", "cert-chain.pem": "D", "key.pem": "L"}, expect: data{"chain": "C", "key": "K"}},
		"if the TLS Secret's are empty, expect the agent's": {
			data: data{"tls.crt": "", "tls.key": "", "cert-chain.pem": "C", "key.pem": "K"}, expect: data{"chain": "C", "key": "K"}},
		"if forms are mixed, expect an error":  {data: data{"tls.crt": "C", "key.pem": "K"}, err: "malformed: tls.key is missing or empty"},
		"if it is empty, expect an error":      {data: data{}, err: "malformed: tls.crt is missing or empty"},
		"if the key is empty, expect an error": {data: data{"tls.crt": "C", "tls.key": ""}, err: "malformed: tls.key is missing or empty"},
		"if the agent's key is missing, expect an error": {
			data: data{"cert-chain.pem": "C", "root-cert.pem": "R"}, err: "malformed: key.pem is missing or empty"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			secret := map[string][]byte{}
			for k, v := range test.data {
				secret[k] = []byte(v)
			}
			m, err := certs.FromSecret(secret)
			if test.err != "" {
				assert.EqualError(t, err, test.err)
				assert.Equal(t, certs.Malformed, certs.ReasonOf(err))
				assert.Empty(t, m.Key)
				return
			}
			assert.NoError(t, err)
			assert.Equal(t, test.expect["key"], string(m.Key))
			assert.Equal(t, test.expect["chain"], string(m.Chain))
			assert.Equal(t, test.expect["roots"], string(m.Roots))
		})
	}
}

func TestIdentity(t *testing.T) {
	id, err := certs.Identity("cluster.local", "edge", "emissary")
	assert.NoError(t, err)
	assert.Equal(t, edge, id.String())

	for want, parts := range map[string][3]string{
		`trust domain "": trust domain is missing`: {"", "edge", "emissary"},
		`trust domain "Cluster.Local": trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores`: {"Cluster.Local", "edge", "emissary"},
		`trust domain "spiffe://cluster.local/x": want a name such as "cluster.local"`:                                                   {"spiffe://cluster.local/x", "edge", "emissary"},
		"identity of service account /emissary: path cannot contain empty segments":                                                      {"cluster.local", "", "emissary"},
		"identity of service account edge/a/b: path segment characters are limited to letters, numbers, dots, dashes, and underscores":   {"cluster.local", "edge", "a/b"},
		"identity of service account ../emissary: path cannot contain dot segments":                                                      {"cluster.local", "..", "emissary"},
	} {
		_, err := certs.Identity(parts[0], parts[1], parts[2])
		assert.EqualError(t, err, want)
	}
}
