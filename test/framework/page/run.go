package page

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Options configure how a page runs.
type Options struct {
	// Dir is the shell's working directory.
	Dir string
	// Env is the shell's complete environment.
	Env []string
	// Progress receives a line for each block.
	Progress io.Writer
	// RetryTimeout is how long a block marked retry may take. Default: a minute.
	RetryTimeout time.Duration
	// Timeout is how long any other block may take. Default: three minutes.
	Timeout time.Duration
}

// Run runs a page. It returns the error of the first block that fails, with its position
// as page:line.
func Run(ctx context.Context, p *Page, o Options) error {
	if o.RetryTimeout == 0 {
		o.RetryTimeout = time.Minute
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Minute
	}
	s, err := newShell(o)
	if err != nil {
		return err
	}
	defer s.close()
	for _, b := range p.Blocks {
		position := fmt.Sprintf("%s:%d", p.Path, b.Line)
		if b.Skip {
			_, _ = fmt.Fprintf(o.Progress, "%s: skipped: for a real cluster only\n", position)
			continue
		}
		start := time.Now()
		if err := s.run(ctx, b, o); err != nil {
			return fmt.Errorf("%s: %w\nthe commands:\n%s", position, err, b.Commands)
		}
		_, _ = fmt.Fprintf(o.Progress, "%s: %.1fs: %s\n", position, time.Since(start).Seconds(), b.firstCommand())
	}
	return nil
}

// firstCommand is the first line of the block that is neither empty nor a comment.
func (b Block) firstCommand() string {
	for line := range strings.Lines(b.Commands) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line
		}
	}
	return "nothing"
}

// shell is a bash process that runs all blocks, so that variables keep their values.
type shell struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	out     *bufio.Reader
	folder  string // of the blocks' scripts
	scripts int
}

func newShell(o Options) (*shell, error) {
	folder, err := os.MkdirTemp("", "isthmus-page-")
	if err != nil {
		return nil, err
	}
	s := &shell{folder: folder, command: exec.Command("bash", "-euo", "pipefail")}
	s.command.Dir, s.command.Env = o.Dir, o.Env
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.command.Stdout, s.command.Stderr = writer, writer
	s.out = bufio.NewReader(reader)
	if s.stdin, err = s.command.StdinPipe(); err != nil {
		return nil, err
	}
	err = s.command.Start()
	_ = writer.Close()
	return s, err
}

// close kills the shell and its background processes.
func (s *shell) close() {
	_ = s.stdin.Close()
	s.kill()
	_ = s.command.Wait()
	_ = os.RemoveAll(s.folder)
}

func (s *shell) kill() { _ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL) }

// run runs a block once, or with retry until it prints what is expected.
func (s *shell) run(ctx context.Context, b Block, o Options) error {
	deadline := time.Now().Add(o.RetryTimeout)
	for {
		output, status, err := s.runOnce(ctx, b, o.Timeout)
		switch {
		case err != nil:
			return fmt.Errorf("%w; it printed:\n%s", err, output)
		case status != 0:
			err = fmt.Errorf("ended with status %d, and printed:\n%s", status, output)
		case b.Expects:
			err = Match(b.Want, output)
		}
		if err == nil || !b.Retry || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// runOnce runs the commands once. Without retry, a command that fails ends the shell, so
// runOnce returns an error.
func (s *shell) runOnce(ctx context.Context, b Block, timeout time.Duration) (output string, status int, err error) {
	s.scripts++
	script := filepath.Join(s.folder, fmt.Sprintf("%d.sh", s.scripts))
	if err := os.WriteFile(script, []byte(b.Commands), 0o600); err != nil {
		return "", 0, err
	}
	marker := fmt.Sprintf("--- end of %s:", script)
	line := fmt.Sprintf("source %s </dev/null; printf '\\n%s %%d\\n' 0\n", script, marker)
	if b.Retry {
		line = fmt.Sprintf("set +e; ( set -e; source %s </dev/null ); printf '\\n%s %%d\\n' $?; set -e\n", script, marker)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(ctx, s.kill)()
	if _, err := io.WriteString(s.stdin, line); err != nil {
		return "", 0, err
	}
	var printed strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if rest, ok := strings.CutPrefix(line, marker); ok {
			_, err := fmt.Sscan(rest, &status)
			return strings.TrimSuffix(printed.String(), "\n"), status, err
		}
		printed.WriteString(line)
		if ctx.Err() != nil {
			return printed.String(), 0, fmt.Errorf("not done: %w", ctx.Err())
		}
		if err != nil {
			return printed.String(), 0, errors.New("a command failed")
		}
	}
}
