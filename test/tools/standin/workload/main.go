// Command workload stands in for a workload of the mesh together with the Envoy in
// its sidecar. Where the pod has an agent of Istio's, the server is gRPC's own xDS
// server: listener, mTLS mode and RBAC come from istiod through that agent, and
// gRPC's own engine enforces them. Without an agent it serves plain text.
//
// The service itself is gRPC's health service. Its answer's metadata says who
// answered and, after mTLS, who asked.
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

// What the node says in the environment.
const (
	bootstrapVariable    = "GRPC_XDS_BOOTSTRAP"    // set where there is an agent
	portsVariable        = "STAND_IN_PORTS"        // 8080,9080
	addressVariable      = "STAND_IN_ADDRESS"      // the pod's
	imageVariable        = "STAND_IN_IMAGE"        // what would run here
	bootstrappedVariable = "STAND_IN_BOOTSTRAPPED" // set by this program, once
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

// execWithBootstrap waits for the agent's bootstrap and starts this program anew with it:
// gRPC reads the environment before main.
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

// adjustBootstrap makes of gRPC's bootstrap one that Envoy's part can be played with.
//
// Certificates are read every second, not every 15 minutes, since the guides have
// short ones. And the labels are told as those of a machine outside of the cluster,
// without tlsMode: of a pod that has it istiod takes PERMISSIVE for STRICT in
// gRPC's configuration, which it does not in Envoy's.
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

// nestedMap is the map in a map, made where it is missing.
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
	// certificates is the folder of the agent's.
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

// serveMesh serves behind a front that tells plain text and TLS apart, which gRPC's
// xDS cannot: it knows no PERMISSIVE.
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

// addMetadata adds to the answer who gives it, and to whom.
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
		return nil, fmt.Errorf("sign: %w", err)
	}
	return handle(ctx, request)
}
