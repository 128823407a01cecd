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

// tellEvery is how often a build says where it stands.
const tellEvery = 10 * time.Second

// Builder builds tools into a cache, and finds them there.
type Builder struct {
	// Root is the repository's root.
	Root string
	// Cache is where built tools are kept; see CacheFolder.
	Cache string
	// Assets, when set, is a folder that already holds etcd, kube-apiserver and
	// kubectl (KUBEBUILDER_ASSETS); they are used instead of building.
	Assets string
	// Progress is told what is being built; standard error as a rule.
	Progress io.Writer
}

// Build returns the absolute paths of these tools, by name, and builds what the
// cache does not hold yet, one module at a time. Those that come from a package
// are found or fetched.
func (b Builder) Build(ctx context.Context, names ...string) (map[string]string, error) {
	wanted := map[string][]Tool{}
	var packaged []Packaged
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
			if built, err = b.provided(paths, built); err != nil {
				return nil, err
			}
		}
		if len(built) == 0 {
			continue
		}
		folder, err := b.place(ctx, module, built)
		if err != nil {
			return nil, err
		}
		for _, tool := range built {
			paths[tool.Name] = filepath.Join(folder, tool.Name)
		}
	}
	for _, p := range packaged {
		path, err := b.provide(ctx, p)
		if err != nil {
			return nil, err
		}
		paths[p.Name] = path
	}
	return paths, nil
}

// provided adds the paths of these tools in the folder that is given instead of
// a build, and returns those that still have to be built: a kube-controller-manager,
// which such folders do not hold as a rule.
func (b Builder) provided(paths map[string]string, tools []Tool) ([]Tool, error) {
	folder, err := filepath.Abs(b.Assets)
	if err != nil {
		return nil, fmt.Errorf("KUBEBUILDER_ASSETS=%s: %w", b.Assets, err)
	}
	for _, tool := range tools {
		paths[tool.Name] = filepath.Join(folder, tool.Name)
	}
	lacking := missing(folder, tools)
	if len(lacking) == 1 && lacking[0].Name == "kube-controller-manager" {
		return lacking, nil
	}
	if len(lacking) > 0 {
		return nil, fmt.Errorf("KUBEBUILDER_ASSETS=%s has no executable file %s: put it there, or unset KUBEBUILDER_ASSETS to build it",
			b.Assets, strings.Join(toolNames(lacking), ", "))
	}
	return nil, nil
}

// place returns the module's folder in the cache, with these tools in it.
func (b Builder) place(ctx context.Context, module Module, tools []Tool) (string, error) {
	recipe, err := module.recipeOf(b.Root, b.Cache)
	if err != nil {
		return "", err
	}
	if len(missing(recipe.target, tools)) == 0 {
		return recipe.target, nil
	}
	unlock, err := lock(ctx, b.Cache, b.Progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	lacking := missing(recipe.target, tools) // someone may just have built them
	if len(lacking) == 0 {
		return recipe.target, nil
	}
	if err := b.compile(ctx, recipe, lacking); err != nil {
		return "", fmt.Errorf("build %s from %s: %w", strings.Join(toolNames(lacking), ", "), module.Folder, err)
	}
	return recipe.target, nil
}

// compile runs the go command once for all these tools, into a temporary
// folder of the cache, and moves what came out to its place.
func (b Builder) compile(ctx context.Context, recipe recipe, tools []Tool) error {
	if err := os.MkdirAll(recipe.target, 0o755); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(b.Cache, "building-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temporary) }()

	label := "building " + strings.Join(toolNames(tools), ", ")
	_, _ = fmt.Fprintf(b.Progress, "%s (once; minutes when cold), into %s\n", label, recipe.target)
	voice := &narrator{out: b.Progress, label: label, start: time.Now()}
	if err := b.run(ctx, recipe, tools, temporary, voice); err != nil {
		return err
	}
	for _, tool := range tools {
		if err := os.Rename(filepath.Join(temporary, outputName(tool.Package)), filepath.Join(recipe.target, tool.Name)); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(b.Progress, "%s: done in %s\n", label, voice.elapsed(time.Now()))
	return nil
}

// run executes the go command and narrates it.
func (b Builder) run(ctx context.Context, recipe recipe, tools []Tool, output string, voice *narrator) error {
	// As "make build" has it, so that what both need is compiled once.
	arguments := []string{"build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", recipe.flags, "-o", output + string(filepath.Separator)}
	for _, tool := range tools {
		arguments = append(arguments, tool.Package)
	}
	command := exec.CommandContext(ctx, "go", arguments...)
	command.Dir = recipe.folder
	command.Env = b.environment()
	return narrate(ctx, command, voice)
}

// narrate executes the go command, or a shell that calls it, and tells how far it is.
func narrate(ctx context.Context, command *exec.Cmd, voice *narrator) error {
	// The compilers are the go command's children: end them all together.
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
		voice.read(stderr)
	}()
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for done := false; !done; {
		select {
		case now := <-ticker.C:
			voice.tell(now)
		case <-read:
			done = true
		}
	}
	err = command.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("the go command ended with %w", err), errors.New(voice.said()))
	}
	return nil
}

// environment is what the go command runs with: static programs for this very
// machine, whatever the caller builds for, and without a HOME its caches beside
// ours.
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

// missing lists the tools that a folder does not hold as executable files.
func missing(folder string, tools []Tool) []Tool {
	var lacking []Tool
	for _, tool := range tools {
		info, err := os.Stat(filepath.Join(folder, tool.Name))
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			lacking = append(lacking, tool)
		}
	}
	return lacking
}

func toolNames(tools []Tool) []string {
	names := make([]string, len(tools))
	for i, tool := range tools {
		names[i] = tool.Name
	}
	return names
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// outputName is what the go command calls a program: the last element of its
// import path that is no major version.
func outputName(importPath string) string {
	if last := path.Base(importPath); !majorVersion.MatchString(last) {
		return last
	}
	return path.Base(path.Dir(importPath))
}
