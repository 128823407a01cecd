package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"

	"github.com/isthmus-mesh/isthmus/test/cluster/internal/images"
)

func runImages(ctx context.Context, arguments []string, std streams) error {
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	out := flags.String("out", "", "`folder` to put the tarballs into (default: they stay in the cache alone)")
	if err := parse(flags, arguments, std, "[NAME...]"); err != nil {
		return err
	}
	builder, err := builder(std)
	if err != nil {
		return err
	}
	tarballs, err := images.Build(ctx, builder, flags.Args()...)
	if err != nil {
		return err
	}
	if *out != "" {
		folder, err := filepath.Abs(*out)
		if err != nil {
			return err
		}
		if tarballs, err = images.Copy(tarballs, folder); err != nil {
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
