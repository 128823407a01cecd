package certs_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

func TestParseRootsLeavesOutWhatCannotBeRead(t *testing.T) {
	one, two := authority(t, "one"), authority(t, "two")
	const noCertificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	const noBase64 = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"
	const list = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
	first, second := string(one.CertificatePEM), string(two.CertificatePEM)
	both := []*certtest.Pair{one, two}

	for name, test := range map[string]struct {
		data  string
		roots []*certtest.Pair
		err   string
	}{
		"if all can be read, expect no error":              {first + "text\n" + second, both, ""},
		"if a block holds no certificate, expect the rest": {first + noCertificate + second, both, "block 2 of 3: certificate 1: x509: malformed certificate"},
		"if a block is no base64, expect the rest":         {noBase64 + first + second, both, "block 1 of 3: PEM is truncated or damaged: 1 blocks begin, 0 are complete"},
		"if a block has no end, expect the rest":           {first + "-----BEGIN CERTIFICATE-----\nAAAA\n" + second, both, "block 2 of 3: PEM is truncated or damaged: 1 blocks begin, 0 are complete"},
		"if the last block is cut off, expect the rest":    {first + second + string(cutOff(one.CertificatePEM)), both, "block 3 of 3: PEM is truncated or damaged: 1 blocks begin, 0 are complete"},
		"if the last marker is cut off, expect the rest":   {first + second + "-----BEG", both, "block 3 of 3: PEM is truncated or damaged: 1 blocks begin, 0 are complete"},
		"if a block is of another type, expect the rest":   {first + list + second, both, `block 2 of 3: want blocks CERTIFICATE, got "X509 CRL"`},
		"if a key is among them, expect the rest":          {first + string(one.KeyPEM) + second, both, `block 2 of 3: want blocks CERTIFICATE, got "PRIVATE KEY"`},
		"if several cannot be read, expect the first and how many more": {noCertificate + first + list + noBase64, both[:1],
			"block 1 of 4: certificate 1: x509: malformed certificate (and 2 more blocks)"},
		"if none can be read, expect none":    {noCertificate, nil, "block 1 of 1: certificate 1: x509: malformed certificate"},
		"if there is only text, expect none":  {"none", nil, "want at least one certificate in PEM, got none"},
		"if there is nothing, expect nothing": {"", nil, "want at least one certificate in PEM, got none"},
		"if lines end as on Windows, expect no difference": {strings.ReplaceAll(first+noCertificate+second, "\n", "\r\n"), both,
			"block 2 of 3: certificate 1: x509: malformed certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			roots, err := certs.ParseRoots([]byte(test.data))
			assert.Equal(t, string(joined(test.roots...)), string(certs.EncodeCertificates(roots)))
			if test.err == "" {
				assert.NoError(t, err)
			} else {
				assert.EqualError(t, err, test.err)
			}
		})
	}
}
