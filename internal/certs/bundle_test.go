package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

const edge = "spiffe://cluster.local/ns/edge/sa/emissary"

// noon is the time at which the leaves of these tests are validated. They are valid
// from eleven to one.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func around(before, after time.Duration) certtest.Option {
	return certtest.Validity(noon.Add(-before), noon.Add(after))
}

func authority(t testing.TB, name string, options ...certtest.Option) *certtest.Pair {
	t.Helper()
	return certtest.NewAuthority(t, append([]certtest.Option{certtest.CommonName(name), around(24*time.Hour, 24*time.Hour)}, options...)...)
}

func leafOf(t testing.TB, issuer *certtest.Pair, options ...certtest.Option) *certtest.Pair {
	t.Helper()
	return issuer.SPIFFELeaf(t, edge, append([]certtest.Option{around(time.Hour, time.Hour)}, options...)...)
}

func material(p *certtest.Pair, roots ...*certtest.Pair) certs.Material {
	return certs.Material{Key: p.KeyPEM, Chain: p.ChainPEM, Roots: joined(roots...)}
}

func joined(list ...*certtest.Pair) []byte {
	var out []byte
	for _, p := range list {
		out = append(out, p.CertificatePEM...)
	}
	return out
}

func wanted(roots ...*certtest.Pair) certs.Want {
	w := certs.Want{ID: spiffeid.RequireFromString(edge), Now: noon}
	for _, r := range roots {
		w.Roots = append(w.Roots, r.Certificate)
	}
	return w
}

// cutOff ends a file in the middle of its last block.
func cutOff(data []byte) []byte {
	last := bytes.LastIndex(data, []byte("-----BEGIN"))
	return data[:(last+len(data))/2]
}

func serial(p *certtest.Pair) string { return certs.Serial(p.Certificate) }

func TestNewRejectsWithAReasonAndTheValue(t *testing.T) {
	root, stranger := authority(t, "mesh root"), authority(t, "strange root")
	middle := root.Intermediate(t, certtest.CommonName("middle"), around(time.Hour, 2*time.Hour))
	good, other, deep := leafOf(t, root), leafOf(t, root), leafOf(t, middle)
	withURIs := func(uris ...string) certs.Material {
		options := []certtest.Option{around(time.Hour, time.Hour), certtest.DNSNames("edge.example")}
		for _, u := range uris {
			parsed, err := url.Parse(u)
			require.NoError(t, err)
			options = append(options, certtest.URIs(parsed))
		}
		return material(root.Leaf(t, options...))
	}
	leafWith := func(options ...certtest.Option) certs.Material { return material(leafOf(t, root, options...)) }
	dead := authority(t, "dead root", around(48*time.Hour, -time.Hour))
	unborn := authority(t, "unborn root", around(-time.Hour, 48*time.Hour))
	forClients := root.Intermediate(t, certtest.CommonName("for clients"), around(time.Hour, 2*time.Hour), certtest.Usages(x509.ExtKeyUsageClientAuth))
	selfMade := leafOf(t, nil)
	long := leafOf(t, authority(t, strings.Repeat("ü", 300)))

	want := wanted(root)
	tests := map[string]struct {
		material certs.Material
		want     certs.Want
		expect   string
	}{
		"if nothing is there, expect malformed": {certs.Material{}, want, "malformed: certificate chain: want at least one certificate in PEM, got none"},
		"if the files are empty, expect malformed": {certs.Material{Key: []byte{}, Chain: []byte{}, Roots: []byte{}}, want,
			"malformed: certificate chain: want at least one certificate in PEM, got none"},
		"if there is no key, expect malformed": {certs.Material{Chain: good.ChainPEM}, want, "malformed: private key: want a private key in PEM, got none"},
		"if the key is no PEM, expect malformed": {certs.Material{Chain: good.ChainPEM, Key: []byte("geheim")}, want,
			"malformed: private key: want a private key in PEM, got none"},
		"if the key is cut off, expect malformed": {certs.Material{Key: cutOff(good.KeyPEM), Chain: good.ChainPEM}, want,
			"malformed: private key: PEM is truncated or damaged: 1 blocks begin, 0 are complete"},
		"if only the key's first characters are there, expect malformed": {certs.Material{Key: []byte("-----BE"), Chain: good.ChainPEM}, want,
			"malformed: private key: PEM is truncated or damaged: 1 blocks begin, 0 are complete"},
		"if a second key is cut off, expect malformed": {certs.Material{Key: slices.Concat(good.KeyPEM, cutOff(other.KeyPEM)), Chain: good.ChainPEM}, want,
			"malformed: private key: PEM is truncated or damaged: 2 blocks begin, 1 are complete"},
		"if the chain is cut off in its last block, expect malformed": {certs.Material{Key: deep.KeyPEM, Chain: cutOff(deep.ChainPEM)}, want,
			"malformed: certificate chain: PEM is truncated or damaged: 2 blocks begin, 1 are complete"},
		"if the chain is cut off where its last block begins, expect malformed": {
			certs.Material{Key: good.KeyPEM, Chain: slices.Concat(good.ChainPEM, []byte("-----BEG"))}, want,
			"malformed: certificate chain: PEM is truncated or damaged: 2 blocks begin, 1 are complete"},
		"if the chain's first block is damaged, expect malformed": {certs.Material{Key: deep.KeyPEM, Chain: bytes.Replace(deep.ChainPEM, []byte("-----END CERT"), []byte("-----EMD CERT"), 1)}, want,
			"malformed: certificate chain: PEM is truncated or damaged: 2 blocks begin, 1 are complete"},
		"if the chain holds no certificate within its block, expect malformed": {
			certs.Material{Key: good.KeyPEM, Chain: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}, want,
			"malformed: certificate chain: certificate 1: x509: malformed certificate"},
		"if the roots are cut off, expect malformed": {certs.Material{Key: good.KeyPEM, Chain: good.ChainPEM, Roots: cutOff(joined(root, stranger))}, want,
			"malformed: root certificates: PEM is truncated or damaged: 2 blocks begin, 1 are complete"},
		"if the roots are no PEM, expect malformed": {certs.Material{Key: good.KeyPEM, Chain: good.ChainPEM, Roots: []byte("\n")}, want,
			"malformed: root certificates: want at least one certificate in PEM, got none"},
		"if there are two keys, expect malformed": {certs.Material{Key: slices.Concat(good.KeyPEM, other.KeyPEM), Chain: good.ChainPEM}, want,
			"malformed: private key: want one private key, got several"},
		"if key and chain are in the key's file, expect malformed": {certs.Material{Key: slices.Concat(good.KeyPEM, good.ChainPEM), Chain: good.ChainPEM}, want,
			`malformed: private key: want a private key, got a block "CERTIFICATE"`},
		"if key and chain are in the chain's file, expect malformed": {certs.Material{Key: good.KeyPEM, Chain: slices.Concat(good.ChainPEM, good.KeyPEM)}, want,
			`malformed: certificate chain: want blocks CERTIFICATE, got "PRIVATE KEY"`},
		"if the files are swapped, expect malformed": {certs.Material{Key: good.ChainPEM, Chain: good.KeyPEM}, want,
			`malformed: certificate chain: want blocks CERTIFICATE, got "PRIVATE KEY"`},
		"if the key is encrypted, expect malformed": {certs.Material{Key: bytes.ReplaceAll(good.KeyPEM, []byte("PRIVATE"), []byte("ENCRYPTED PRIVATE")), Chain: good.ChainPEM}, want,
			`malformed: private key: want PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY, got "ENCRYPTED PRIVATE KEY"`},
		"if the key has another encoding than it says, expect malformed": {certs.Material{Key: bytes.ReplaceAll(good.KeyPEM, []byte("PRIVATE"), []byte("RSA PRIVATE")), Chain: good.ChainPEM}, want,
			"malformed: private key: RSA PRIVATE KEY does not parse"},
		"if key and chain are of two rotations, expect key-mismatch": {certs.Material{Key: other.KeyPEM, Chain: good.ChainPEM}, want,
			"key-mismatch: the private key does not belong to the certificate with serial " + serial(good)},
		"if the intermediate comes first, expect key-mismatch": {certs.Material{Key: deep.KeyPEM, Chain: slices.Concat(middle.CertificatePEM, deep.CertificatePEM)}, want,
			"key-mismatch: the private key does not belong to the certificate with serial " + serial(middle)},
		"if the trust domain is another, expect wrong-identity": {withURIs("spiffe://example.org/ns/edge/sa/emissary"), want,
			`wrong-identity: want SPIFFE ID "` + edge + `", got "spiffe://example.org/ns/edge/sa/emissary"`},
		"if the service account is another, expect wrong-identity": {withURIs("spiffe://cluster.local/ns/edge/sa/default"), want,
			`wrong-identity: want SPIFFE ID "` + edge + `", got "spiffe://cluster.local/ns/edge/sa/default"`},
		"if no identity is wanted, expect wrong-identity": {material(good), certs.Want{Roots: want.Roots, Now: noon},
			`wrong-identity: want SPIFFE ID "", got "` + edge + `"`},
		"if there are two URIs, expect wrong-identity": {withURIs(edge, "spiffe://cluster.local/ns/edge/sa/default"), want,
			"wrong-identity: want one URI SAN, got 2"},
		"if there are only DNS names, expect wrong-identity": {withURIs(), want, "wrong-identity: want one URI SAN, got 0"},
		"if the URI is not a SPIFFE ID, expect wrong-identity": {withURIs("https://cluster.local/ns/edge/sa/emissary"), want,
			`wrong-identity: URI SAN "https://cluster.local/ns/edge/sa/emissary" is not a SPIFFE ID: scheme is missing or invalid`},
		"if the SPIFFE ID has a port, expect wrong-identity": {withURIs("spiffe://cluster.local:80/ns/edge/sa/emissary"), want,
			`wrong-identity: URI SAN "spiffe://cluster.local:80/ns/edge/sa/emissary" is not a SPIFFE ID: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores`},
		"if the URI is very long, expect it cut": {withURIs("https://cluster.local/" + strings.Repeat("a", 4000)), want,
			`wrong-identity: URI SAN "https://cluster.local/` + strings.Repeat("a", 300-22) + `" is not a SPIFFE ID: scheme is missing or invalid`},
		"if it is not for servers, expect wrong-usage": {leafWith(certtest.Usages(x509.ExtKeyUsageClientAuth)), want, "wrong-usage: the extended key usage lacks server auth"},
		"if it is not for clients, expect wrong-usage": {leafWith(certtest.Usages(x509.ExtKeyUsageServerAuth)), want, "wrong-usage: the extended key usage lacks client auth"},
		"if it says no usage, expect wrong-usage":      {leafWith(certtest.Usages()), want, "wrong-usage: the extended key usage lacks client auth"},
		"if the key must not sign, expect wrong-usage": {leafWith(certtest.KeyUsage(x509.KeyUsageKeyEncipherment)), want, "wrong-usage: the key usage lacks digital signature"},
		"if it is a CA's, expect wrong-usage":          {leafWith(func(c *x509.Certificate) { c.IsCA = true }), want, "wrong-usage: the first certificate is a CA's"},
		"if it is not valid yet, expect not-yet-valid": {leafWith(around(-time.Second, time.Hour)), want,
			"not-yet-valid: valid from 2026-03-01T12:00:01Z"},
		"if it ends now, expect expired": {leafWith(around(time.Hour, 0)), want, "expired: valid until 2026-03-01T12:00:00Z, and the last 1m0s do not count"},
		"if it ended, expect expired":    {leafWith(around(time.Hour, -time.Minute)), want, "expired: valid until 2026-03-01T11:59:00Z, and the last 1m0s do not count"},
		"if less than a minute of two hours is left, expect expired": {leafWith(around(2*time.Hour, 59*time.Second)), want,
			"expired: valid until 2026-03-01T12:00:59Z, and the last 1m0s do not count"},
		"if less than a tenth of the minute that istiod gave is left, expect expired": {leafWith(around(175*time.Second, 5*time.Second)), want,
			"expired: valid until 2026-03-01T12:00:05Z, and the last 6s do not count"},
		"if the mesh has another root, expect untrusted": {material(good), wanted(stranger), `untrusted: issuer "CN=mesh root": x509: certificate signed by unknown authority`},
		"if there is no root, expect untrusted":          {material(good), wanted(), "untrusted: no root certificate that is valid now"},
		"if the root expired, expect untrusted":          {material(leafOf(t, dead)), wanted(dead), "untrusted: no root certificate that is valid now"},
		"if the root is not valid yet, expect untrusted": {material(leafOf(t, unborn)), wanted(unborn), "untrusted: no root certificate that is valid now"},
		"if its root expired beside a good one, expect untrusted": {material(leafOf(t, dead)), wanted(dead, root),
			`untrusted: issuer "CN=dead root": x509: certificate signed by unknown authority`},
		"if the intermediate is missing, expect untrusted": {certs.Material{Key: deep.KeyPEM, Chain: deep.CertificatePEM}, want,
			`untrusted: issuer "CN=middle": x509: certificate signed by unknown authority`},
		"if the intermediate is for clients alone, expect untrusted": {material(leafOf(t, forClients)), want,
			`untrusted: issuer "CN=for clients": x509: certificate specifies an incompatible key usage`},
		"if its root is at the end of its chain alone, expect untrusted": {
			certs.Material{Key: good.KeyPEM, Chain: joined(good, root)}, wanted(stranger),
			`untrusted: issuer "CN=mesh root": x509: certificate signed by unknown authority`},
		"if it is among the roots itself, expect untrusted": {material(good, good), wanted(stranger),
			`untrusted: issuer "CN=mesh root": x509: certificate signed by unknown authority`},
		"if it is its own root, expect untrusted": {material(selfMade, selfMade), wanted(), "untrusted: no root certificate that is valid now"},
		"if the names are very long, expect an error that is not": {material(long), want,
			`untrusted: issuer "CN=` + strings.Repeat("ü", 197) + `": x509: certificate signed by unknown authority`},
	}
	covered := map[certs.Reason]bool{}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := certs.New(test.material, test.want)
			require.EqualError(t, err, test.expect)
			assert.Nil(t, b)
			reason := certs.ReasonOf(fmt.Errorf("around: %w", err))
			assert.True(t, strings.HasPrefix(test.expect, string(reason)+": "), "reason %q", reason)
			covered[reason] = true
		})
	}
	for _, r := range certs.Reasons() {
		assert.True(t, covered[r], "no test for %s", r)
	}
}

func TestNewAcceptsEveryValidForm(t *testing.T) {
	root := authority(t, "mesh root")
	rsaRoot := authority(t, "mesh root of RSA", certtest.KeyType(x509.RSA))
	middle := root.Intermediate(t, certtest.CommonName("middle"), around(time.Hour, 2*time.Hour))
	lower := middle.Intermediate(t, certtest.CommonName("lower"), around(time.Hour, 2*time.Hour))
	leaf, deep := leafOf(t, root), leafOf(t, lower)
	next := authority(t, "next root")
	bridge := root.CrossSign(t, next, around(time.Hour, 2*time.Hour))
	young := leafOf(t, next)
	rsaLeaf := leafOf(t, rsaRoot, certtest.KeyType(x509.RSA))
	edLeaf := leafOf(t, root, certtest.KeyType(x509.Ed25519))
	dead := authority(t, "dead root", around(48*time.Hour, -time.Hour))
	old := authority(t, "old root", func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 })
	oldLeaf := leafOf(t, old)
	noCertificate := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	parameters := []byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n")

	tests := map[string]struct {
		material certs.Material
		want     certs.Want
		chain    []*certtest.Pair
		roots    []*certtest.Pair
	}{
		"if the mesh's root signed the leaf, expect both":        {material(leaf), wanted(root), list(leaf), list(root)},
		"if the material brings the root, expect it":             {material(leaf, root), wanted(), list(leaf), list(root)},
		"if both have the root, expect it once":                  {material(leaf, root, root), wanted(root, root), list(leaf), list(root)},
		"if the mesh has the next root already, expect both":     {material(leaf, root), wanted(next), list(leaf), list(root, next)},
		"if the agent has the next root already, expect both":    {material(young, next), wanted(root), list(young), list(root, next)},
		"if a root expired beside the good one, expect the good": {material(leaf, dead), wanted(root), list(leaf), list(root)},
		"if a leaf is among the roots, expect it gone":           {material(leaf, young, root), wanted(), list(leaf), list(root)},
		"if intermediates are there, expect them":                {material(deep), wanted(root), list(deep, lower, middle), list(root)},
		"if the root ends the chain, expect it dropped":          {certs.Material{Key: deep.KeyPEM, Chain: joined(deep, lower, middle, root)}, wanted(root), list(deep, lower, middle), list(root)},
		"if a cross-signed root ends the chain, expect it kept":  {certs.Material{Key: young.KeyPEM, Chain: joined(young, bridge)}, wanted(root), list(young, bridge), list(root)},
		"if it leads to both roots, expect both":                 {certs.Material{Key: young.KeyPEM, Chain: joined(young, bridge, next)}, wanted(root, next), list(young, bridge), list(root, next)},
		"if there is text around the blocks, expect it ignored":  {certs.Material{Key: text(leaf.KeyPEM), Chain: text(leaf.ChainPEM), Roots: text(root.CertificatePEM)}, wanted(), list(leaf), list(root)},
		"if lines end as on Windows, expect no difference":       {certs.Material{Key: leaf.KeyPEM, Chain: bytes.ReplaceAll(leaf.ChainPEM, []byte("\n"), []byte("\r\n"))}, wanted(root), list(leaf), list(root)},
		"if the key is RSA in PKCS#8, expect PKCS#8":             {material(rsaLeaf), wanted(rsaRoot), list(rsaLeaf), list(rsaRoot)},
		"if the key is RSA in PKCS#1, expect PKCS#8":             {certs.Material{Key: rsaLeaf.PKCS1PEM(t), Chain: rsaLeaf.ChainPEM}, wanted(rsaRoot), list(rsaLeaf), list(rsaRoot)},
		"if the key is EC in SEC 1, expect PKCS#8":               {certs.Material{Key: leaf.SEC1PEM(t), Chain: leaf.ChainPEM}, wanted(root), list(leaf), list(root)},
		"if the key is Ed25519, expect PKCS#8":                   {material(edLeaf), wanted(root), list(edLeaf), list(root)},
		"if one of its own roots cannot be read, expect the others": {
			certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM, Roots: slices.Concat(root.CertificatePEM, noCertificate, next.CertificatePEM)},
			wanted(), list(leaf), list(root, next)},
		"if there is no limit to the key's usage, expect it":           {material(leafOf(t, root, certtest.KeyUsage(0))), wanted(root), nil, list(root)},
		"if any extended usage is allowed, expect it":                  {material(leafOf(t, root, certtest.Usages(x509.ExtKeyUsageAny))), wanted(root), nil, list(root)},
		"if a minute of two hours is left, expect it":                  {material(leafOf(t, root, around(2*time.Hour, time.Minute))), wanted(root), nil, list(root)},
		"if a tenth of the minute that istiod gave is left, expect it": {material(leafOf(t, root, around(174*time.Second, 6*time.Second))), wanted(root), nil, list(root)},
		"if it is valid from this very second, expect it":              {material(leafOf(t, root, around(0, time.Hour))), wanted(root), nil, list(root)},
		"if OpenSSL's parameters are before the key, expect it":        {certs.Material{Key: slices.Concat(parameters, leaf.SEC1PEM(t)), Chain: leaf.ChainPEM}, wanted(root), list(leaf), list(root)},
		"if there are DNS names beside the SPIFFE ID, expect it":       {material(leafOf(t, root, certtest.DNSNames("edge.example"))), wanted(root), nil, list(root)},
		"if the chain's root has an old signature, expect it dropped": {
			certs.Material{Key: oldLeaf.KeyPEM, Chain: joined(oldLeaf, old)}, wanted(old), list(oldLeaf), list(old)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := certs.New(test.material, test.want)
			require.NoError(t, err)
			if test.chain != nil {
				assert.Equal(t, string(joined(test.chain...)), string(b.Chain()))
			}
			var names []string
			for _, r := range test.roots {
				names = append(names, serial(r))
			}
			assert.ElementsMatch(t, names, serials(t, b.Roots()))
			assert.True(t, strings.HasPrefix(string(b.Key()), "-----BEGIN PRIVATE KEY-----\n"), "always PKCS#8")
			_, err = tls.X509KeyPair(b.Chain(), b.Key())
			assert.NoError(t, err)
			assert.Equal(t, edge, b.ID().String())
		})
	}
}

func list(pairs ...*certtest.Pair) []*certtest.Pair { return pairs }

func text(pem []byte) []byte {
	return slices.Concat([]byte("# subject: nobody -----BEGIN\n"), pem, []byte("\nBag attributes: none"))
}

func serials(t *testing.T, pem []byte) []string {
	t.Helper()
	found, err := certs.ParseCertificates(pem)
	require.NoError(t, err)
	var names []string
	for _, c := range found {
		names = append(names, certs.Serial(c))
	}
	return names
}

func TestRootsKeepTheirOrder(t *testing.T) {
	roots := list(authority(t, "a"), authority(t, "b"), authority(t, "c"))
	leaf := leafOf(t, roots[1])
	var first []byte
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {1, 1, 2, 0, 2}} {
		var meshRoots, ownRoots []*certtest.Pair
		for at, i := range order {
			if at%2 == 0 {
				meshRoots = append(meshRoots, roots[i])
			} else {
				ownRoots = append(ownRoots, roots[i])
			}
		}
		want := wanted(meshRoots...)
		before := slices.Clone(want.Roots)
		b, err := certs.New(material(leaf, ownRoots...), want)
		require.NoError(t, err)
		if first == nil {
			first = b.Roots()
		}
		assert.Equal(t, string(first), string(b.Roots()), order)
		assert.True(t, slices.Equal(before, want.Roots), "New does not change Want")
	}
}

func TestBundleDescribesItself(t *testing.T) {
	root, short := authority(t, "mesh root"), authority(t, "short root", around(time.Hour, 3*time.Hour))
	leaf := leafOf(t, root)
	b, err := certs.New(material(leaf, short), wanted(root))
	require.NoError(t, err)
	assert.Equal(t, leaf.Certificate.NotBefore, b.NotBefore())
	assert.Equal(t, leaf.Certificate.NotAfter, b.NotAfter())
	assert.Equal(t, short.Certificate.NotAfter, b.RootNotAfter())
	assert.Equal(t, fmt.Sprintf("%X", leaf.Certificate.SerialNumber), b.Serial())
	assert.Equal(t, edge+", serial "+b.Serial()+", until 2026-03-01T13:00:00Z", b.String())
	assert.Equal(t, "no bundle", certs.Bundle{}.String())
}

func TestBundleEndsWithTheFirstCertificateOfItsPath(t *testing.T) {
	const day = 24 * time.Hour
	lasting := authority(t, "mesh root", around(day, 10*day))
	leaving := authority(t, "leaving root", around(day, 2*time.Hour))
	next := authority(t, "next root", around(day, 20*day))
	middle := lasting.Intermediate(t, certtest.CommonName("middle"), around(time.Hour, 2*time.Hour))
	lower := middle.Intermediate(t, certtest.CommonName("lower"), around(time.Hour, 3*time.Hour))
	late := lasting.Intermediate(t, certtest.CommonName("late"), around(time.Hour, 2*day))
	clients := lasting.Intermediate(t, certtest.CommonName("short"), around(time.Hour, 2*time.Hour), certtest.Usages(x509.ExtKeyUsageClientAuth))
	servers := lasting.CrossSign(t, clients, around(time.Hour, 2*day), certtest.Usages(x509.ExtKeyUsageServerAuth))
	bridge := lasting.CrossSign(t, next, around(time.Hour, 2*time.Hour))
	renewed := leaving.CrossSign(t, leaving, around(time.Hour, 10*day))
	leaf := func(issuer *certtest.Pair) *certtest.Pair { return leafOf(t, issuer, around(2*time.Minute, day)) }
	withChain := func(leaf *certtest.Pair, above ...*certtest.Pair) certs.Material {
		return certs.Material{Key: leaf.KeyPEM, Chain: slices.Concat(leaf.CertificatePEM, joined(above...))}
	}
	subject := func(kind string, p *certtest.Pair) string {
		return fmt.Sprintf("%s %q, serial %s, valid until %s", kind, p.Certificate.Subject, serial(p), p.Certificate.NotAfter.Format(time.RFC3339))
	}

	for name, test := range map[string]struct {
		material certs.Material
		want     certs.Want
		end      time.Duration
		limit    string
	}{
		"if the leaf ends first, expect its end":                        {withChain(leaf(late), late), wanted(lasting), day, ""},
		"if an intermediate ends first, expect its end":                 {withChain(leaf(middle), middle), wanted(lasting), 2 * time.Hour, subject("intermediate", middle)},
		"if two intermediates end before the leaf, expect the first":    {withChain(leaf(lower), lower, middle), wanted(lasting), 2 * time.Hour, subject("intermediate", middle)},
		"if the root ends first, expect its end":                        {withChain(leaf(leaving)), wanted(leaving), 2 * time.Hour, subject("root", leaving)},
		"if another root ends first, expect no limit":                   {withChain(leaf(lasting)), wanted(lasting, leaving), day, ""},
		"if the root was renewed, expect the later end":                 {withChain(leaf(leaving)), wanted(leaving, renewed), day, ""},
		"if the material brings the renewed root, expect the later end": {material(leaf(leaving), renewed), wanted(leaving), day, ""},
		"if a bridge ends and its root is known, expect no limit":       {withChain(leaf(next), bridge), wanted(lasting, next), day, ""},
		"if a bridge ends and its root is not known, expect its end":    {withChain(leaf(next), bridge), wanted(lasting), 2 * time.Hour, subject("intermediate", bridge)},
		"if an intermediate is not on the path, expect no limit":        {withChain(leaf(late), late, middle), wanted(lasting), day, ""},
		"if the path of clients ends first, expect its end":             {withChain(leaf(clients), clients, servers), wanted(lasting), 2 * time.Hour, subject("intermediate", clients)},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := certs.New(test.material, test.want)
			require.NoError(t, err)
			assert.Equal(t, noon.Add(test.end), b.NotAfter())
			assert.Equal(t, test.limit, b.Limit())
			assert.Equal(t, noon, b.Issued(), "the life counts from the issue of the leaf")
			assert.Equal(t, noon.Add(test.end-time.Minute), b.UsefulUntil())
			before, _, _ := strings.Cut(test.limit, ", valid until")
			assert.Contains(t, b.String(), ", until "+noon.Add(test.end).Format(time.RFC3339))
			assert.Contains(t, b.String(), before)
		})
	}
	for name, test := range map[string]struct {
		material certs.Material
		at       time.Duration
		expect   string
	}{
		"if an intermediate is about to end, expect expired": {withChain(leaf(middle), middle), 2*time.Hour - 59*time.Second,
			fmt.Sprintf(`expired: intermediate "CN=middle", serial %s: valid until 2026-03-01T14:00:00Z, and the last 1m0s do not count`, serial(middle))},
		"if the root is about to end, expect expired": {withChain(leaf(leaving)), 2*time.Hour - time.Second,
			fmt.Sprintf(`expired: root "CN=leaving root", serial %s: valid until 2026-03-01T14:00:00Z, and the last 1m0s do not count`, serial(leaving))},
	} {
		t.Run(name, func(t *testing.T) {
			want := wanted(lasting, leaving)
			want.Now = noon.Add(test.at)
			_, err := certs.New(test.material, want)
			assert.EqualError(t, err, test.expect)
		})
	}
}

// A certificate that stays as it is keeps its error, so that it is reported once.
func TestRejectionsDoNotContainThePresentTime(t *testing.T) {
	root := certtest.NewAuthority(t, certtest.Validity(noon.Add(-time.Hour), noon.Add(100*time.Hour)))
	middle := root.Intermediate(t, certtest.Validity(noon.Add(-time.Hour), noon.Add(time.Hour)))
	const id = "spiffe://cluster.local/ns/edge/sa/emissary"
	day := certtest.Validity(noon.Add(-time.Hour), noon.Add(24*time.Hour))
	for name, test := range map[string]struct {
		leaf *certtest.Pair
		at   time.Duration
		err  string
	}{
		"if it is not valid yet":      {root.SPIFFELeaf(t, id, day), -2 * time.Hour, "not-yet-valid: "},
		"if it expired":               {root.SPIFFELeaf(t, id, day), 23*time.Hour + 59*time.Minute + time.Second, "expired: "},
		"if its intermediate expired": {middle.SPIFFELeaf(t, id, day), 2 * time.Hour, "untrusted: issuer \"CN=test intermediate\": certificate \"CN=test intermediate\" is valid from "},
	} {
		t.Run(name+", expect the same text a minute later", func(t *testing.T) {
			rejection := func(at time.Duration) string {
				_, err := certs.New(certs.Material{Key: test.leaf.KeyPEM, Chain: test.leaf.ChainPEM}, certs.Want{
					ID: spiffeid.RequireFromString(id), Roots: []*x509.Certificate{root.Certificate}, Now: noon.Add(at),
				})
				require.Error(t, err)
				return err.Error()
			}
			first := rejection(test.at)
			assert.True(t, strings.HasPrefix(first, test.err), first)
			assert.Equal(t, first, rejection(test.at+time.Minute))
		})
	}
}

func TestBundleIsImmutable(t *testing.T) {
	root := authority(t, "mesh root")
	leaf := leafOf(t, root)
	m := material(leaf, root)
	m.Key = bytes.Clone(m.Key)
	b, err := certs.New(m, wanted(root))
	require.NoError(t, err)
	key, chain, roots := b.Key(), b.Chain(), b.Roots()
	clear(m.Key)
	clear(b.Key())
	clear(b.Chain())
	clear(b.Roots())
	assert.Equal(t, leaf.KeyPEM, b.Key())
	assert.Equal(t, key, b.Key())
	assert.Equal(t, chain, b.Chain())
	assert.Equal(t, roots, b.Roots())
}

func TestBundlesAreEqualWhenTheirBytesAre(t *testing.T) {
	root, next := authority(t, "mesh root"), authority(t, "next root")
	leaf, other := leafOf(t, root), leafOf(t, root)
	bundle := func(m certs.Material, roots ...*certtest.Pair) *certs.Bundle {
		b, err := certs.New(m, wanted(roots...))
		require.NoError(t, err)
		return b
	}
	b := bundle(material(leaf), root)
	assert.True(t, b.Equal(bundle(material(leaf, root), root)), "the same content")
	assert.False(t, b.Equal(bundle(material(other), root)), "another certificate")
	assert.False(t, b.Equal(bundle(material(leaf), root, next)), "another root")
	assert.True(t, b.Equal(bundle(certs.Material{Key: leaf.SEC1PEM(t), Chain: leaf.ChainPEM}, root)), "another encoding of the same key")
	assert.False(t, b.Equal(nil))
}

func TestMinRemainingLifeIsATenthAndAtMostAMinute(t *testing.T) {
	for lifetime, expected := range map[time.Duration]time.Duration{
		time.Minute: 6 * time.Second, 10 * time.Minute: time.Minute, 24 * time.Hour: time.Minute, 0: 0,
	} {
		assert.Equal(t, expected, certs.MinRemainingLife(lifetime), lifetime)
	}
}
