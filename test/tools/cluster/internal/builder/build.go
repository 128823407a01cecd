package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// progressInterval is how often a build reports its progress.
const progressInterval = 10 * time.Second

// Builder builds tools into a cache and finds them there.
type Builder struct {
	// Root is the repository's root.
	Root string
	// Cache is the folder of the built tools; see CacheFolder.
	Cache string
	// Assets is a folder with etcd, kube-apiserver and kubectl (KUBEBUILDER_ASSETS),
	// which are then used instead of building them. Default: none.
	Assets string
	// Progress receives a line for each step of a build.
	Progress io.Writer
}

// Build returns the absolute paths of tools, by name. It builds the tools that the
// cache does not hold, one module at a time. Tools that come from a package are
// found or fetched.
func (b Builder) Build(ctx context.Context, names ...string) (map[string]string, error) {
	wanted := map[string][]Tool{}
	var packaged []PackagedTool
	for _, name := range names {
		if p, ok := findPackaged(name); ok {
			packaged = append(packaged, p)
			continue
		}
		module, tool, err := Find(name)
		if err != nil {
			return nil, err
		}
		wanted[module.Name] = append(wanted[module.Name], tool)
	}
	paths := map[string]string{}
	for _, module := range Catalogue() {
		built := wanted[module.Name]
		if module.Name == "kubernetes" && b.Assets != "" {
			var err error
			if built, err = b.useAssets(paths, built); err != nil {
				return nil, err
			}
		}
		if len(built) == 0 {
			continue
		}
		folder, err := b.buildModule(ctx, module, built)
		if err != nil {
			return nil, err
		}
		for _, tool := range built {
			paths[tool.Name] = filepath.Join(folder, tool.Name)
		}
	}
	for _, p := range packaged {
		path, err := b.findOrFetch(ctx, p)
		if err != nil {
			return nil, err
		}
		paths[p.Name] = path
	}
	return paths, nil
}

// useAssets adds the paths of tools in the assets folder to paths, and returns the
// tools that still have to be built. That can only be kube-controller-manager, which
// such folders usually lack.
func (b Builder) useAssets(paths map[string]string, tools []Tool) ([]Tool, error) {
	folder, err := filepath.Abs(b.Assets)
	if err != nil {
		return nil, fmt.Errorf("KUBEBUILDER_ASSETS=%s: %w", b.Assets, err)
	}
	for _, tool := range tools {
		paths[tool.Name] = filepath.Join(folder, tool.Name)
	}
	absent := missing(folder, tools)
	if len(absent) == 1 && absent[0].Name == "kube-controller-manager" {
		return absent, nil
	}
	if len(absent) > 0 {
		return nil, fmt.Errorf("KUBEBUILDER_ASSETS=%s has no executable file %s: put it there, or unset KUBEBUILDER_ASSETS to build it",
			b.Assets, strings.Join(toolNames(absent), ", "))
	}
	return nil, nil
}

// buildModule returns the module's folder in the cache and builds the tools that are
// missing in it.
func (b Builder) buildModule(ctx context.Context, module Module, tools []Tool) (string, error) {
	plan, err := module.buildPlan(b.Root, b.Cache)
	if err != nil {
		return "", err
	}
	if len(missing(plan.target, tools)) == 0 {
		return plan.target, nil
	}
	unlock, err := lock(ctx, b.Cache, b.Progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	absent := missing(plan.target, tools) // another process may have built them meanwhile
	if len(absent) == 0 {
		return plan.target, nil
	}
	if err := b.compile(ctx, plan, absent); err != nil {
		return "", fmt.Errorf("build %s from %s: %w", strings.Join(toolNames(absent), ", "), module.Folder, err)
	}
	return plan.target, nil
}

// compile runs the go command once for all tools, with a temporary folder of the
// cache as output, and moves the programs to the target.
func (b Builder) compile(ctx context.Context, plan buildPlan, tools []Tool) error {
	if err := os.MkdirAll(plan.target, 0o755); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(b.Cache, "building-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temporary) }()

	label := "building " + strings.Join(toolNames(tools), ", ")
	_, _ = fmt.Fprintf(b.Progress, "%s (once; minutes when cold), into %s\n", label, plan.target)
	reporter := &progressReporter{out: b.Progress, label: label, start: time.Now()}
	if err := b.runGo(ctx, plan, tools, temporary, reporter); err != nil {
		return err
	}
	for _, tool := range tools {
		if err := os.Rename(filepath.Join(temporary, outputName(tool.Package)), filepath.Join(plan.target, tool.Name)); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(b.Progress, "%s: done in %s\n", label, reporter.elapsed(time.Now()))
	return nil
}

// runGo executes the go command and reports its progress.
func (b Builder) runGo(ctx context.Context, plan buildPlan, tools []Tool, output string, reporter *progressReporter) error {
	// The flags are those of "make build", so that both share the compiled packages.
	arguments := []string{"build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", plan.flags, "-o", output + string(filepath.Separator)}
	for _, tool := range tools {
		arguments = append(arguments, tool.Package)
	}
	command := exec.CommandContext(ctx, "go", arguments...)
	command.Dir = plan.folder
	command.Env = b.environment()
	return runWithProgress(ctx, command, reporter)
}

// runWithProgress executes the go command, or a shell that calls it, and reports its
// progress.
func runWithProgress(ctx context.Context, command *exec.Cmd, reporter *progressReporter) error {
	// The compilers are children of the go command: signal the whole process group.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGTERM) }
	command.WaitDelay = 10 * time.Second
	stderr, err := command.StderrPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start the go command: %w", err)
	}

	read := make(chan struct{})
	go func() {
		defer close(read)
		reporter.read(stderr)
	}()
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for done := false; !done; {
		select {
		case now := <-ticker.C:
			reporter.report(now)
		case <-read:
			done = true
		}
	}
	err = command.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("the go command ended with %w", err), errors.New(reporter.lastErrors()))
	}
	return nil
}

// environment returns the environment of the go command. It builds static programs
// for this machine, whatever GOOS and GOARCH the caller has set. Without a HOME, its
// caches are folders of our cache.
func (b Builder) environment() []string {
	environment := append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=", "GOOS=", "GOARCH=")
	if os.Getenv("HOME") != "" {
		return environment
	}
	for name, folder := range map[string]string{"GOCACHE": "go-build", "GOPATH": "go"} {
		if os.Getenv(name) == "" {
			environment = append(environment, name+"="+filepath.Join(b.Cache, folder))
		}
	}
	return environment
}

// missing returns the tools for which the folder has no executable file.
func missing(folder string, tools []Tool) []Tool {
	var absent []Tool
	for _, tool := range tools {
		info, err := os.Stat(filepath.Join(folder, tool.Name))
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			absent = append(absent, tool)
		}
	}
	return absent
}

func toolNames(tools []Tool) []string {
	names := make([]string, len(tools))
	for i, tool := range tools {
		names[i] = tool.Name
	}
	return names
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// outputName returns the name that the go command gives a program: the last element
// of its import path that is not a major version.
func outputName(importPath string) string {
	if last := path.Base(importPath); !majorVersion.MatchString(last) {
		return last
	}
	return path.Base(path.Dir(importPath))
}
