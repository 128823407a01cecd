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
)

// Exit statuses.
const (
	exitOK = iota
	exitError
	exitUsage
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
		err = o.validate()
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "error: %s\nSee \"isthmus-publish --help\" for its flags\n", err)
		return exitUsage
	}
	if err := o.publish(ctx, stderr); err != nil {
		_, _ = fmt.Fprintf(stderr, "error: %s\n", err)
		return exitError
	}
	return exitOK
}

const usage = `Isthmus-publish reads the certificates that Istio's agent writes into a directory, and publishes them into a
Secret. It writes the Secret when a certificate is due, when the mesh's roots change, and when the Secret was
deleted or damaged. If an edge has many replicas, one of them writes. A certificate that is incomplete, expired or
of another identity is never written.

Logs are JSON lines on standard error. On SIGTERM the process exits with status 0. It does not exit while the API
server or the directory is unavailable. Status 1 means that it could not start, status 2 that the command line is
invalid.

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
