package edgetraffic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/process"
	"github.com/isthmus-mesh/isthmus/test/framework/traffic"
)

// timeout limits each wait for a process, with room for a busy machine.
const timeout = 3 * time.Minute

const (
	edgeID  = "spiffe://cluster.local/ns/front/sa/edge"
	otherID = "spiffe://cluster.local/ns/front/sa/other"
	meshID  = "spiffe://cluster.local/ns/mesh/sa/mesh"
)

// trafficPath is a caller, an edge, and a service behind the edge, as processes.
type trafficPath struct {
	t *testing.T
	// edgeAddress and edgeHealth are addresses of the edge, meshAddress and meshStatus of
	// the service, callerStatus of the caller.
	edgeAddress, edgeHealth, meshAddress, meshStatus, callerStatus string
	edgeFolder, meshFolder, logs                                   string
	edge                                                           *process.Process
}

// startPath starts the service and the edge with the contents of their folders.
func startPath(t *testing.T, edge, mesh func(folder string)) *trafficPath {
	t.Helper()
	root, err := edgeImage()
	require.NoError(t, err)
	addresses, err := process.FreeAddresses(5)
	require.NoError(t, err)
	tp := &trafficPath{t: t, edgeAddress: addresses[0], edgeHealth: addresses[1], meshAddress: addresses[2], meshStatus: addresses[3], callerStatus: addresses[4], edgeFolder: t.TempDir(), meshFolder: t.TempDir(), logs: t.TempDir()}
	edge(tp.edgeFolder)
	mesh(tp.meshFolder)
	serving := tp.start("mesh", toolPath(t, "image-mesh"), "serve", "--certificates", tp.meshFolder, "--listen", tp.meshAddress, "--plain", tp.meshStatus, "--allow", edgeID)
	tp.awaitOK(serving, "http://"+tp.meshStatus+"/healthz")
	// The path of a socket must be short, and HAProxy does not accept a comma in it.
	work, err := os.MkdirTemp("", "edge-work-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(work) })
	tp.edge = tp.start("edge", filepath.Join(root, "usr/local/bin/edge"), "--certificates", tp.edgeFolder, "--upstream", tp.meshAddress,
		"--listen", tp.edgeAddress, "--health", tp.edgeHealth, "--haproxy", haproxyScript(t, root), "--work", work, "--drain", "3s")
	tp.awaitOK(tp.edge, "http://"+tp.edgeHealth+"/healthz")
	return tp
}

// start runs a program until the test ends.
func (tp *trafficPath) start(name, program string, arguments ...string) *process.Process {
	tp.t.Helper()
	log := filepath.Join(tp.logs, name+".log")
	p, err := process.Start(process.Options{Name: name, Program: program, Arguments: arguments, Log: log})
	require.NoError(tp.t, err)
	tp.t.Cleanup(func() {
		p.End(syscall.SIGTERM)
		if tp.t.Failed() {
			log, _ := os.ReadFile(log)
			tp.t.Logf("log of %s:\n%s", name, log)
		}
	})
	return p
}

// startCaller starts a caller that opens many connections of its own.
func (tp *trafficPath) startCaller() {
	tp.t.Helper()
	tp.start("caller", toolPath(tp.t, "image-mesh"), "call", "--target", "http://"+tp.edgeAddress, "--rate", "60", "--fresh", "3", "--plain", tp.callerStatus)
	tp.await("a first answer", func() bool { return tp.callerReport().Requests > 0 })
}

func (tp *trafficPath) await(description string, condition func() bool) {
	tp.t.Helper()
	require.Eventually(tp.t, condition, timeout, 20*time.Millisecond, description)
}

func (tp *trafficPath) awaitOK(p *process.Process, url string) {
	tp.t.Helper()
	ctx, cancel := context.WithTimeout(tp.t.Context(), timeout)
	defer cancel()
	require.NoError(tp.t, p.AwaitReady(ctx, func(context.Context) error {
		if status, body := sendRequest(http.MethodGet, url); status != http.StatusOK {
			return fmt.Errorf("%s: %d %s", url, status, body)
		}
		return nil
	}))
}

// callerReport returns the caller's report.
func (tp *trafficPath) callerReport() traffic.Report {
	var r traffic.Report
	_, body := sendRequest(http.MethodGet, "http://"+tp.callerStatus+"/report")
	_ = json.Unmarshal(body, &r)
	return r
}

// awaitSerial waits until the edge reports that it presents a certificate, and the service
// has seen it.
func (tp *trafficPath) awaitSerial(p *certtest.Pair) {
	tp.t.Helper()
	serial := fmt.Sprintf("%X", p.Certificate.SerialNumber)
	tp.await("the edge presents "+serial, func() bool {
		_, body := sendRequest(http.MethodGet, "http://"+tp.edgeHealth+"/certificate")
		return strings.Contains(string(body), `"serial":"`+serial+`"`)
	})
	tp.await("the service sees "+serial, func() bool {
		_, body := sendRequest(http.MethodGet, "http://"+tp.meshStatus+"/peers")
		return strings.Contains(string(body), `"serial":"`+serial+`","status":200`)
	})
}

func sendRequest(method, url string) (int, []byte) {
	request, err := http.NewRequest(method, url, bytes.NewReader(nil))
	if err != nil {
		return 0, nil
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, body
}

// writeFiles writes files into a folder as Istio's agent does: each is renamed into place,
// the key first.
func writeFiles(t *testing.T, folder string, p *certtest.Pair, roots ...*certtest.Pair) {
	t.Helper()
	for _, f := range []struct {
		name    string
		content []byte
	}{{"key.pem", p.KeyPEM}, {"cert-chain.pem", p.ChainPEM}, {"root-cert.pem", concatenate(roots)}} {
		temporary := filepath.Join(folder, "."+f.name)
		require.NoError(t, os.WriteFile(temporary, f.content, 0o600))
		require.NoError(t, os.Rename(temporary, filepath.Join(folder, f.name)))
	}
}

// writeSecretVolume writes files into a folder as a kubelet mounts a Secret: all at once, by
// replacing a symbolic link.
func writeSecretVolume(t *testing.T, folder string, p *certtest.Pair, roots ...*certtest.Pair) {
	t.Helper()
	data, err := os.MkdirTemp(folder, "..")
	require.NoError(t, err)
	for name, content := range map[string][]byte{"tls.key": p.KeyPEM, "tls.crt": p.ChainPEM, "ca.crt": concatenate(roots), "root-cert.pem": concatenate(roots)} {
		require.NoError(t, os.WriteFile(filepath.Join(data, name), content, 0o600))
		if link := filepath.Join(folder, name); !exists(link) {
			require.NoError(t, os.Symlink(filepath.Join("..data", name), link))
		}
	}
	old, _ := os.Readlink(filepath.Join(folder, "..data"))
	require.NoError(t, os.Symlink(filepath.Base(data), filepath.Join(folder, "..data_tmp")))
	require.NoError(t, os.Rename(filepath.Join(folder, "..data_tmp"), filepath.Join(folder, "..data")))
	if old != "" {
		require.NoError(t, os.RemoveAll(filepath.Join(folder, old)))
	}
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

func concatenate(roots []*certtest.Pair) []byte {
	var all []byte
	for _, r := range roots {
		all = append(append(all, r.CertificatePEM...), '\n') // a blank line between them
	}
	return all
}
