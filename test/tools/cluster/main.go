// Command cluster builds a real Kubernetes control plane from Go modules, and
// starts and stops it for tests and demos.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/singlenode"
)

const usage = `Usage: cluster <command> [flags]

  build [NAME...]   build tools into the cache (default: all of them) and print their paths
  bin NAME          build one tool if the cache does not hold it, and print its path
  images [NAME...]  make the container images of a node (default: all of them) and print the tarballs' paths
  up                start etcd and the API server, print their endpoint, and run until a signal or the end of standard input
                    (up --node: a whole cluster of one node, which runs pods)
  component ORDER NAME
                    kill, restart, pause or resume a component of a node, such as etcd or kubelet,
                    import an image or kill a container
  down              stop what up --detach started

"cluster <command> -h" prints the command's flags. The cache is $ISTHMUS_CACHE; by default, a folder in
the user's cache folder. If KUBEBUILDER_ASSETS names a folder with etcd, kube-apiserver and kubectl, these
are used and not built.
`

func main() {
	// The kernel kills the components when the thread that started them ends. The
	// main thread lives as long as the process.
	runtime.LockOSThread()
	os.Exit(exitCode(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// exitCode runs a command until it returns or a signal arrives, and returns the
// exit code of the process.
func exitCode(arguments []string, std streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, arguments, std)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(std.err, "cluster:", err)
		return 1
	}
	return 0
}

// streams are the standard streams of a command.
type streams struct {
	in  *os.File
	out io.Writer
	err io.Writer
}

// run executes one command. It returns flag.ErrHelp if the user asked for help.
func run(ctx context.Context, arguments []string, std streams) error {
	if len(arguments) == 0 {
		_, _ = io.WriteString(std.err, usage)
		return errors.New("no command given")
	}
	command, rest := arguments[0], arguments[1:]
	switch command {
	case "build":
		return runBuild(ctx, rest, std)
	case "bin":
		return runBin(ctx, rest, std)
	case "images":
		return runImages(ctx, rest, std)
	case "up":
		return runUp(ctx, rest, std)
	case "down":
		return runDown(rest, std)
	case "component":
		return runComponent(ctx, rest, std)
	case apiserver.ReapCommand: // internal
		return runReap(rest, std)
	case singlenode.InsideCommand: // internal
		return runInside(ctx, rest, std)
	case "help", "-h", "-help", "--help":
		_, _ = io.WriteString(std.out, usage)
		return nil
	}
	_, _ = io.WriteString(std.err, usage)
	return fmt.Errorf("unknown command %q", command)
}

// parse reads a command's flags. It rejects positional arguments unless positional
// describes them for the usage text.
func parse(flags *flag.FlagSet, arguments []string, std streams, positional string) error {
	flags.SetOutput(std.err)
	flags.Usage = func() {
		_, _ = fmt.Fprintf(std.err, "Usage: cluster %s [flags] %s\n", flags.Name(), positional)
		flags.PrintDefaults()
	}
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if positional == "" && flags.NArg() > 0 {
		return fmt.Errorf("%s takes no argument, got %q", flags.Name(), flags.Arg(0))
	}
	return nil
}
