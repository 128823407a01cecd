package edgetraffic

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/process"
)

func TestRotationsLoseNoRequest(t *testing.T) {
	for name, replaceFiles := range map[string]func(*testing.T, string, *certtest.Pair, ...*certtest.Pair){
		"if the agent writes files, expect none lost":  writeFiles,
		"if a Secret is mounted, expect none lost too": writeSecretVolume,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := certtest.NewAuthority(t)
			tp := startPath(t, func(f string) { replaceFiles(t, f, root.SPIFFELeaf(t, edgeID), root) },
				func(f string) { writeFiles(t, f, root.SPIFFELeaf(t, meshID), root) })
			tp.startCaller()
			const rotations = 15
			for range rotations {
				next := root.Intermediate(t).SPIFFELeaf(t, edgeID)
				replaceFiles(t, tp.edgeFolder, next, root)
				tp.awaitSerial(next)
				writeFiles(t, tp.meshFolder, root.SPIFFELeaf(t, meshID), root)
			}
			// The CA changes as Istio's does: both roots are trusted, then the new one
			// signs, then the old one is removed.
			other := certtest.NewAuthority(t, certtest.CommonName("other root"))
			for _, step := range []struct {
				signer *certtest.Pair
				roots  []*certtest.Pair
			}{{root, []*certtest.Pair{root, other}}, {other, []*certtest.Pair{root, other}}, {other, []*certtest.Pair{other}}} {
				serving := step.signer.SPIFFELeaf(t, meshID)
				writeFiles(t, tp.meshFolder, serving, step.roots...)
				tp.await("the service's own certificate", func() bool {
					_, body := sendRequest(http.MethodGet, "http://"+tp.meshStatus+"/peers")
					return strings.Contains(string(body), fmt.Sprintf(`"own":{"id":%q,"serial":"%X"`, meshID, serving.Certificate.SerialNumber))
				})
				next := step.signer.SPIFFELeaf(t, edgeID)
				replaceFiles(t, tp.edgeFolder, next, step.roots...)
				tp.awaitSerial(next)
			}
			r := tp.callerReport()
			assert.Zero(t, r.Failed, "%+v", r.Failures)
			assert.GreaterOrEqual(t, len(r.Serials), rotations+4)
			t.Logf("%d requests, longest gap %.3f s", r.Requests, r.LongestGapSeconds)
		})
	}
}

// The edge ignores incomplete and invalid files.
func TestEdgeKeepsItsKeyPairWhenNewFilesAreInvalid(t *testing.T) {
	t.Parallel()
	root, stranger := certtest.NewAuthority(t), certtest.NewAuthority(t)
	first := root.SPIFFELeaf(t, edgeID)
	tp := startPath(t, func(f string) { writeFiles(t, f, first, root) }, func(f string) { writeFiles(t, f, root.SPIFFELeaf(t, meshID), root) })
	next := root.SPIFFELeaf(t, edgeID)
	for description, test := range map[string]struct {
		breakFiles func()
		message    string
	}{
		"a key alone": {
			func() { require.NoError(t, os.WriteFile(filepath.Join(tp.edgeFolder, "key.pem"), next.KeyPEM, 0o600)) }, "private key does not match public key",
		},
		"roots that do not sign": {func() { writeFiles(t, tp.edgeFolder, next, stranger) }, "signed by unknown authority"},
		"an empty file": {
			func() { require.NoError(t, os.WriteFile(filepath.Join(tp.edgeFolder, "cert-chain.pem"), nil, 0o600)) }, "failed to find any PEM data",
		},
		"no file": {func() { require.NoError(t, os.Remove(filepath.Join(tp.edgeFolder, "root-cert.pem"))) }, "has no key pair: root-cert.pem"},
	} {
		test.breakFiles()
		tp.await(description, func() bool {
			log, err := os.ReadFile(filepath.Join(tp.logs, "edge.log"))
			return err == nil && strings.Contains(string(log), test.message)
		})
		status, body := sendRequest(http.MethodPost, "http://"+tp.edgeAddress)
		require.Equal(t, http.StatusOK, status, "%s: %s", description, body)
		require.Contains(t, string(body), fmt.Sprintf(`"serial":"%X"`, first.Certificate.SerialNumber), description)
		writeFiles(t, tp.edgeFolder, first, root)
	}
	writeFiles(t, tp.edgeFolder, next, root)
	tp.await("the next pair", func() bool {
		_, body := sendRequest(http.MethodPost, "http://"+tp.edgeAddress)
		return strings.Contains(string(body), fmt.Sprintf(`"serial":"%X"`, next.Certificate.SerialNumber))
	})
}

func TestOnlyTheEdgeOfTheMeshMayCall(t *testing.T) {
	t.Parallel()
	root, stranger := certtest.NewAuthority(t), certtest.NewAuthority(t)
	for name, test := range map[string]struct {
		edge, mesh func(string)
		status     int
		body       string
	}{
		"if it is the edge, expect an answer": {
			func(f string) { writeFiles(t, f, root.SPIFFELeaf(t, edgeID), root) },
			func(f string) { writeFiles(t, f, root.SPIFFELeaf(t, meshID), root) }, http.StatusOK, edgeID,
		},
		"if it is another identity of the mesh, expect a refusal": {
			func(f string) { writeFiles(t, f, root.SPIFFELeaf(t, otherID), root) },
			func(f string) { writeFiles(t, f, root.SPIFFELeaf(t, meshID), root) }, http.StatusForbidden, otherID,
		},
		"if it is of another mesh, expect no connection": {
			func(f string) { writeFiles(t, f, stranger.SPIFFELeaf(t, edgeID), stranger, root) },
			func(f string) { writeFiles(t, f, root.SPIFFELeaf(t, meshID), root) }, http.StatusBadGateway, "", // in TLS 1.3 the edge learns of it late
		},
		"if the service is of another mesh, expect no connection": {
			func(f string) { writeFiles(t, f, root.SPIFFELeaf(t, edgeID), root) },
			func(f string) { writeFiles(t, f, stranger.SPIFFELeaf(t, meshID), stranger, root) }, http.StatusServiceUnavailable, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tp := startPath(t, test.edge, test.mesh)
			status, body := sendRequest(http.MethodPost, "http://"+tp.edgeAddress)
			assert.Equal(t, test.status, status, "%s", body)
			assert.Contains(t, string(body), test.body)
		})
	}
}

// After SIGTERM the edge reports that it is not ready, and serves until its clients have
// noticed.
func TestEdgeDrainsBeforeItStops(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	tp := startPath(t, func(f string) { writeFiles(t, f, root.SPIFFELeaf(t, edgeID), root) }, func(f string) { writeFiles(t, f, root.SPIFFELeaf(t, meshID), root) })
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}
	post := func() (int, error) {
		response, err := client.Post("http://"+tp.edgeAddress, "text/plain", nil)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		return response.StatusCode, err
	}
	status, err := post()
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.NoError(t, tp.edge.Signal(syscall.SIGTERM))
	tp.await("not ready", func() bool {
		status, _ := sendRequest(http.MethodGet, "http://"+tp.edgeHealth+"/healthz")
		return status == http.StatusServiceUnavailable
	})
	status, err = post()
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status)
	client.CloseIdleConnections()
	tp.await("the edge stops", func() bool { return !tp.edge.Running() })
}

func TestEdgeDoesNotStartWithoutACertificate(t *testing.T) {
	t.Parallel()
	root, stranger := certtest.NewAuthority(t), certtest.NewAuthority(t)
	leaf := root.SPIFFELeaf(t, edgeID)
	edge := toolPath(t, "image-edge")
	for name, test := range map[string]struct {
		fill func(folder string)
		want string
	}{
		"if there is nothing, expect what is missing": {func(string) {}, "key.pem, cert-chain.pem, root-cert.pem"},
		"if there is a key alone, expect what is missing": {
			func(f string) { require.NoError(t, os.WriteFile(filepath.Join(f, "key.pem"), leaf.KeyPEM, 0o600)) }, "cert-chain.pem, root-cert.pem",
		},
		"if the key is another's, expect an error": {func(f string) {
			writeFiles(t, f, leaf, root)
			require.NoError(t, os.WriteFile(filepath.Join(f, "key.pem"), stranger.KeyPEM, 0o600))
		}, "private key does not match public key"},
		"if the roots do not sign, expect an error": {func(f string) { writeFiles(t, f, leaf, stranger) }, "certificate signed by unknown authority"},
		"if it has expired, expect an error": {func(f string) {
			writeFiles(t, f, root.SPIFFELeaf(t, edgeID, certtest.Validity(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))), root)
		}, "certificate has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
			test.fill(folder)
			p, err := process.Start(process.Options{Name: "edge", Program: edge, Env: []string{"EDGE_CERT_DIR=" + folder}, Arguments: []string{"--upstream", "127.0.0.1:1"}, Log: log})
			require.NoError(t, err)
			require.Eventually(t, func() bool { return !p.Running() }, timeout, 20*time.Millisecond)
			content, err := os.ReadFile(log)
			require.NoError(t, err)
			assert.Contains(t, string(content), "no certificate to start with: "+folder)
			assert.Contains(t, string(content), test.want)
		})
	}
}
