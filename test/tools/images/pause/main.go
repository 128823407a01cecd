// Command pause keeps a pod's namespaces alive. It is the init process of the pod: it
// reaps orphaned children, and ends on SIGINT or SIGTERM.
package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// An init process receives only the signals that it handles.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGINT, syscall.SIGTERM)
	reap() // a child may have ended before Notify
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		reap()
	}
}

// reap waits for every child that has ended. One signal may stand for several children.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}
