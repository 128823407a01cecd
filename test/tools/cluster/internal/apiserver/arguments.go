package apiserver

import (
	"path/filepath"
	"strconv"
)

// The Unix sockets of etcd, relative to the data folder. Unlike ports they cannot be
// taken by another process, and other users cannot reach them. etcd requires names
// that look like a host and a port.
const (
	etcdSocket     = "etcd:2379"
	etcdPeerSocket = "etcd:2380"
)

const (
	serviceAccountIssuer = "https://kubernetes.default.svc.cluster.local"
	serviceRange         = "10.96.0.0/16"
	serviceAddress       = "10.96.0.1"
	clusterDomain        = "cluster.local"
)

// apiServerHosts returns the names and addresses of the API server's certificate.
func (o Options) apiServerHosts() []string {
	hosts := []string{
		"127.0.0.1", "::1", "localhost", serviceAddress,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + clusterDomain,
	}
	if o.Address != "" {
		hosts = append(hosts, o.Address)
	}
	return hosts
}

// port returns the configured port, or a free one.
func (o Options) port() (int, error) {
	if o.Port != 0 {
		return o.Port, nil
	}
	return freePort()
}

// etcdArguments configures a single member that does not sync to disk, for speed.
func etcdArguments() []string {
	return []string{
		"--name=isthmus",
		"--data-dir=etcd",
		"--listen-client-urls=unix://" + etcdSocket,
		"--advertise-client-urls=unix://" + etcdSocket,
		"--listen-peer-urls=unix://" + etcdPeerSocket,
		"--initial-advertise-peer-urls=unix://" + etcdPeerSocket,
		"--initial-cluster=isthmus=unix://" + etcdPeerSocket,
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

// apiServerArguments configures RBAC and the admission plugins that are on by default.
func (o Options) apiServerArguments(folder string, port int) []string {
	pki := func(name string) string { return filepath.Join(folder, pkiFolder, name) }
	flags := []string{
		"--bind-address=127.0.0.1",
		// Without this the API server looks for a default route, which a sandbox lacks.
		"--advertise-address=127.0.0.1",
		// A loopback address is not valid as an endpoint of the Service kubernetes.
		"--endpoint-reconciler-type=none",
		"--authorization-mode=RBAC",
	}
	if o.Address != "" {
		flags = []string{
			"--bind-address=0.0.0.0",
			"--advertise-address=" + o.Address,
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--kubelet-preferred-address-types=InternalIP",
			"--kubelet-certificate-authority=" + pki("ca.crt"),
			"--kubelet-client-certificate=" + pki("admin.crt"),
			"--kubelet-client-key=" + pki("admin.key"),
		}
	}
	return append(flags,
		"--secure-port="+strconv.Itoa(port),
		"--etcd-servers=unix://"+etcdSocket,
		"--tls-cert-file="+pki("apiserver.crt"),
		"--tls-private-key-file="+pki("apiserver.key"),
		"--client-ca-file="+pki("ca.crt"),
		"--service-account-issuer="+serviceAccountIssuer,
		"--service-account-key-file="+pki("service-account.crt"),
		"--service-account-signing-key-file="+pki("service-account.key"),
		// The tokens of Istio's agents have the audience istio-ca.
		"--api-audiences="+serviceAccountIssuer+",istio-ca",
		"--service-cluster-ip-range="+serviceRange,
		"--allow-privileged=true",
		"--profiling=false",
		"--v=0",
	)
}

// controllerManagerArguments configures all controllers, each with its own service
// account.
func controllerManagerArguments(folder string) []string {
	pki := func(name string) string { return filepath.Join(folder, pkiFolder, name) }
	return []string{
		"--kubeconfig=" + filepath.Join(folder, "controller-manager.kubeconfig"),
		"--secure-port=0", // no client needs it, and the port could be taken
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + pki("service-account.key"),
		"--root-ca-file=" + pki("ca.crt"),
		"--cluster-signing-cert-file=" + pki("ca.crt"),
		"--cluster-signing-key-file=" + pki("ca.key"),
		"--v=0",
	}
}
