package istio

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/test/framework/process"
)

// Discovery is the configuration of an istiod that runs as a process beside a control
// plane: its prerequisites, flags, environment and readiness. Start runs one for a
// test. To run istiod in another way, begin with NewDiscovery and Install.
type Discovery struct {
	// Client is the cluster's administrator.
	Client kubernetes.Interface
	// Address is host:port of xDS and certificates.
	Address string
	// MonitoringAddress is host:port of its metrics.
	MonitoringAddress string
	// Revision is the revision of istiod. Default: "", the default revision.
	Revision string

	kubeconfig        string
	http, https, grpc string
	// tools is nil until they are needed.
	tools *tools
}

// NewDiscovery chooses free loopback addresses for an istiod that uses this kubeconfig.
// The client is the same administrator's.
func NewDiscovery(kubeconfig string, client kubernetes.Interface) (*Discovery, error) {
	addresses, err := process.FreeAddresses(5)
	if err != nil {
		return nil, err
	}
	return &Discovery{
		Client: client, kubeconfig: kubeconfig, Address: addresses[0], MonitoringAddress: addresses[1],
		http: addresses[2], https: addresses[3], grpc: addresses[4],
	}, nil
}

// Flags are the arguments of pilot-discovery.
func (d *Discovery) Flags() []string {
	return []string{
		"discovery", "--kubeconfig", d.kubeconfig, "--ctrlz_port", "0",
		"--secureGRPCAddr", d.Address, "--monitoringAddr", d.MonitoringAddress, "--httpAddr", d.http,
		"--httpsAddr", d.https, "--grpcAddr", d.grpc,
	}
}

// Environment is the environment of pilot-discovery.
func (d *Discovery) Environment() []string {
	return []string{
		"POD_NAMESPACE=" + Namespace, "POD_NAME=istiod-" + d.revision() + "-0", "REVISION=" + d.revision(),
		"PILOT_CERT_PROVIDER=istiod", "CLUSTER_ID=" + ClusterID,
	}
}

// revision is the value of label istio.io/rev on this istiod's objects.
func (d *Discovery) revision() string {
	if d.Revision == "" {
		return "default"
	}
	return d.Revision
}

// Roots returns the root certificates that istiod has published in a namespace,
// as PEM.
func (d *Discovery) Roots(ctx context.Context, namespace string) ([]byte, error) {
	cm, err := d.Client.CoreV1().ConfigMaps(namespace).Get(ctx, RootConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	roots := cm.Data["root-cert.pem"]
	if roots == "" {
		return nil, fmt.Errorf("ConfigMap %s/%s has no root-cert.pem", namespace, RootConfigMap)
	}
	return []byte(roots), nil
}

// Ready returns nil when istiod reports that it is ready and the published roots verify
// its certificate.
func (d *Discovery) Ready(ctx context.Context) error {
	if err := checkOK(ctx, "http://"+d.http+"/ready"); err != nil {
		return err
	}
	roots, err := d.Roots(ctx, Namespace)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: ServerName, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}}
	conn, err := dialer.DialContext(ctx, "tcp", d.Address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// checkOK returns nil when a GET is answered with status 200.
func checkOK(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 200))
		return fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return nil
}
