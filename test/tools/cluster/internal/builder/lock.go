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

// lock allows one build at a time in a cache: two at once would need twice the memory
// and not be faster. A second caller waits and reports that it does.
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
	// The kernel releases the lock with its last descriptor, so a killed build leaves
	// no stale lock.
	return func() { _ = file.Close() }, nil
}

// lockOwner returns the process ID in the lock file, for the message.
func lockOwner(file *os.File) string {
	content := make([]byte, 20)
	n, _ := file.ReadAt(content, 0)
	if pid := strings.TrimSpace(string(content[:n])); pid != "" {
		return pid
	}
	return "unknown"
}
