// Command isthmus joins edge proxies to an Istio mesh: the admission webhook
// and the command line in one binary. It works as `kubectl isthmus` too, when
// it is installed under the name kubectl-isthmus.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	exitOK = iota
	exitError
	exitUsage
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run runs one command line, args[0] being the program, and returns the exit
// status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand(args[0])
	root.SetArgs(args[1:])
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	for _, one := range flatten(err) {
		_, _ = fmt.Fprintf(stderr, "error: %s\n", strings.TrimRight(one.Error(), "\n"))
	}
	var usage *usageError
	if _, _, unknown := root.Find(args[1:]); unknown != nil || errors.As(err, &usage) {
		return exitUsage
	}
	return exitError
}

// flatten returns the errors that were joined into one.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, inner := range joined.Unwrap() {
		out = append(out, flatten(inner)...)
	}
	return out
}

// newRootCommand makes the command with all its subcommands. program is what
// the binary was called as.
func newRootCommand(program string) *cobra.Command {
	root := &cobra.Command{
		Use:           "isthmus",
		Short:         "Join an edge proxy to an Istio mesh",
		Long:          "Isthmus joins an edge proxy (Emissary-ingress, Ambassador Edge Stack and others by profile) to an Istio mesh:\nlabel a namespace, and the edge's pods come out with their Istio identity.",
		Example:       "  isthmus inject -f emissary.yaml | kubectl apply -f -\n  isthmus inject -f emissary.yaml -o diff",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w\nSee %q for its flags", err, cmd.CommandPath()+" --help")
	})
	root.AddCommand(newInjectCommand(), newUninjectCommand(), newAdoptCommand(), newWebhookCommand(), newControllerCommand(), newVersionCommand())
	if name := strings.TrimSuffix(filepath.Base(program), ".exe"); name == "kubectl-isthmus" {
		asPlugin(root)
	}
	return root
}

// asPlugin makes help and errors say `kubectl isthmus`, which is what the user
// typed.
func asPlugin(cmd *cobra.Command) {
	if !cmd.HasParent() {
		cmd.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl isthmus"}
	}
	cmd.Example = strings.ReplaceAll(cmd.Example, "isthmus ", "kubectl isthmus ")
	for _, c := range cmd.Commands() {
		asPlugin(c)
	}
}

// usageError is a command line that cannot be understood, as opposed to a
// command that went wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// noArgs refuses arguments that are no flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.Flags().ShorthandLookup("f") == nil {
		return usagef("unexpected argument %q: %q takes flags alone", args[0], cmd.CommandPath())
	}
	return usagef("unexpected argument %q: files are named by -f, as in %q", args[0], cmd.CommandPath()+" -f "+args[0])
}
