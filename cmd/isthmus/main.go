// Command isthmus joins edge proxies to an Istio mesh. One binary holds the admission
// webhook, the controller and the command line. Installed as kubectl-isthmus it works
// as `kubectl isthmus`.
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

// run executes a command line, whose first argument is the program, and returns the
// exit status.
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
	for _, err := range flatten(err) {
		_, _ = fmt.Fprintf(stderr, "error: %s\n", strings.TrimRight(err.Error(), "\n"))
	}
	var usage *usageError
	if _, _, unknown := root.Find(args[1:]); unknown != nil || errors.As(err, &usage) {
		return exitUsage
	}
	return exitError
}

// flatten returns the single errors of an error made by errors.Join.
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

// newRootCommand creates the command with all its subcommands. program is the path
// that the binary was called by.
func newRootCommand(program string) *cobra.Command {
	root := &cobra.Command{
		Use:           "isthmus",
		Short:         "Join an edge proxy to an Istio mesh",
		Long:          "Isthmus joins an edge proxy (Emissary-ingress, Ambassador Edge Stack and others by profile) to an Istio mesh:\nlabel a namespace, and its edge pods get an Istio identity.",
		Example:       "  isthmus inject -f emissary.yaml | kubectl apply -f -\n  isthmus inject -f emissary.yaml -o diff",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w\nSee %q for the flags", err, cmd.CommandPath()+" --help")
	})
	root.AddCommand(newInjectCommand(), newUninjectCommand(), newAdoptCommand(), newWebhookCommand(), newControllerCommand(), newVersionCommand())
	if name := strings.TrimSuffix(filepath.Base(program), ".exe"); name == "kubectl-isthmus" {
		renameToPlugin(root)
	}
	return root
}

// renameToPlugin makes help and errors show `kubectl isthmus`, as the user typed it.
func renameToPlugin(cmd *cobra.Command) {
	if !cmd.HasParent() {
		cmd.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl isthmus"}
	}
	cmd.Example = strings.ReplaceAll(cmd.Example, "isthmus ", "kubectl isthmus ")
	for _, c := range cmd.Commands() {
		renameToPlugin(c)
	}
}

// usageError is an invalid command line, as opposed to a command that failed.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// noArgs refuses positional arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.Flags().ShorthandLookup("f") == nil {
		return usagef("unexpected argument %q: %q takes only flags", args[0], cmd.CommandPath())
	}
	return usagef("unexpected argument %q: name files with -f, as in %q", args[0], cmd.CommandPath()+" -f "+args[0])
}
