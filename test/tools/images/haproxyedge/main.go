// Command haproxyedge is the entry point of the tests' edge. It runs HAProxy, which
// forwards HTTP to one service of the mesh with mutual TLS, and gives it every new
// certificate that appears in a folder, without dropping requests.
//
// HAProxy verifies the upstream's chain and no name in it, as Emissary does. It does not
// retry, so a request that fails because of a rotation is counted as failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/tools/images/certpair"
)

// options are the flags.
type options struct {
	// certificates is the folder with the key pair; see package certpair.
	certificates string
	// upstream is host:port of the service. listen and health are the addresses of
	// the edge's own listeners.
	upstream, listen, health string
	// drain is how long the edge goes on serving after the signal to end, while it
	// reports that it is not ready. grace is how long requests may take after that.
	drain, grace time.Duration
	haproxy      string
	// work is a writable folder.
	work string
}

func (o *options) bind(flags *flag.FlagSet) {
	flags.StringVar(&o.certificates, "certificates", os.Getenv("EDGE_CERT_DIR"), "`folder` with the key pair (default $EDGE_CERT_DIR)")
	flags.StringVar(&o.upstream, "upstream", "", "`host:port` of the upstream service, called with mutual TLS")
	flags.StringVar(&o.listen, "listen", ":8080", "`address` for HTTP")
	flags.StringVar(&o.health, "health", ":8081", "`address` for /healthz, /certificate and /stats")
	flags.DurationVar(&o.drain, "drain", 5*time.Second, "how long to go on serving after the signal to end")
	flags.DurationVar(&o.grace, "grace", 25*time.Second, "how long requests may take after that")
	flags.StringVar(&o.haproxy, "haproxy", "/usr/sbin/haproxy", "path of the `program`")
	flags.StringVar(&o.work, "work", "/tmp", "`folder` to write configuration and socket to")
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds | log.LUTC)
	var o options
	flags := flag.NewFlagSet("edge", flag.ExitOnError)
	o.bind(flags)
	_ = flags.Parse(os.Args[1:]) // exits on an error
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := o.run(ctx)
	stop()
	if err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It returns an error if there is no valid pair at the
// start.
func (o *options) run(ctx context.Context) error {
	if o.certificates == "" || o.upstream == "" {
		return errors.New("want --certificates (or EDGE_CERT_DIR) and --upstream")
	}
	first, err := certpair.Load(o.certificates, time.Now())
	if err != nil {
		return fmt.Errorf("no certificate to start with: %w", err)
	}
	e := &edge{options: o}
	listener, err := net.Listen("tcp", o.health)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: e.adminHandler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	watchContext, cancel := context.WithCancel(context.WithoutCancel(ctx)) // watch while draining too
	defer cancel()
	if err := e.replaceProxy(ctx, first); err != nil {
		return err
	}
	go certpair.Watch(watchContext, o.certificates, first, func(next *certpair.Pair) error { return e.replaceProxy(watchContext, next) }, func(err error) { log.Print(err) })
	return e.serve(ctx)
}

// path returns the path of a file in the work folder.
func (o *options) path(name string) string { return filepath.Join(o.work, name) }
