package certs_test

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

func TestKeySettingsAreThoseOfIstiosAgent(t *testing.T) {
	for name, test := range map[string]struct {
		settings certs.KeySettings
		want     certs.KeyAlgorithm
		err      string
	}{
		"if nothing is set, expect P-256":                     {certs.KeySettings{}, certs.KeyAlgorithm{Type: certs.ECDSA, Size: 256}, ""},
		"if the algorithm alone is set, expect P-256":         {certs.KeySettings{SignatureAlgorithm: "ECDSA"}, certs.KeyAlgorithm{Type: certs.ECDSA, Size: 256}, ""},
		"if the curve is P256, expect it":                     {certs.KeySettings{SignatureAlgorithm: "ECDSA", Curve: "P256"}, certs.KeyAlgorithm{Type: certs.ECDSA, Size: 256}, ""},
		"if the curve is P384, expect it":                     {certs.KeySettings{SignatureAlgorithm: "ECDSA", Curve: "P384"}, certs.KeyAlgorithm{Type: certs.ECDSA, Size: 384}, ""},
		"if the curve alone is set, expect it ignored":        {certs.KeySettings{Curve: "P384"}, certs.KeyAlgorithm{Type: certs.ECDSA, Size: 256}, ""},
		"if a size is set, expect RSA":                        {certs.KeySettings{RSASize: "3072"}, certs.KeyAlgorithm{Type: certs.RSA, Size: 3072}, ""},
		"if algorithm and size are set, expect the algorithm": {certs.KeySettings{SignatureAlgorithm: "ECDSA", RSASize: "4096"}, certs.KeyAlgorithm{Type: certs.ECDSA, Size: 256}, ""},

		"if the algorithm is not known, expect an error": {certs.KeySettings{SignatureAlgorithm: "EdDSA"}, certs.KeyAlgorithm{},
			`ECC_SIGNATURE_ALGORITHM "EdDSA": want ECDSA, or none for RSA`},
		"if the curve is not known, expect an error": {certs.KeySettings{SignatureAlgorithm: "ECDSA", Curve: "P521"}, certs.KeyAlgorithm{},
			`ECC_CURVE "P521": want P256 or P384`},
		"if the size is below the agent's minimum, expect an error": {certs.KeySettings{RSASize: "1024"}, certs.KeyAlgorithm{},
			`WORKLOAD_RSA_KEY_SIZE "1024": want a number of bits from 2048 to 8192`},
		"if the size takes minutes to create, expect an error": {certs.KeySettings{RSASize: "16384"}, certs.KeyAlgorithm{},
			`WORKLOAD_RSA_KEY_SIZE "16384": want a number of bits from 2048 to 8192`},
		"if the size is no number, expect an error": {certs.KeySettings{RSASize: "big"}, certs.KeyAlgorithm{},
			`WORKLOAD_RSA_KEY_SIZE "big": want a number of bits from 2048 to 8192`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.settings.Algorithm()
			assert.Equal(t, test.want, got)
			if test.err != "" {
				assert.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			key, err := got.Generate()
			require.NoError(t, err)
			switch key := key.(type) {
			case *ecdsa.PrivateKey:
				assert.Equal(t, certs.KeyAlgorithm{Type: certs.ECDSA, Size: key.Curve.Params().BitSize}, got)
			case *rsa.PrivateKey:
				assert.Equal(t, certs.KeyAlgorithm{Type: certs.RSA, Size: key.N.BitLen()}, got)
			default:
				assert.Fail(t, "unexpected key", "%T", key)
			}
		})
	}
}
