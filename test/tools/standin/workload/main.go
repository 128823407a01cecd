// Command workload is a stand-in for a workload of the mesh with the Envoy of its sidecar.
// If the pod has an Istio agent, the server is gRPC's own xDS server: listener, mTLS mode
// and RBAC come from istiod through that agent, and gRPC enforces them. Without an agent
// the server serves plain text.
//
// The service is gRPC's health service. The metadata of its answer names the server and,
// with mTLS, the client.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	xdscredentials "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/xds"
)

// The environment variables that the node sets, except the last one.
const (
	bootstrapVariable    = "GRPC_XDS_BOOTSTRAP"    // the agent's bootstrap file, if there is an agent
	portsVariable        = "STAND_IN_PORTS"        // such as 8080,9080
	addressVariable      = "STAND_IN_ADDRESS"      // the pod's address
	imageVariable        = "STAND_IN_IMAGE"        // the image that this program stands for
	bootstrappedVariable = "STAND_IN_BOOTSTRAPPED" // set by this program when it starts itself again
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	bootstrap := os.Getenv(bootstrapVariable)
	if bootstrap != "" && os.Getenv(bootstrappedVariable) == "" {
		return execWithBootstrap(bootstrap)
	}
	errs := make(chan error)
	for port := range strings.SplitSeq(os.Getenv(portsVariable), ",") {
		s := &service{address: os.Getenv(addressVariable), port: port, certificates: path.Dir(os.Getenv(bootstrappedVariable))}
		go func() {
			if bootstrap == "" {
				errs <- s.servePlainText()
				return
			}
			errs <- s.serveMesh()
		}()
	}
	return <-errs
}

// execWithBootstrap waits for the agent's bootstrap file, adjusts it and executes this
// program again with it: gRPC reads the environment before main.
func execWithBootstrap(file string) error {
	var data []byte
	for {
		var err error
		if data, err = os.ReadFile(file); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	var config map[string]any
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	adjustBootstrap(config)
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	changed := "/tmp/grpc-bootstrap.json"
	if err := os.WriteFile(changed, data, 0o600); err != nil {
		return err
	}
	env := []string{bootstrapVariable + "=" + changed, bootstrappedVariable + "=" + file}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, bootstrapVariable+"=") {
			env = append(env, e)
		}
	}
	return syscall.Exec("/proc/self/exe", os.Args, env)
}

// adjustBootstrap changes gRPC's bootstrap so that the server behaves like Envoy.
//
// Certificates are read every second and not every 15 minutes, because those of guides
// have short lifetimes. The labels become those of a VM, without tlsMode: for a pod with
// tlsMode istiod treats PERMISSIVE as STRICT in gRPC's configuration, unlike in Envoy's.
func adjustBootstrap(config map[string]any) {
	for _, one := range nestedMap(config, "certificate_providers") {
		if provider, ok := one.(map[string]any); ok {
			nestedMap(provider, "config")["refresh_interval"] = "1s"
		}
	}
	labels := nestedMap(nestedMap(nestedMap(config, "node"), "metadata"), "LABELS")
	delete(labels, "security.istio.io/tlsMode")
	labels["istio.io/test-vm"] = "true"
}

// nestedMap returns the map with this key in another map. It creates the map if it is
// missing.
func nestedMap(in map[string]any, key string) map[string]any {
	m, ok := in[key].(map[string]any)
	if !ok {
		m = map[string]any{}
		in[key] = m
	}
	return m
}

// service serves one port.
type service struct {
	address, port string
	// certificates is the folder of the agent's certificates.
	certificates string
	listener     listener
}

func (s *service) servePlainText() error {
	l, err := net.Listen("tcp4", net.JoinHostPort(s.address, s.port))
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(s.addMetadata))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	return server.Serve(l)
}

// serveMesh serves with gRPC's xDS server behind a listener that distinguishes plain text
// from TLS. gRPC's xDS does not support PERMISSIVE.
func (s *service) serveMesh() error {
	inner, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", s.port))
	if err != nil {
		return err
	}
	secure, err := xdscredentials.NewServerCredentials(xdscredentials.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return err
	}
	server, err := xds.NewGRPCServer(grpc.Creds(secure), grpc.UnaryInterceptor(s.addMetadata),
		xds.ServingModeCallback(func(_ net.Addr, mode xds.ServingModeChangeArgs) {
			log.Printf("port %s: %s, %v", s.port, mode.Mode, mode.Err)
		}))
	if err != nil {
		return err
	}
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	errs := make(chan error, 2)
	go func() { errs <- server.Serve(inner) }()
	go func() {
		errs <- s.listener.serve(net.JoinHostPort(s.address, s.port), inner.Addr().String(), s.certificates)
	}()
	return <-errs
}

// addMetadata adds the names of the server and of the client to the answer's metadata.
func (s *service) addMetadata(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	host, _ := os.Hostname()
	if h := os.Getenv("HOSTNAME"); h != "" {
		host = h
	}
	md := metadata.Pairs("server", host, "image", os.Getenv(imageVariable), "port", s.port)
	if p, ok := peer.FromContext(ctx); ok {
		client := s.listener.caller(p.Addr.String())
		if t, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			client = callerOf(t.State)
		}
		md.Set("client", client.id)
		md.Set("serial", client.serial)
	}
	if err := grpc.SetHeader(ctx, md); err != nil {
		return nil, fmt.Errorf("set the answer's metadata: %w", err)
	}
	return handle(ctx, request)
}
