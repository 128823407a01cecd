//go:build linux

package singlenode

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// reap waits for the children that this process, the init process of its namespace,
// inherits from others: the containers' shims. The code that starts a child of its
// own also waits for it.
func reap(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
		for _, pid := range orphans() {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// orphans lists the ended children that this process did not start: shims, whose
// parent has ended. They are recognized by the name of their program.
func orphans() []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var found []int
	for _, path := range stats {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		text := string(content)
		open, end := strings.Index(text, "("), strings.LastIndex(text, ")")
		if open < 0 || end < open {
			continue
		}
		fields := strings.Fields(text[end+1:])
		if len(fields) < 2 || fields[0] != "Z" || fields[1] != "1" || !strings.HasPrefix(text[open+1:end], "containerd-shim") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			found = append(found, pid)
		}
	}
	return found
}
