package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/builder"
)

// newBuilder returns the builder for the repository of the working folder, with the
// cache and the assets that the environment names.
func newBuilder(std streams) (builder.Builder, error) {
	workingFolder, err := os.Getwd()
	if err != nil {
		return builder.Builder{}, err
	}
	root, err := builder.Root(workingFolder)
	if err != nil {
		return builder.Builder{}, err
	}
	cache, err := builder.CacheFolder()
	if err != nil {
		return builder.Builder{}, err
	}
	return builder.Builder{Root: root, Cache: cache, Assets: os.Getenv("KUBEBUILDER_ASSETS"), Progress: std.err}, nil
}

func runBuild(ctx context.Context, arguments []string, std streams) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	if err := parse(flags, arguments, std, "[NAME...]"); err != nil {
		return err
	}
	names := flags.Args()
	if len(names) == 0 {
		names = builder.Names()
	}
	return printPaths(ctx, names, std)
}

func runBin(ctx context.Context, arguments []string, std streams) error {
	flags := flag.NewFlagSet("bin", flag.ContinueOnError)
	if err := parse(flags, arguments, std, "NAME"); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("bin takes one name, got %d", flags.NArg())
	}
	return printPaths(ctx, flags.Args(), std)
}

// printPaths builds tools and prints one path per line, in the order of names.
func printPaths(ctx context.Context, names []string, std streams) error {
	builder, err := newBuilder(std)
	if err != nil {
		return err
	}
	paths, err := builder.Build(ctx, names...)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := fmt.Fprintln(std.out, paths[name]); err != nil {
			return err
		}
	}
	return nil
}
