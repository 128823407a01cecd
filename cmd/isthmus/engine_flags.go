package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
)

// engineFlags are the flags that configure the engine.
type engineFlags struct {
	settings string
	profiles []string
	cluster  clusterFlags
}

func (f *engineFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.settings, "settings", "", "settings file in the format of the chart; its values win over the cluster's")
	flags.StringArrayVar(&f.profiles, "profiles", nil, "file with additional profiles; can be repeated")
	f.cluster.add(flags)
}

func (f *engineFlags) check(cmd *cobra.Command) error { return f.cluster.check(cmd.Flags()) }

// forManifests validates the flags of a command that edits manifests, and creates its
// engine.
func (f *engineFlags) forManifests(cmd *cobra.Command, manifests *manifestFlags) (*inject.Engine, error) {
	if err := manifests.check(cmd); err != nil {
		return nil, err
	}
	if err := f.check(cmd); err != nil {
		return nil, err
	}
	info := cmd.ErrOrStderr()
	if manifests.quiet {
		info = io.Discard
	}
	return f.engine(cmd.Context(), info, cmd.ErrOrStderr())
}

// engine creates the engine, and prints the mesh settings in use.
func (f *engineFlags) engine(ctx context.Context, info, warn io.Writer) (*inject.Engine, error) {
	options, err := engineOptions(f.settings, f.profiles)
	if err != nil {
		return nil, err
	}
	if f.cluster.enabled {
		discovered, err := f.cluster.discover(ctx, options.Settings.Mesh)
		if err != nil {
			return nil, fmt.Errorf("mesh settings from the cluster: %w", err)
		}
		options.Mesh, options.Injector = discovered.mesh, discovered.injector
		reportDiscovered(info, warn, discovered.settings)
	} else if err := reportExplicit(info, f.settings, options.Settings.Mesh); err != nil {
		return nil, err
	}
	return inject.New(options)
}

// engineOptions reads the settings and profiles of an engine.
func engineOptions(settings string, profiles []string) (inject.Options, error) {
	options := inject.Options{Version: currentBuild().Version}
	if settings != "" {
		data, err := readFile(settings)
		if err != nil {
			return options, err
		}
		if options.Settings, err = inject.ParseSettings(settings, data); err != nil {
			return options, err
		}
	}
	var err error
	if options.Profiles, err = patches.BuiltIn(); err != nil {
		return options, err
	}
	for _, path := range profiles {
		data, err := readFile(path)
		if err != nil {
			return options, err
		}
		if err := options.Profiles.Add(path, data); err != nil {
			return options, err
		}
	}
	return options, nil
}
