package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/isthmus-mesh/isthmus/internal/manifest"
)

// manifestFlags are the flags that all commands for manifests share.
type manifestFlags struct {
	files     []string
	output    string
	namespace string
	quiet     bool
}

func (f *manifestFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "filename", "f", nil, "file, directory of *.yaml, *.yml and *.json files, or - for standard input; can be repeated")
	flags.StringVarP(&f.output, "output", "o", "yaml", "output format: yaml (each document in its own format), json, or diff (what would change)")
	flags.StringVarP(&f.namespace, "namespace", "n", "default", "namespace of workloads that do not name one")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print only warnings and errors on standard error")
}

// setDefaultOutput sets the default of --output.
func (f *manifestFlags) setDefaultOutput(cmd *cobra.Command, format string) {
	f.output = format
	cmd.Flags().Lookup("output").DefValue = format
}

// check validates the flags before anything is read.
func (f *manifestFlags) check(cmd *cobra.Command) error {
	switch {
	case len(f.files) == 0:
		return usagef("-f is missing: name a file, a directory or - for standard input, as in %q", cmd.CommandPath()+" -f emissary.yaml")
	case !slices.Contains([]string{"yaml", "json", "diff"}, f.output):
		return usagef("--output %q: want yaml, json or diff", f.output)
	case f.namespace == "":
		return usagef("--namespace is empty: want the namespace of workloads that do not name one")
	}
	stdin := 0
	for _, name := range f.files {
		if name == "-" {
			stdin++
		}
	}
	if stdin > 1 {
		return usagef("-f - is given %d times: standard input can be read only once", stdin)
	}
	return nil
}

// run edits every workload and prints the result. Everything is rendered before the
// first byte is written.
func (f *manifestFlags) run(cmd *cobra.Command, edit manifest.Editor) error {
	return f.transform(cmd, func(sources []manifest.Source) (manifest.Result, error) {
		return manifest.Transform(sources, f.namespace, edit)
	})
}

func (f *manifestFlags) transform(cmd *cobra.Command, transform func([]manifest.Source) (manifest.Result, error)) error {
	sources, err := f.read(cmd.InOrStdin())
	if err != nil {
		return err
	}
	result, err := transform(sources)
	if err != nil {
		return err
	}
	text, err := f.render(result, cmd.OutOrStdout())
	if err != nil {
		return err
	}
	f.report(cmd.ErrOrStderr(), sources, result)
	_, err = cmd.OutOrStdout().Write(text)
	return err
}

func (f *manifestFlags) render(result manifest.Result, stdout io.Writer) ([]byte, error) {
	switch f.output {
	case "json":
		return result.JSON()
	case "diff":
		return result.Diff(wantsColour(stdout))
	}
	return result.Text(), nil
}

func (f *manifestFlags) report(stderr io.Writer, sources []manifest.Source, result manifest.Result) {
	documents := map[string]int{}
	for _, d := range result.Documents {
		documents[d.Source] = max(documents[d.Source], d.Number)
	}
	for _, s := range sources {
		if documents[s.Name] == 0 {
			_, _ = fmt.Fprintf(stderr, "warning: %s: contains no objects\n", s.Name)
		}
	}
	var warnings warningList
	for _, d := range result.Decisions {
		if !f.quiet {
			_, _ = fmt.Fprintf(stderr, "%s: %s\n", d.Workload, d.Summary)
			for _, line := range d.Details {
				_, _ = fmt.Fprintf(stderr, "  %s\n", line)
			}
		}
		for _, w := range d.Warnings {
			warnings.add(d.Workload, w)
		}
	}
	for _, w := range result.Warnings {
		warnings.add(w.Object, w.Text)
	}
	warnings.write(stderr)
}

// maxNamed is how many objects a warning names.
const maxNamed = 5

// warningList collects warnings. A text that concerns several objects is written once.
type warningList struct {
	texts   []string
	objects map[string][]string
}

func (l *warningList) add(object, text string) {
	if l.objects == nil {
		l.objects = map[string][]string{}
	}
	objects, known := l.objects[text]
	if !known {
		l.texts = append(l.texts, text)
	}
	if len(objects) == 0 || !slices.Contains(objects, object) {
		l.objects[text] = append(objects, object)
	}
}

func (l *warningList) write(w io.Writer) {
	for _, text := range l.texts {
		objects := l.objects[text]
		named := strings.Join(objects[:min(len(objects), maxNamed)], ", ")
		if more := len(objects) - maxNamed; more > 0 {
			named += fmt.Sprintf(" and %d more", more)
		}
		_, _ = fmt.Fprintf(w, "warning: %s: %s\n", named, text)
	}
}

// read reads all files and directories that -f names.
func (f *manifestFlags) read(stdin io.Reader) ([]manifest.Source, error) {
	var sources []manifest.Source
	for _, name := range f.files {
		if name == "-" {
			data, err := readAll(stdin)
			if err != nil {
				return nil, fmt.Errorf("standard input: %w", err)
			}
			sources = append(sources, manifest.Source{Name: "<stdin>", Data: data})
			continue
		}
		paths, err := manifestPaths(name)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			data, err := readFile(path)
			if err != nil {
				return nil, err
			}
			sources = append(sources, manifest.Source{Name: path, Data: data})
		}
	}
	return sources, nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := readAll(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// readAll reads at most one byte more than a source may have: enough to notice a
// source that is too large, even if it never ends.
func readAll(r io.Reader) ([]byte, error) {
	return io.ReadAll(io.LimitReader(r, manifest.MaxBytes+1))
}

// manifestPaths returns the manifests of a directory, sorted by name. It returns the
// path of a file unchanged.
func manifestPaths(name string) ([]string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(e.Name()))) && !e.IsDir() {
			paths = append(paths, filepath.Join(name, e.Name()))
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s: no *.yaml, *.yml or *.json file in this directory", name)
	}
	return paths, nil
}

// wantsColour reports whether w is a terminal and NO_COLOR is not set.
func wantsColour(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))
}
