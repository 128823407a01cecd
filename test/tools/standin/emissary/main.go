// Command emissary is a stand-in for Emissary and Ambassador Edge Stack. It reads the
// same Mappings, TLSContexts, Secrets and files of AMBASSADOR_ISTIO_SECRET_DIR, and
// forwards HTTP to services of the cluster as they do: in plain text, or with mutual
// TLS and these certificates. The services must be stand-ins too; see ../workload.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	e := &edge{client: client, namespace: os.Getenv("AMBASSADOR_NAMESPACE"), certDir: os.Getenv("AMBASSADOR_ISTIO_SECRET_DIR")}
	errs := make(chan error)
	serve := func(address string, handler http.Handler) {
		server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		go func() { errs <- server.ListenAndServe() }()
	}
	admin := http.NewServeMux()
	for _, path := range []string{"/ambassador/v0/check_ready", "/ambassador/v0/check_alive"} {
		admin.HandleFunc(path, func(http.ResponseWriter, *http.Request) {})
	}
	serve(":8877", admin)
	serve(":8080", e)
	return <-errs
}

// edge serves requests from outside of the cluster.
type edge struct {
	client    dynamic.Interface
	namespace string
	// certDir is the value of AMBASSADOR_ISTIO_SECRET_DIR; empty if it is not set.
	certDir string
}

// ServeHTTP finds the Mapping for the path, calls its service and returns the answer.
// For a failed call it returns Envoy's status and message, with the reason.
func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m, err := e.findMapping(r.Context(), r.URL.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if m == nil {
		http.NotFound(w, r)
		return
	}
	answer, err := e.call(r.Context(), m)
	log.Printf("%s by Mapping %s/%s to %s: %v", r.URL.Path, m.Namespace, m.Name, m.Spec.Service, err)
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Caller-Serial", answer.serial)
		_ = json.NewEncoder(w).Encode(answer)
	case status.Code(err) == codes.PermissionDenied:
		http.Error(w, "RBAC: access denied", http.StatusForbidden)
	default:
		http.Error(w, "upstream connect error or disconnect/reset before headers: "+rootCause(err), http.StatusServiceUnavailable)
	}
}

// answer is what the stand-in of the service reports of itself and of its client.
type answer struct {
	Server string `json:"server"`
	Image  string `json:"image"`
	Port   string `json:"port"`
	Client string `json:"client"`
	// serial is the serial number of the client's certificate. It is sent as a header
	// and not in the body, because it changes with every rotation.
	serial string
}

// call makes a call on a new connection, so that the current certificates and policies
// apply to it.
func (e *edge) call(ctx context.Context, m *mapping) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tlsContext, address, err := e.upstream(ctx, m)
	if err != nil {
		return nil, err
	}
	var dialErr error
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := e.dial(ctx, address, tlsContext)
		if err != nil {
			dialErr = err
		}
		return conn, err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	var header metadata.MD
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header))
	if err != nil {
		if dialErr != nil && status.Code(err) == codes.Unavailable {
			err = dialErr
		}
		return nil, err
	}
	headerValue := func(key string) string {
		if all := header.Get(key); len(all) > 0 {
			return all[0]
		}
		return ""
	}
	return &answer{Server: headerValue("server"), Image: headerValue("image"), Port: headerValue("port"), Client: headerValue("client"), serial: headerValue("serial")}, nil
}

// rootCause returns the message of a gRPC status, or of the innermost wrapped error.
func rootCause(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return fmt.Sprint(err)
}
