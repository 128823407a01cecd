package main

import (
	"errors"
	"flag"
	"fmt"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
)

func runDown(arguments []string, std streams) error {
	flags := flag.NewFlagSet("down", flag.ContinueOnError)
	data := flags.String("data", "", "the `folder` that up --detach was given")
	if err := parse(flags, arguments, std, ""); err != nil {
		return err
	}
	if *data == "" {
		return errors.New("down needs --data, the folder that up --detach was given")
	}
	folder, err := absolute(*data)
	if err != nil {
		return err
	}
	found, err := apiserver.Down(folder)
	if err != nil {
		return err
	}
	if !found {
		_, _ = fmt.Fprintf(std.err, "no control plane runs in %s\n", folder)
		return nil
	}
	_, _ = fmt.Fprintf(std.err, "ended the control plane in %s\n", folder)
	return nil
}

func runReap(arguments []string, std streams) error {
	if len(arguments) != 1 {
		return fmt.Errorf("%s takes a data folder", apiserver.ReapCommand)
	}
	return apiserver.Reap(arguments[0], std.in)
}
