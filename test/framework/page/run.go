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

// Options say where a page runs.
type Options struct {
	// Folder is the shell's working folder.
	Folder string
	// Env is its environment, whole.
	Env []string
	// Progress is told of each block.
	Progress io.Writer
	// Retry is how long a block marked retry may take. Default: a minute.
	Retry time.Duration
	// Patience is how long any other block may take. Default: three minutes.
	Patience time.Duration
}

// Run runs a page, and returns what is wrong with the first block that fails, as
// page:line.
func Run(ctx context.Context, p *Page, o Options) error {
	if o.Retry == 0 {
		o.Retry = time.Minute
	}
	if o.Patience == 0 {
		o.Patience = 3 * time.Minute
	}
	s, err := newShell(o)
	if err != nil {
		return err
	}
	defer s.close()
	for _, b := range p.Blocks {
		place := fmt.Sprintf("%s:%d", p.Path, b.Line)
		if b.Skip {
			_, _ = fmt.Fprintf(o.Progress, "%s: left out: for a real cluster only\n", place)
			continue
		}
		begun := time.Now()
		if err := s.run(ctx, b, o); err != nil {
			return fmt.Errorf("%s: %w\nthe commands:\n%s", place, err, b.Commands)
		}
		_, _ = fmt.Fprintf(o.Progress, "%s: %.1fs: %s\n", place, time.Since(begun).Seconds(), b.title())
	}
	return nil
}

// title is the first line of the block that says what it does.
func (b Block) title() string {
	for line := range strings.Lines(b.Commands) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line
		}
	}
	return "nothing"
}

// shell is a bash that runs block after block, so that variables stay.
type shell struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	folder  string // of the scripts
	scripts int
}

func newShell(o Options) (*shell, error) {
	folder, err := os.MkdirTemp("", "isthmus-page-")
	if err != nil {
		return nil, err
	}
	s := &shell{folder: folder, command: exec.Command("bash", "-euo", "pipefail")}
	s.command.Dir, s.command.Env = o.Folder, o.Env
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.command.Stdout, s.command.Stderr = writer, writer
	s.out = bufio.NewReader(reader)
	if s.in, err = s.command.StdinPipe(); err != nil {
		return nil, err
	}
	err = s.command.Start()
	_ = writer.Close()
	return s, err
}

// close ends the shell, and what it left in the background.
func (s *shell) close() {
	_ = s.in.Close()
	s.kill()
	_ = s.command.Wait()
	_ = os.RemoveAll(s.folder)
}

func (s *shell) kill() { _ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL) }

// run runs a block until it is as expected, once or, with retry, for a while.
func (s *shell) run(ctx context.Context, b Block, o Options) error {
	deadline := time.Now().Add(o.Retry)
	for {
		output, status, err := s.attempt(ctx, b, o.Patience)
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

// attempt runs the commands once. Without retry a command that fails ends the
// shell, so there is an error then.
func (s *shell) attempt(ctx context.Context, b Block, patience time.Duration) (output string, status int, err error) {
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
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(ctx, s.kill)()
	if _, err := io.WriteString(s.in, line); err != nil {
		return "", 0, err
	}
	var all strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if rest, ok := strings.CutPrefix(line, marker); ok {
			_, err := fmt.Sscan(rest, &status)
			return strings.TrimSuffix(all.String(), "\n"), status, err
		}
		all.WriteString(line)
		if ctx.Err() != nil {
			return all.String(), 0, fmt.Errorf("not done: %w", ctx.Err())
		}
		if err != nil {
			return all.String(), 0, errors.New("a command failed")
		}
	}
}
