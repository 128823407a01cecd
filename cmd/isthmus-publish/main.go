// Command isthmus-publish runs beside an edge proxy. It reads the certificates that
// Istio's agent writes into a directory, and publishes them into a Secret. It is a
// separate, small binary because it runs in pods that face the internet.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// Exit statuses.
const (
	exitOK    = 0
	exitUsage = 2
)

// Set by the build: -ldflags "-X main.version=v1.2.3 -X main.commit=... -X
// main.date=...". A plain `go build` leaves them empty.
var (
	version = ""
	commit  = ""
	date    = ""
)

// gcPercent is Go's GOGC unless the environment sets it. The live heap is about 2 MiB:
// frequent collections cost little and save about as much again.
const gcPercent = 25

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// A lost terminal or log must not end it.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run runs one command line and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o := defaults(os.Getenv)
	flags := o.flags()
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, _ = fmt.Fprint(stdout, usage, flags.FlagUsages())
		return exitOK
	case err == nil && o.version:
		_, _ = fmt.Fprintln(stdout, versionText())
		return exitOK
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: the command takes flags only", flags.Arg(0))
	}
	if err == nil {
		err = o.validate(flags)
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "error: %s\nSee \"isthmus-publish --help\" for its flags\n", err)
		return exitUsage
	}
	log := o.logger(stderr)
	klog.SetSlogLogger(log) // client-go logs through klog
	supervise(ctx, log, func(ctx context.Context) error { return o.publish(ctx, log) })
	return exitOK
}

const usage = `Isthmus-publish reads the certificates that Istio's agent writes into a directory, and publishes them into a
Secret. It writes the Secret when a certificate is due, when the mesh's roots change, and when the Secret was
deleted or damaged. If an edge has many replicas, one of them writes. A certificate that is incomplete, expired or
of another identity is never written.

Logs are JSON lines on standard error. On SIGTERM the process exits with status 0; status 2 means that the command
line is invalid. Nothing else ends it, because a pod is not ready while one of its sidecars does not run: if the
environment, the token, the API server or the directory is missing, it logs what is wrong and tries again.

Examples:
  # In an edge's pod, with POD_NAMESPACE and SERVICE_ACCOUNT in the environment
  isthmus-publish --dir /etc/istio-certs --secret istio-certs --trust-domain cluster.local

  # Outside of the cluster
  isthmus-publish --dir ./certs --secret istio-certs --trust-domain cluster.local --roots-file ./root-cert.pem \
    --namespace emissary --service-account emissary-ingress --kubeconfig ~/.kube/config

Flags:
`

// versionText prefers the version that the build set to the one that Go recorded.
func versionText() string {
	v := version
	if info, ok := debug.ReadBuildInfo(); ok && v == "" && info.Main.Version != "(devel)" {
		v = info.Main.Version
	}
	if v == "" {
		v = "dev"
	}
	text := "isthmus-publish " + v
	if commit != "" {
		text += "\ncommit: " + commit
	}
	if date != "" {
		text += "\ndate:   " + date
	}
	return text + "\ngo:     " + runtime.Version()
}
