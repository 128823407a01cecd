package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/imagebuilder"
)

func runImages(ctx context.Context, arguments []string, std streams) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	out := flags.String("out", "", "`folder` to copy the tarballs to (default: they stay in the cache)")
	if err := parse(flags, arguments, std, "[NAME...]"); err != nil {
		return err
	}
	builder, err := newBuilder(std)
	if err != nil {
		return err
	}
	tarballs, err := imagebuilder.Build(ctx, builder, flags.Args()...)
	if err != nil {
		return err
	}
	if *out != "" {
		folder, err := filepath.Abs(*out)
		if err != nil {
			return err
		}
		if tarballs, err = imagebuilder.Copy(tarballs, folder); err != nil {
			return err
		}
	}
	for _, tarball := range tarballs {
		if _, err := fmt.Fprintln(std.out, tarball); err != nil {
			return err
		}
	}
	return nil
}
