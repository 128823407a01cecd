package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func newTestAuthority(t *testing.T) *authority {
	t.Helper()
	authority, err := newAuthority(filepath.Join(t.TempDir(), "pki"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func TestAuthorityIssuesValidCertificates(t *testing.T) {
	authority := newTestAuthority(t)
	for _, err := range []error{
		authority.issueServing("apiserver", Options{}.apiServerHosts()...),
		authority.issueClient("admin", "isthmus-admin", "system:masters"),
		authority.writeSigningKey("service-account"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.certificate)
	load := func(name string) *x509.Certificate {
		pair, err := tls.LoadX509KeyPair(authority.path(name+".crt"), authority.path(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf
	}
	for _, host := range []string{"127.0.0.1", "localhost", "kubernetes.default.svc", "10.96.0.1"} {
		if _, err := load("apiserver").Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("the API server as %s: %v", host, err)
		}
	}
	admin := load("admin")
	if _, err := admin.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("the admin as a client: %v", err)
	}
	if _, err := admin.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("the admin passes as a server")
	}
	if subject := admin.Subject.String(); subject != "CN=isthmus-admin,O=system:masters" {
		t.Errorf("the admin is %s", subject)
	}
}

func TestAuthorityFilesArePrivate(t *testing.T) {
	authority := newTestAuthority(t)
	if err := authority.issueClient("admin", "isthmus-admin"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(authority.folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the folder: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(authority.folder)
	if err != nil || len(entries) != 4 {
		t.Fatalf("%d files, %v, want 4", len(entries), err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s: %v, %v", entry.Name(), info.Mode(), err)
		}
	}
}
