package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lock makes sure that one build at a time runs in a cache: two would take
// twice the memory and not be faster. A second caller waits, and says so.
func lock(ctx context.Context, cache string, progress io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(cache, "build.lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	waiting := false
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		if !waiting {
			waiting = true
			_, _ = fmt.Fprintf(progress, "waiting for another build (process %s) to finish\n", lockOwner(file))
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
	if err := file.Truncate(0); err == nil {
		_, _ = file.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
	// The kernel drops the lock with the last descriptor, so a killed build
	// never leaves a stale one.
	return func() { _ = file.Close() }, nil
}

// lockOwner returns the process id that the lock's owner wrote, for the message.
func lockOwner(file *os.File) string {
	content := make([]byte, 20)
	n, _ := file.ReadAt(content, 0)
	if pid := strings.TrimSpace(string(content[:n])); pid != "" {
		return pid
	}
	return "unknown"
}
