package apiserver

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// childAttributes puts a child into its own process group, so that a terminal's Ctrl-C
// does not reach it, and makes the kernel kill it when the thread that started it
// ends. That thread must be the main thread; see main. The children of the init
// process of a PID namespace end with it anyway, and any thread may start them.
func childAttributes(isInit bool) *syscall.SysProcAttr {
	if isInit {
		return &syscall.SysProcAttr{Setpgid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// startTime returns the 22nd field of /proc/<pid>/stat: clock ticks since the
// machine's start. It returns an error if the process has ended or is a zombie.
func startTime(pid int) (string, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The second field is the program's name in parentheses. It may contain blanks.
	stat := string(content)
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has %d fields after the name, want 20", pid, len(fields))
	}
	if state := fields[0]; state == "Z" || state == "X" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}
