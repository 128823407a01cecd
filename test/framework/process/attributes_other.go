//go:build !linux

package process

import "syscall"

// attributes keep a program in the process group of this process, so that a terminal's
// Ctrl-C ends both. Only Linux can kill a program when its parent ends.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
