package process

import "syscall"

// attributes put a program in its own process group, so that it does not receive a
// terminal's Ctrl-C, and make the kernel kill it when the thread that started it ends.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
